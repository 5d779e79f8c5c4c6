"""Stamp every notebook's first cells from `course.toml`: the Colab line and the set-up cell.

python book/_tools/stamp.py            stamp notebooks/*.ipynb and notebooks/exercises/*.ipynb
python book/_tools/stamp.py --check    say which are not as stamped, change nothing
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from course_repo import Course, read  # noqa: E402

from ddpm_lite.grading import release  # noqa: E402

BADGE = "[▶ Open in Colab]("
SETUP_TAGS = ["setup", "nbval-ignore-output"]


def setup_source(course: Course) -> str:
    """The set-up cell, as the exercises' notebooks have it too."""
    return release.setup_source(course.repository, course.tag)


def stamped(notebook: Any, name: str, course: Course) -> Any:
    """A copy of the notebook with its first cells as `course` wants them."""
    notebook = copy.deepcopy(notebook)
    title = notebook.cells[0]
    if title.cell_type != "markdown" or not title.source.startswith("# "):
        raise ValueError(f"{name}: the first cell must be markdown and begin with '# Title'")
    heading, *rest = title.source.split("\n")
    rest = [line for line in rest if not line.startswith(BADGE)]
    while rest and not rest[0].strip():
        rest.pop(0)
    link = course.colab(name)
    badge = ["", f"{BADGE}{link})"] if link else []
    title.source = "\n".join([heading, *badge, *(["", *rest] if rest else [])])
    cell = next((c for c in notebook.cells if "setup" in c.metadata.get("tags", [])), None)
    if cell is None:
        cell = nbformat.v4.new_code_cell(id="setup")
        notebook.cells.insert(1, cell)
    tags = cell.metadata.get("tags", [])
    cell.metadata["tags"] = SETUP_TAGS + [tag for tag in tags if tag not in SETUP_TAGS]
    cell.source = setup_source(course)
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    course, stale = read(ROOT), 0
    top = ROOT / "notebooks"
    for path in sorted([*top.glob("*.ipynb"), *top.glob("exercises/*.ipynb")]):
        name = path.relative_to(top).as_posix()
        before = nbformat.read(path, as_version=4)
        after = stamped(before, name, course)
        if after != before:
            stale += 1
            print(f"{name}: {'not as stamped' if options.check else 'stamped'}")
            if not options.check:
                nbformat.write(after, path)
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
