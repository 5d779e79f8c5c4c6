"""The public checks as numbers: inputs, what is expected, and what known mistakes give.

They travel with the package (`checks/numbers/*.json`), so that a student's notebook can check
without holding any solution. This makes and reads them.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .compare import GENERIC, same
from .source import Loaded
from .values import write_outcome, write_steps

__all__ = ["PUBLIC_KEY", "dumps", "get", "public_numbers", "put"]

PUBLIC_KEY = 0
DEFINED = (ast.FunctionDef, ast.ClassDef)
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int32, torch.int64),
        *(torch.float16, torch.float32, torch.float64),
    )
}


def public_numbers(exercise: Loaded) -> dict[str, Any]:
    """The entry of an exercise, as JSON values."""
    cases = exercise.cases(PUBLIC_KEY, public=True)
    flat = [steps for _, group in cases for steps in group]
    want = exercise.outcomes(exercise.solved, flat)
    mistakes = []
    names = [check.hint for check, _ in cases if check.hint]
    for mutant in exercise.spec.mutants:
        got = exercise.outcomes(exercise.mutated(mutant), flat)
        pairs = zip(got, want, strict=True)
        rows = [None if same(o, w, 0) else write_outcome(o, put) for o, w in pairs]
        mistakes.append([mutant.hint, rows])
        names.append(mutant.hint)
    return {
        "answer": exercise.answer,
        "starter": exercise.starter,
        "given": _helpers(exercise),
        "checks": [
            {"title": c.title, "tolerance": c.tolerance, "hint": c.hint, "cases": len(group)}
            for c, group in cases
        ],
        "steps": [write_steps(case, put) for case in flat],
        "expected": [write_outcome(o, put) for o in want],
        "mistakes": mistakes,
        "hints": {name: exercise.spec.hints.get(name) or GENERIC[name] for name in names},
    }


def _helpers(exercise: Loaded) -> list[str]:
    """The given functions and classes: what starter and solution define in the same words."""
    starter, solved = (
        {node.name: ast.dump(node) for node in ast.parse(text).body if isinstance(node, DEFINED)}
        for text in (exercise.starter, exercise.solved)
    )
    return sorted(name for name, text in starter.items() if solved.get(name) == text)


def put(tensor: Tensor) -> list[Any]:
    """A tensor as numbers with enough digits to get it back."""
    dtype, flat = str(tensor.dtype).removeprefix("torch."), tensor.flatten().tolist()
    if tensor.dtype.is_floating_point:
        digits = 17 if tensor.dtype == torch.float64 else 9
        flat = [float(f"{x:.{digits}g}") for x in flat]
    return [dtype, list(tensor.shape), flat]


def get(written: Any) -> Tensor:
    """The tensor that `put` wrote."""
    dtype, shape, flat = written
    return torch.tensor(flat, dtype=DTYPES[dtype]).reshape(shape)


def dumps(numbers: Mapping[str, Any]) -> str:
    """One line of JSON for each exercise; NaN and infinities by Python's names for them."""
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(numbers.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"
