"""Grade one submission: each exercise in a fresh worker, outcomes compared here."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .execute import Outcome, Step
from .notebook import MAX_CELLS
from .sandbox import Sandbox
from .scoring import Expected, Mark, Score, score
from .source import Loaded
from .values import read_outcome, write_steps
from .wire import Closed, Late, Malformed, receive, send

__all__ = ["Graded", "grade", "key_of", "ungradable"]

STOPS = 2  # so many workers may be lost on one exercise
LOADING, TOTAL = 2, 4  # times the limit of a case: for a notebook's imports, and for all cases


class Graded(NamedTuple):
    """What came of one exercise of one submission."""

    score: Score
    broken: list[int]  # code cells that do not parse
    left_out: list[int]  # code cells that change what the answer uses, and are not run


def key_of(secret: bytes, submission: str, exercise: str) -> int:
    """The key of the random inputs: regrading reproduces it, nobody else can guess it."""
    text = f"{submission}/{exercise}".encode()
    return int.from_bytes(hmac.new(secret, text, hashlib.sha256).digest()[:16], "big")


def grade(
    box: Sandbox,
    exercise: Loaded,
    cells: Sequence[str],
    key: int,
    seconds: float | None = None,
    stops: int = STOPS,
) -> Graded:
    """Score one exercise of a submission. Raises SandboxError where the sandbox itself fails."""
    expected = Expected(exercise, key)
    limit = exercise.spec.seconds if seconds is None else seconds
    worker = _Asked(box, exercise, cells, limit, stops)
    got = worker.outcomes(expected.flat, [len(group) for _, group in expected.cases])
    return Graded(score(expected, got), worker.broken, worker.left_out)


def ungradable(exercise: Loaded) -> Graded:
    """The score of a submission that could not be read."""
    marks = tuple(
        Mark(check.title, 0.0, check.points, "ungradable", "exists", "unreadable")
        for check in exercise.spec.checks
    )
    return Graded(Score(exercise.name, 0.0, exercise.spec.points, "ungradable", marks), [], [])


class _Asked:
    """One exercise's questions to workers; a lost one is replaced, but not often."""

    def __init__(
        self, box: Sandbox, exercise: Loaded, cells: Sequence[str], seconds: float, stops: int
    ) -> None:
        self.box, self.seconds, self.stops = box, seconds, stops
        self.load = {"cells": list(cells), "answer": exercise.answer, "given": exercise.starter}
        self.broken: list[int] = []
        self.left_out: list[int] = []

    def outcomes(self, flat: Sequence[Sequence[Step]], groups: Sequence[int]) -> list[Outcome]:
        """One outcome per case. After a stop the rest of its check is given up."""
        found: list[Outcome] = []
        ends = [sum(groups[: i + 1]) for i in range(len(groups))]
        for stop in range(1, self.stops + 1):
            fresh, why = self._ask(flat[len(found) :])
            found += fresh
            if not why:
                return found
            end = next(e for e in ends if e > len(found))
            if stop == self.stops or not found:  # nothing came at all: there is no use in going on
                end = len(flat)
            found += [Outcome(stopped=why)] * (end - len(found))
            if end == len(flat):
                return found
        return found

    def _ask(self, flat: Sequence[Sequence[Step]]) -> tuple[list[Outcome], str]:
        """Outcomes of the first cases, and what stopped the worker ("" if nothing did)."""
        found: list[Outcome] = []
        with self.box.child() as (out, into):
            try:
                limit = time.monotonic() + LOADING * self.seconds
                send(out, self.load, deadline=limit)
                reply, _ = receive(into, limit)
                self.broken, self.left_out = _cells(reply, "broken"), _cells(reply, "left_out")
                last = time.monotonic() + TOTAL * self.seconds
                for steps in flat:
                    limit = min(last, time.monotonic() + self.seconds)
                    found.append(_case(out, into, steps, limit))
            except Late:
                return found, "timeout"
            except Closed:
                return found, "crash"
            except (Malformed, TypeError, ValueError, AttributeError, LookupError):
                return found, "reply"
        return found, ""


def _cells(reply: dict[str, Any], what: str) -> list[int]:
    """Numbers of cells, whatever the other end may have written."""
    return [n for n in reply.get(what, ()) if type(n) is int and 0 < n <= MAX_CELLS][:16]


def _case(out: int, into: int, steps: Sequence[Step], limit: float) -> Outcome:
    arrays: list[Tensor] = []

    def put(tensor: Tensor) -> int:
        arrays.append(tensor)
        return len(arrays) - 1

    send(out, {"steps": write_steps(steps, put)}, arrays, limit)
    reply, values = receive(into, limit)
    outcome = read_outcome(reply["outcome"], lambda i: values[i])
    if outcome.stopped == "MemoryError":  # whatever it holds now, no further case could be judged
        raise Closed
    return outcome
