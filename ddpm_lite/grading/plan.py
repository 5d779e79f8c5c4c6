"""What a batch is, and what one machine does of it: test itself, grade some submissions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .judge import STOPS, Graded, grade, key_of, ungradable
from .notebook import Submission
from .sandbox import Sandbox, SandboxError
from .scoring import explain
from .source import Loaded, parse

__all__ = ["FORMAT", "BatchStopped", "Job", "Plan", "grade_some", "plan_of", "self_test"]

FORMAT = 1


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
    return Plan(chapter, table, **rest)


def self_test(plan: Plan, box: Sandbox, exercises: Sequence[Loaded]) -> None:
    """On this very machine the references must score full and the starters 0; else BatchStopped."""
    for exercise in exercises:
        for source, due in ((exercise.solved, exercise.spec.points), (exercise.starter, 0)):
            try:
                got = grade(box, exercise, [source], key_of(plan.secret, "self", exercise.name))
            except Exception as error:
                raise BatchStopped(f"nobody was graded: {exercise.name}: {error}") from error
            if got.score.points != due:
                what = "reference" if due else "empty starter"
                raise BatchStopped(
                    f"nobody was graded: the {what} of {exercise.name} scores "
                    f"{got.score.points:g} of {exercise.spec.points:g} on this machine "
                    f"({got.score.verdict}); is something not installed?"
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
    rows: list[dict[str, Any]] = []
    for exercise in exercises:  # who has timed out once is waited for less
        stops = 1 if any(row["verdict"] == "timeout" for row in rows) else STOPS
        rows.append(_one(plan, exercise, box, job.submission, stops))
    final = all(row["verdict"] != "grader_error" for row in rows)
    return {
        "format": FORMAT,
        "student": job.student,
        "chapter": plan.chapter,
        "submission": job.submission.hash,
        "specification": plan.specification,
        "isolation": plan.level,
        "final": final,
        "unreadable": job.submission.why,
        "points": sum(row["points"] for row in rows) if final else None,
        "of": sum(row["of"] for row in rows),
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
        return {**about, "points": None, "verdict": "grader_error", "broken": [], "checks": []}
    score = graded.score
    return {
        "name": score.name,
        "title": exercise.title,
        "points": score.points,
        "of": score.of,
        "verdict": score.verdict,
        "broken": graded.broken,
        "checks": [
            {**mark._asdict(), "say": explain(exercise, mark.hint) if mark.hint else ""}
            for mark in score.marks
        ],
    }


def _twice(work: Callable[[], Graded]) -> Graded:
    try:
        return work()
    except SandboxError:
        return work()
