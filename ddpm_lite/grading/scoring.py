"""From outcomes to points, verdicts and hints: what the grader and the validation share."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .compare import GENERIC, Fault, diagnose, fault
from .execute import Outcome
from .source import Loaded
from .spec import Check

__all__ = ["Expected", "Mark", "Score", "explain", "score"]

# stopped outcomes that only a sandbox reports -> (verdict, hint)
OUTSIDE = {"timeout": ("timeout", "time"), "crash": ("crash", "crash"), "reply": ("wrong", "type")}


class Mark(NamedTuple):
    """What one check gave. `hint` is a name, or "" where it passed."""

    title: str
    points: float
    of: float
    verdict: str
    property: str = ""
    hint: str = ""


class Score(NamedTuple):
    """What one exercise gave."""

    name: str
    points: float
    of: float
    verdict: str  # of the first check that failed, or "pass"
    marks: tuple[Mark, ...]

    @property
    def hints(self) -> list[str]:
        """The hints of its failures, each once."""
        return list(dict.fromkeys(mark.hint for mark in self.marks if mark.hint))


class Expected:
    """What a key's cases should give; and, worked out when it is asked for, what mistakes give."""

    def __init__(self, exercise: Loaded, key: int) -> None:
        self.exercise, self.cases = exercise, exercise.cases(key)
        self.flat = [steps for _, group in self.cases for steps in group]
        self.checks = [check for check, group in self.cases for _ in group]
        self.want = exercise.outcomes(exercise.solved, self.flat)

    @functools.cached_property
    def mistakes(self) -> list[tuple[str, list[Outcome]]]:
        """(hint, outcomes) of each mutant."""
        exercise = self.exercise
        return [
            (m.hint, exercise.outcomes(exercise.mutated(m), self.flat))
            for m in exercise.spec.mutants
        ]


def score(expected: Expected, got: Sequence[Outcome]) -> Score:
    """Score the outcomes of the cases, one for each."""
    checks = expected.checks
    faults = [judged(*row) for row in zip(got, expected.want, checks, strict=True)]
    failing = [i for i, found in enumerate(faults) if found]
    hints: Mapping[int, str] = {}
    if any(not got[i].stopped for i in failing):
        hints = diagnose(got, [c.tolerance for c in checks], failing, expected.mistakes)
    marks, start = [], 0
    for check, group in expected.cases:
        own = range(start, start + len(group))
        start += len(group)
        first = next((i for i in own if faults[i]), None)
        found = None if first is None else faults[first]
        if found is None or first is None:
            marks.append(Mark(check.title, check.points, check.points, "pass"))
            continue
        general = check.hint or "values" if found.hint == "values" else found.hint
        hint = hints.get(first) or general
        marks.append(Mark(check.title, 0.0, check.points, found.verdict, found.property, hint))
    verdict = next((mark.verdict for mark in marks if mark.verdict != "pass"), "pass")
    points, spec = sum(mark.points for mark in marks), expected.exercise.spec
    return Score(expected.exercise.name, points, spec.points, verdict, tuple(marks))


def judged(got: Outcome, want: Outcome, check: Check) -> Fault | None:
    """`fault`, and what only happens outside of the notebook."""
    if got.stopped in OUTSIDE:
        verdict, hint = OUTSIDE[got.stopped]
        return Fault("runs", verdict, hint, "")
    return fault(got, want, check.tolerance)


def explain(exercise: Loaded, hint: str) -> str:
    """The sentence behind a hint's name."""
    return exercise.spec.hints.get(hint) or GENERIC[hint]
