"""What pages say about exercises and their grading is made from files as the pages are read.

    <!-- exercises: table -->      every exercise, with difficulty, minutes and points
    <!-- exercises: solutions -->  every text and starter, with its solution folded
    <!-- plan: 5 -->               the plan of five weeks in book/plans.yml
    <!-- graded: class -->         class.json of the run in book/_static/graded, as tables
    <!-- graded: s03 -->           what a student of that run reads
    <!-- check: NAME HINT -->      what `check` prints for the mistake that gets this hint

A marker stands in a line of its own. One that cannot be filled is a warning, and warnings fail
the build.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from course_repo import Course, find_root
from course_repo import read as read_course
from sphinx.util import logging

from ddpm_lite import checks
from ddpm_lite.grading import release, reports, source
from ddpm_lite.grading.source import Loaded

logger = logging.getLogger(__name__)
MARKER = re.compile(r"^<!-- (exercises|plan|graded|check): ([\w ]+) -->$", re.MULTILINE)
Chapters = dict[str, list[Loaded]]


@cache
def chapters(root: Path) -> Chapters:
    """The course's exercises by chapter, easiest first."""
    folder = root / "exercises"
    return {name: source.read_all(folder, name) for name in source.chapters(folder)}


def exercise_table(found: Chapters, course: Course) -> str:
    """A table for each chapter, with its notebook to take away, and the course's total."""
    parts = []
    for chapter, exercises in found.items():
        notebook = f"{chapter}.ipynb"
        take = f"Take {{download}}`{notebook} <../notebooks/exercises/{notebook}>`"
        if colab := course.colab(f"exercises/{notebook}"):
            take = f"[Open in Colab]({colab}), or take {take.removeprefix('Take ')}"
        rows = [
            f"| {e.title} | {release.STARS[e.spec.difficulty]} | {e.spec.minutes} | {_points(e)} "
            f"| {{ref}}`worked solution <worked-{e.name}>` |"
            for e in exercises
        ]
        parts.append(
            f"### {_heading(chapter)}\n\n{take}, after {{doc}}`its chapter <{chapter}>`.\n\n"
            "| Exercise | Difficulty | Minutes | Points | To read afterwards |\n"
            "|:--|:--|--:|--:|:--|\n" + "\n".join([*rows, _total(exercises)])
        )
    every = [e for exercises in found.values() for e in exercises]
    projects = [e for e in every if not e.spec.checks]
    hours = sum(e.spec.minutes for e in every if e.spec.checks) / 60
    parts.append(
        f"Together: {len(every) - len(projects)} exercises graded by machine, about {hours:.0f} "
        f"hours, and {len(projects)} projects of about a day each."
    )
    return "\n\n".join(parts)


def _points(exercise: Loaded) -> str:
    if exercise.spec.checks:
        return f"{exercise.spec.points:g}"
    return f"{sum(of for _, of in exercise.spec.rubric):g}, by people"


def _heading(chapter: str) -> str:
    """The chapter's number and the title of its page."""
    title = release.title_of(chapter, Path(__file__).parents[1])
    return f"Chapter {int(chapter.partition('_')[0])}: {title}"


def _total(exercises: Sequence[Loaded]) -> str:
    graded = [e for e in exercises if e.spec.checks]
    minutes = sum(e.spec.minutes for e in graded)
    return f"| *graded by machine* | | {minutes} | {sum(e.spec.points for e in graded):g} | |"


def worked(found: Chapters) -> str:
    """Every exercise as a student gets it, its solution folded, and another way to write it."""
    parts = []
    for chapter, exercises in found.items():
        parts.append(f"## {_heading(chapter)}")
        for e in exercises:
            text = release.prose(e).removeprefix("## ")
            parts.append(f"(worked-{e.name})=\n### {text}")
            parts.append(_folded("What you are given", [e.starter]))
            parts.append(_folded("Solution", [e.solved]))
            if e.spec.rights:
                parts.append(_folded("Written differently", [e.spec.rights[0]]))
    return "\n\n".join(parts)


def _folded(title: str, sources: Sequence[str]) -> str:
    code = "\n\n".join(f"```python\n{text.strip()}\n```" for text in sources)
    return f"::::{{admonition}} {title}\n:class: dropdown\n\n{code}\n::::"


