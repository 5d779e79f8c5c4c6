"""What a batch is, and what one machine does of it: test itself, grade some submissions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .identity import Origin, foreign, identity
from .judge import STOPS, Graded, grade, key_of, ungradable
from .notebook import Submission
from .sandbox import Sandbox, SandboxError
from .scoring import explain
from .source import Loaded, parse

__all__ = ["FORMAT", "BatchStopped", "Job", "Plan", "grade_some", "plan_of", "self_test"]

FORMAT = 2


class BatchStopped(RuntimeError):
    """The machine cannot grade: nobody has been."""


class Plan(NamedTuple):
    """What is the same for everybody in a batch. Plain values: it goes to other machines too."""

    chapter: str
    exercises: tuple[tuple[str, str], ...]  # path, text
    secret: bytes
    level: str
    seconds: float | None = None  # a case's limit, where it is not the exercise's own
    closed: tuple[str, ...] = ()
    origin: Origin | None = None  # what a notebook made from these exercises says of itself

    @property
    def specification(self) -> str:
        """Hash of all that decides about points."""
        text = json.dumps([FORMAT, self.chapter, self.exercises, self.seconds])
        return hashlib.sha256(text.encode()).hexdigest()

    def loaded(self) -> list[Loaded]:
        """The exercises that a machine grades."""
        found = [parse(text, Path(path)) for path, text in self.exercises]
        return [exercise for exercise in found if exercise.spec.checks]


class Job(NamedTuple):
    """One student's submission, opened."""

    student: str
    submission: Submission


def plan_of(exercises: Sequence[Loaded], **rest: Any) -> Plan:
    """A plan for a chapter's exercises."""
    chapter = exercises[0].chapter
    table = tuple((f"{e.chapter}/{e.name}.py", e.file) for e in exercises)
    return Plan(chapter, table, origin=identity(exercises), **rest)


def self_test(plan: Plan, box: Sandbox, exercises: Sequence[Loaded]) -> None:
    """On this very machine the references must score full and the starters 0; else BatchStopped.

    They keep the time limit of everybody: one that is too short for them would fail everybody.
    """
    for exercise in exercises:
        for source, due in ((exercise.solved, exercise.spec.points), (exercise.starter, 0)):
            key = key_of(plan.secret, "self", exercise.name)
            try:
                got = grade(box, exercise, [source], key, plan.seconds)
            except Exception as error:
                raise BatchStopped(f"nobody was graded: {exercise.name}: {error}") from error
            if got.score.points != due:
                what = "reference" if due else "empty starter"
                slow = got.score.verdict == "timeout" and plan.seconds is not None
                ask = (
                    f"give more than --seconds {plan.seconds:g}"
                    if slow
                    else "is something not installed?"
                )
                raise BatchStopped(
                    f"nobody was graded: the {what} of {exercise.name} scores "
                    f"{got.score.points:g} of {exercise.spec.points:g} on this machine "
                    f"({got.score.verdict}); {ask}"
                )


def grade_some(
    plan: Plan, jobs: Iterable[Job], index: int = 0, tested: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(student, result) of each job, by one sandbox, which is tested first (then `tested` is told).

    Raises BatchStopped where the sandbox or its test fails.
    """
    try:
        exercises = plan.loaded()
        box = Sandbox(plan.level, index, [Path(p) for p in plan.closed])
        box.start()
    except (SandboxError, ImportError) as error:
        raise BatchStopped(f"nobody was graded: {error}") from error
    with box:
        self_test(plan, box, exercises)
        tested()
        for job in jobs:
            yield job.student, _result(plan, exercises, box, job)


def _result(plan: Plan, exercises: Sequence[Loaded], box: Sandbox, job: Job) -> dict[str, Any]:
    handed = job.submission
    rows: list[dict[str, Any]] = []
    elsewhere = foreign(handed.origin, plan.origin) if plan.origin else ""
    for exercise in exercises if not elsewhere else ():  # who has timed out once is waited for less
        stops = 1 if any(row["verdict"] == "timeout" for row in rows) else STOPS
        rows.append(_one(plan, exercise, box, handed, stops))
    final = all(row["verdict"] != "grader_error" for row in rows)
    return {
        "format": FORMAT,
        "student": job.student,
        "chapter": plan.chapter,
        "submission": handed.hash,
        "file": handed.file,
        "others": list(handed.others),
        "specification": plan.specification,
        "isolation": plan.level,
        "final": final,
        "unreadable": handed.why,
        "foreign": elsewhere,  # then nobody can say what it is worth: no points, and not 0 either
        "outdated": bool(
            handed.origin and plan.origin and handed.origin.texts != plan.origin.texts
        ),
        "points": sum(row["points"] for row in rows) if final and not elsewhere else None,
        "of": sum(exercise.spec.points for exercise in exercises),
        "exercises": rows,
    }


def _one(
    plan: Plan, exercise: Loaded, box: Sandbox, submission: Submission, stops: int
) -> dict[str, Any]:
    key = key_of(plan.secret, submission.hash, exercise.name)
    try:
        if submission.why:
            graded = ungradable(exercise)
        else:
            graded = _twice(
                lambda: grade(box, exercise, submission.cells, key, plan.seconds, stops)
            )
    except Exception:  # ours, whatever it was: it must never become somebody's 0
        of = exercise.spec.points
        about: dict[str, Any] = {"name": exercise.name, "title": exercise.title, "of": of}
        return {
            **about,
            "points": None,
            "verdict": "grader_error",
            "broken": [],
            "left_out": [],
            "unchanged": False,
            "checks": [],
        }
    score = graded.score
    return {
        "name": score.name,
        "title": exercise.title,
        "points": score.points,
        "of": score.of,
        "verdict": score.verdict,
        "broken": graded.broken,
        "left_out": graded.left_out,
        "unchanged": score.points < score.of and unchanged(exercise, submission.cells),
        "checks": [
            {**mark._asdict(), "say": explain(exercise, mark.hint) if mark.hint else ""}
            for mark in score.marks
        ],
    }


def unchanged(exercise: Loaded, cells: Sequence[str]) -> bool:
    """Whether the answer is what the student was given. Looks at text: nothing of it is parsed."""
    given = _plain(exercise.starter)
    name = re.escape(exercise.answer)
    defined = re.compile(rf"^(?:def|class) {name}\b|^{name} *=", re.MULTILINE)
    own = [cell for cell in map(_plain, cells) if cell != given]
    return len(own) < len(cells) and not any(map(defined.search, own))


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _twice(work: Callable[[], Graded]) -> Graded:
    try:
        return work()
    except SandboxError:
        return work()
