"""Find and open submissions: what a student hands in is data, and may be made to hurt."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Found", "Submission", "collect", "open_submission"]

MAX_FILE, MAX_CODE, MAX_CELLS = 5_000_000, 500_000, 2_000
_NAME = re.compile(r"\w[\w.@+, -]{0,99}")


class Found(NamedTuple):
    """Where a student's notebook lies, or why none does."""

    student: str
    path: Path | None
    why: str = ""  # "no notebook", "several notebooks", …


class Submission(NamedTuple):
    """A notebook's code cells, or why they could not be had. Everything else in it is ignored."""

    hash: str  # sha256 of the file, or "" where it was not opened
    cells: tuple[str, ...] = ()
    why: str = ""  # "" where it can be graded


def collect(folder: Path, chapter: str) -> tuple[list[Found], list[str]]:
    """The submissions in a folder, and the names that were refused.

    Either STUDENT.ipynb, or STUDENT/…/CHAPTER.ipynb (as nbgrader lays them out); in a student's
    folder any notebook will do where there is only one. Links are not followed.
    """
    found: list[Found] = []
    refused = []
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith(".") or not (entry.is_dir() or entry.name.endswith(".ipynb")):
            continue
        student = entry.name.removesuffix(".ipynb")
        if not _NAME.fullmatch(student) or student.lower() in {f.student.lower() for f in found}:
            refused.append(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            found.append(_in_folder(Path(entry.path), student, chapter))
        else:
            found.append(Found(student, Path(entry.path)))
    return found, refused


def _in_folder(folder: Path, student: str, chapter: str) -> Found:
    paths: list[Path] = []
    for top, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        paths += [Path(top, f) for f in sorted(files) if f.endswith(".ipynb") and f[0] != "."]
        if len(paths) > 100:
            return Found(student, None, "too many files")
    named = [path for path in paths if path.stem == chapter]
    chosen = named or [path for path in paths if path.stem.startswith(chapter)] or paths
    if len(chosen) != 1:
        return Found(student, None, "several notebooks" if chosen else "no notebook")
    return Found(student, chosen[0])


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
        return Submission(digest, _cells(data))
    except _Odd as odd:
        return Submission(digest, why=str(odd))


class _Odd(Exception):
    """Why a file is no notebook."""


def _cells(data: bytes) -> tuple[str, ...]:
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
