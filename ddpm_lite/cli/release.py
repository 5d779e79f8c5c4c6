"""`ddpm-lite release`: notebooks for students and teachers, made from the exercises."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from .common import Answer
from .grade import place

HELP = "make the exercise notebooks, or check that exercises are fit to be given out"
EXAMPLE = "ddpm-lite release --out released-autumn/ --variant autumn"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exercises", type=Path, default=Path("exercises"), help="folder (default ./exercises)"
    )
    parser.add_argument("--variant", metavar="KEY", help="constants and names of a class's own")
    parser.add_argument("--chapter", help="one chapter only, such as 01_factorization")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--out", type=place, help="write CHAPTER.ipynb here, and solutions/ and instructor/"
    )
    what.add_argument(
        "--course",
        action="store_true",
        help="write the course's own copies: notebooks/exercises and the package's numbers",
    )
    what.add_argument(
        "--check",
        nargs="*",
        metavar="NAME",
        help="write nothing: reference full, starter 0, every mutant caught (default: all)",
    )


def run(args: argparse.Namespace) -> Answer:
    from ..grading import folder, release, source, validate

    if args.out:
        folder.refuse_file(args.out)
    known = source.chapters(args.exercises)
    chosen = [args.chapter] if args.chapter else known
    if args.check:
        loaded = [source.find(args.exercises, name, args.variant) for name in args.check]
        return _checked({e.name: validate.problems(e) for e in loaded})
    chapters = {c: source.read_all(args.exercises, c, args.variant) for c in chosen}
    found = {e.name: validate.problems(e) for group in chapters.values() for e in group}
    if args.check is not None or any(found.values()):
        return _checked(found)
    top = args.exercises.resolve().parent
    if args.course:
        if args.variant:
            raise ValueError("--course writes the course's own copies: not with --variant")
        out, package = top / "notebooks" / "exercises", top / "ddpm_lite" / "checks" / "numbers"
        written = release.write_all(chapters, out, top / "course.toml", False, package)
    else:
        written = release.write_all(chapters, args.out, top / "course.toml")
    lines = [str(path) for path in written]
    said = {"written": list(lines)}
    if args.variant:
        said["renamed"] = _renamed(chapters, args)
        lines += said["renamed"] or ["no exercise of these has a variant"]
    if (args.out or out) == args.out and not release.course_of(top / "course.toml")[0]:
        lines.append(
            f"before you zip {args.out / 'gradescope'}/CHAPTER for Gradescope, put a wheel there: "
            "course.toml names no address (pip wheel --no-deps -w FOLDER PATH_OF_YOUR_CLONE)"
        )
    return Answer(said, "\n".join(lines))


def _renamed(chapters: dict[str, list[Any]], args: argparse.Namespace) -> list[str]:
    """What a variant asks for under another name."""
    from ..grading import source

    plain = {c: source.read_all(args.exercises, c) for c in chapters}
    before = {(c, e.name): e.answer for c, group in plain.items() for e in group}
    return [
        f"{chapter}/{e.name}: {before[chapter, e.name]} is called {e.answer}"
        for chapter, group in chapters.items()
        for e in group
        if e.answer != before[chapter, e.name]
    ]


def _checked(found: dict[str, list[str]]) -> Answer:
    lines = [
        f"{name}: " + ("; ".join(_once(name, wrong)) or "fit to be given out")
        for name, wrong in found.items()
    ]
    return Answer({"problems": found}, "\n".join(lines), 1 if any(found.values()) else 0)


def _once(name: str, wrong: list[str]) -> list[str]:
    """Problems without the exercise's name; one that several keys show is told once."""
    keys: dict[str, list[str]] = {}
    for line in wrong:
        parts = re.match(r"key (\d+): ", line)
        what = line[parts.end() :] if parts else line.removeprefix(f"{name}: ")
        keys.setdefault(what, []).append(parts[1] if parts else "")
    return [
        (f"key {first}: " if first else "")
        + what
        + (f" (keys {', '.join(also)} too)" if also else "")
        for what, (first, *also) in keys.items()
    ]
