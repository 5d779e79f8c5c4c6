"""One submission once more, for the lecturer alone: what went in, what came out, what was due.

This shows hidden inputs and the texts of errors. Students' reports never do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checks.told import inputs
from .execute import Outcome, Step
from .judge import LOADING, key_of
from .notebook import Submission
from .plan import Plan
from .sandbox import Sandbox
from .scoring import Expected, explain, judged
from .source import Loaded, namespace
from .values import read_outcome, write_steps
from .wire import Closed, Late, Malformed, receive, send

__all__ = ["explained"]

SHOWN, LINES, LONG = 6, 6, 300  # numbers of a tensor; lines of an error, and their characters


def explained(plan: Plan, submission: Submission) -> Iterator[str]:
    """Lines about every check that a submission does not pass, with the first case that fails."""
    with Sandbox(plan.level, 0, [Path(p) for p in plan.closed]) as box:
        box.start()
        for exercise in plan.loaded():
            yield from _exercise(plan, box, exercise, submission)


def _exercise(plan: Plan, box: Sandbox, exercise: Loaded, submission: Submission) -> Iterator[str]:
    expected = Expected(exercise, key_of(plan.secret, submission.hash, exercise.name))
    answer = namespace(exercise.solved, exercise.name)[exercise.answer]
    start = 0
    for check, group in expected.cases:
        want = expected.want[start : start + len(group)]
        start += len(group)
        with contextlib.closing(_asked(plan, box, exercise, submission.cells, group)) as asked:
            for number, (got, said) in enumerate(asked):
                if got.stopped == "missing":
                    yield f"{exercise.answer}: not defined"
                    return
                if found := judged(got, want[number], check):
                    yield f"{exercise.answer}: {check.title}"
                    yield f"  case {number + 1} of {len(group)}: {inputs(group[number], answer)}"
                    yield f"  {found.verdict}: {found.detail or explain(exercise, found.hint)}"
                    yield f"  expected {_shown(want[number])}"
                    yield f"  got      {_shown(got)}"
                    yield from (f"  | {line}" for line in said)
                    break


def _asked(
    plan: Plan,
    box: Sandbox,
    exercise: Loaded,
    cells: Sequence[str],
    group: Sequence[Sequence[Step]],
) -> Generator[tuple[Outcome, list[str]], None, None]:
    """Each case's outcome, and what was raised, until the worker is lost."""
    seconds = exercise.spec.seconds if plan.seconds is None else plan.seconds
    load = {"cells": list(cells), "answer": exercise.answer, "given": exercise.starter}
    why = ""
    with box.child() as (out, into):
        try:
            limit = time.monotonic() + LOADING * seconds
            send(out, {**load, "explain": True}, deadline=limit)
            receive(into, limit)
            for steps in group:
                limit = time.monotonic() + seconds
                arrays: list[Tensor] = []

                def put(tensor: Tensor, arrays: list[Tensor] = arrays) -> int:
                    arrays.append(tensor)
                    return len(arrays) - 1

                send(out, {"steps": write_steps(steps, put)}, arrays, limit)
                reply, values = receive(into, limit)
                outcome = read_outcome(reply["outcome"], values.__getitem__)
                yield outcome, _lines(reply.get("raised"))
        except Late:
            why = "timeout"
        except Closed:
            why = "crash"
        except (Malformed, TypeError, ValueError, AttributeError, LookupError):
            why = "reply"
    if why:
        yield Outcome(stopped=why), []


def _lines(said: Any) -> list[str]:
    """Text from the other side, made harmless for a terminal."""
    rows = [row for row in said if isinstance(row, str)] if isinstance(said, list) else []
    return ["".join(c if c.isprintable() else "?" for c in row)[:LONG] for row in rows[:LINES]]


def _shown(outcome: Outcome) -> str:
    """The last result: its form, its shape, its first numbers."""
    if outcome.stopped or not outcome.results:
        return f"nothing ({outcome.stopped})" if outcome.stopped else "nothing"
    form, items = outcome.results[-1]
    parts = []
    for item in items[:SHOWN]:
        numbers = ", ".join(f"{x:.6g}" for x in item.flatten()[:SHOWN].tolist())
        more = ", …" if item.numel() > SHOWN else ""
        name = str(item.dtype).removeprefix("torch.")
        parts.append(f"{name} {list(item.shape)}: {numbers}{more}")
    return f"{form} " + "; ".join(parts)
