"""Find and open submissions: what a student hands in is data, and may be made to hurt."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .identity import Origin, origin

__all__ = ["Found", "Left", "Submission", "collect", "open_submission"]

MAX_FILE, MAX_CODE, MAX_CELLS = 5_000_000, 500_000, 2_000
MAX_NAME = 200  # bytes: a file system takes 255, and reports add to a name
PUNCTUATION = "_ . @ + - , ; ' ’ ( ) [ ] & # ! ~"
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
MACHINES = ("__MACOSX", "lost+found")  # folders that programs leave, no student's


class Found(NamedTuple):
    """Where a student's notebook lies, or why none does."""

    student: str
    path: Path | None
    why: str = ""  # "no notebook", "several notebooks", …
    others: tuple[str, ...] = ()  # what else lies in the student's folder; nobody looks at it
    file: str = ""  # the path inside the folder of submissions, as text


class Left(NamedTuple):
    """Something in the folder that is nobody's submission as it stands."""

    name: str
    why: str  # and what to do


class Submission(NamedTuple):
    """A notebook's code cells, or why they could not be had. Of the rest only `origin` is read."""

    hash: str  # sha256 of the file, or "" where it was not opened
    cells: tuple[str, ...] = ()
    why: str = ""  # "" where it can be graded
    origin: Origin | None = None  # what it says of the exercises it was made from
    file: str = ""  # this and `others` as in Found
    others: tuple[str, ...] = ()


def collect(folder: Path, chapter: str) -> tuple[list[Found], list[Left]]:
    """The submissions in a folder, and all else in it but hidden files, with what to do about it.

    Either STUDENT.ipynb, or STUDENT/…/CHAPTER.ipynb (as nbgrader lays them out). In a student's
    folder that holds several, the one named like the chapter is taken; else the one whose name
    begins like the chapter; else none. Links are not followed.
    """
    found: list[Found] = []
    left: list[Left] = []
    named: dict[str, str] = {}  # as file systems compare names -> the entry
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        notebook = entry.name.endswith(".ipynb")
        if entry.name in MACHINES or (entry.name.startswith(".") and not notebook):
            continue
        student = unicodedata.normalize("NFC", entry.name.removesuffix(".ipynb"))
        same = named.get(student.casefold())
        if why := _unfit(entry.name, student, notebook or entry.is_dir()):
            left.append(Left(_plain(entry.name), why))
        elif same is not None:
            left.append(Left(_plain(entry.name), f"the same student as {same}: rename one"))
        else:
            named[student.casefold()] = entry.name
            if entry.is_dir(follow_symlinks=False):
                taken = _in_folder(Path(entry.path), student, chapter)
            else:
                taken = Found(student, Path(entry.path))
            place = _plain(os.path.relpath(taken.path, folder)) if taken.path else ""
            found.append(taken._replace(file=place))
    return found, left


def _unfit(name: str, student: str, notebook: bool) -> str:
    """Why an entry is nobody's submission, and what to do; "" if it may be one."""
    if not notebook:
        unpack = name.lower().endswith(ARCHIVES)
        return "not a notebook: unpack it" if unpack else "not a notebook: ask for an .ipynb"
    allowed = {*PUNCTUATION}
    fit = all(c in allowed or unicodedata.category(c)[0] in "LMN" for c in student)
    if len(os.fsencode(student)) > MAX_NAME:
        return f"its name is too long: rename it, {MAX_NAME} bytes are the most"
    if not student or not fit or not (student[0] in "_'’([" or student[0].isalnum()):
        return (
            f"its name: rename it; letters, digits, spaces and {PUNCTUATION} are allowed, "
            "and a letter or a digit begins it"
        )
    return ""


def _plain(name: str) -> str:
    """A name as text that can be written; bytes that are no UTF-8 become question marks."""
    return os.fsencode(name).decode("utf-8", "replace").replace("�", "?")


def _in_folder(folder: Path, student: str, chapter: str) -> Found:
    paths: list[Path] = []
    rest: list[Path] = []
    for top, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in MACHINES)
        for name in sorted(f for f in files if not f.startswith(".")):
            (paths if name.endswith(".ipynb") else rest).append(Path(top, name))
        del rest[10:]
        if len(paths) > 100:
            return Found(student, None, "too many files")
    named = [path for path in paths if path.stem == chapter]
    chosen = named or [path for path in paths if path.stem.startswith(chapter)] or paths
    if len(chosen) != 1:
        why = "several notebooks" if chosen else "no notebook"
        return Found(student, None, why, _names(paths or rest, folder))
    return Found(student, chosen[0], "", _names([p for p in paths if p != chosen[0]], folder))


def _names(paths: Sequence[Path], folder: Path) -> tuple[str, ...]:
    return tuple(_plain(str(path.relative_to(folder))) for path in paths[:10])


def open_submission(path: Path) -> Submission:
    """Read a notebook of format 4. Never raises for what a file holds or is."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                return Submission("", why="not a regular file")
            if about.st_size > MAX_FILE:
                return Submission("", why="larger than 5 MB")
            data = file.read(MAX_FILE + 1)
    except OSError:
        return Submission("", why="a link, or not readable")
    digest = hashlib.sha256(data).hexdigest()
    try:
        top = _notebook(data)
        return Submission(digest, _cells(top), origin=origin(top.get("metadata")))
    except _Odd as odd:
        return Submission(digest, why=str(odd))


class _Odd(Exception):
    """Why a file is no notebook."""


def _notebook(data: bytes) -> dict[str, Any]:
    if not data.strip():
        raise _Odd("an empty file")
    try:
        top = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _Odd("not in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _Odd("not JSON, or nested too deep") from error
    if not isinstance(top, dict) or not isinstance(top.get("cells"), list):
        old = isinstance(top, dict) and "worksheets" in top
        raise _Odd("an old notebook format" if old else "not a notebook")
    return top


def _cells(top: dict[str, Any]) -> tuple[str, ...]:
    cells = [_source(cell) for cell in top["cells"] if _is_code(cell)]
    if len(cells) > MAX_CELLS or sum(map(len, cells)) > MAX_CODE:
        raise _Odd("too much code")
    return tuple(cells)


def _is_code(cell: Any) -> bool:
    return isinstance(cell, dict) and cell.get("cell_type") == "code"


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source")
    lines: Sequence[Any] = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        raise _Odd("not a notebook")
    return "".join(lines).encode("utf-8", "replace").decode()  # lone surrogates have no bytes