def plan(found: Chapters, weeks: dict[int, Any], length: str) -> str:
    """The plan of so many weeks as a table; KeyError for an exercise that there is not."""
    named = {e.name: e for exercises in found.values() for e in exercises}
    rows = ["| Week | In class | To hand in | Minutes |", "|--:|:--|:--|--:|"]
    for number, week in enumerate(weeks[int(length)], 1):
        given = [named[name] for name in week.get("exercises", [])]
        titles = "; ".join(f"{{ref}}`{e.title} <worked-{e.name}>` (`{e.name}`)" for e in given)
        minutes = sum(e.spec.minutes for e in given)
        rows.append(f"| {number} | {week['class']} | {titles or '–'} | {minutes or '–'} |")
    return "\n".join(rows)


def student_report(folder: Path, name: str) -> str:
    """A student's result, as the page of feedback shows it."""
    result = json.loads((folder / "students" / f"{name}.json").read_text(encoding="utf-8"))
    rows = ["| Exercise | What is checked | Result | Points |", "|:--|:--|:--|--:|"]
    for row in result["exercises"]:
        for check in row["checks"]:
            points = f"{check['points']:g} / {check['of']:g}"
            said = reports.feedback(check)
            rows.append(f"| {row['title']} | {check['title']} | {said} | {points} |")
    return "\n".join(rows)


def class_report(folder: Path) -> str:
    """The class's numbers, as the lecturer's page shows them."""
    found = json.loads((folder / "class.json").read_text(encoding="utf-8"))
    rows = [f"{found['graded']} of {found['students']} graded, mean score {found['mean']:.0%}.", ""]
    rows += ["| Exercise | Full marks | Mean |", "|:--|--:|--:|"]
    for e in found["exercises"].values():
        mean = e["sum"] / max(1, found["graded"])
        rows.append(f"| {e['title']} | {e['full']} | {mean:.2f} / {e['of']:g} |")
    rows += ["", "| Students | Exercise | Hint they were given |", "|--:|:--|:--|"]
    rows += [f"| {m['students']} | {m['exercise']} | {m['say']} |" for m in found["misconceptions"]]
    return "\n".join(rows)


def printed(found: Chapters, name: str, hint: str) -> str:
    """What a notebook's check prints for a known mistake, or for the starter ("starter")."""
    exercise = {e.name: e for exercises in found.values() for e in exercises}[name]
    mistakes = {m.hint: exercise.mutated(m) for m in reversed(exercise.spec.mutants)}
    code = (mistakes | {"starter": exercise.starter, "solved": exercise.solved})[hint]
    answer = source.namespace(code, name)[exercise.answer]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        checks.check(name, answer)
    return f"```text\n{said.getvalue().rstrip()}\n```"


def filled(text: str, root: Path, staged: Path) -> str:
    """A page's text with its markers filled; ValueError or LookupError where one cannot be."""

    def fill(found: re.Match[str]) -> str:
        kind, what = found.groups()
        ways: dict[str, Callable[[], str]] = {
            "exercises table": lambda: exercise_table(chapters(root), read_course(root)),
            "exercises solutions": lambda: worked(chapters(root)),
            "graded class": lambda: class_report(staged / "book" / "_static" / "graded"),
        }
        if way := ways.get(f"{kind} {what}"):
            return way()
        if kind == "plan":
            weeks = yaml.safe_load((staged / "book" / "plans.yml").read_text(encoding="utf-8"))
            return plan(chapters(root), weeks, what)
        if kind == "check":
            return printed(chapters(root), *what.split())
        if kind == "graded":
            return student_report(staged / "book" / "_static" / "graded", what)
        raise ValueError(f"cannot fill {found.group()!r}")

    return MARKER.sub(fill, text)


def _read(app: Any, page: str, text: list[str]) -> None:
    try:
        text[0] = filled(text[0], find_root(Path(app.confdir)), Path(app.srcdir))
    except (LookupError, ValueError, OSError) as error:
        logger.warning("exercises: %s: %s", type(error).__name__, error, location=page)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
