"""Run an answer through the steps of a case, and say what came out in plain terms.

The same function runs a student's answer in the sandbox, the reference in the grader, and an
answer in the student's own notebook.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["MISSING", "Outcome", "Ref", "Result", "Step", "perform"]

MISSING = object()  # the answer was not defined
MAX_ITEMS = 16  # in a returned tuple
MAX_BYTES = 1 << 24  # of all results of a case
_NESTED = (tuple, list, dict)
_PLAIN = (Tensor, np.ndarray, np.generic, bool, int, float)  # what a tuple's entry may be


class Ref(NamedTuple):
    """An argument that is a name of the exercise's given code, such as a function."""

    name: str


class Step(NamedTuple):
    """One thing done with the answer; `spec` has a function for each `op`."""

    op: str  # "call", "build", "load", "forward", "gradient", "overwrite"
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    wrt: int | str = 0
    along: Tensor | None = None


class Result(NamedTuple):
    """A returned value: its form, and the tensors in it (detached, on the CPU)."""

    form: (
        str  # "tensor", "number", "array", "tuple of N"; without items "other: TYPE", "… at ENTRY"
    )
    items: tuple[Tensor, ...] = ()


class Outcome(NamedTuple):
    """What became of a case: its results, or what stopped it.

    stopped: "", "missing", "too large", "odd dtype", or the name of a builtin exception.
    mutated: an argument was changed in place.
    """

    results: tuple[Result, ...] = ()
    stopped: str = ""
    mutated: bool = False


class _Odd(Exception):
    """A returned value that cannot be carried to a comparison."""


def perform(
    answer: Any,
    given: Mapping[str, Any],
    steps: Sequence[Step],
    told: Callable[[BaseException], object] = lambda error: None,
) -> Outcome:
    """Run the steps on `answer`, a function or a class; `given` resolves `Ref` arguments.

    Never raises what the answer raises, but for KeyboardInterrupt. `told` hears of it: its text may
    be shown in the student's own notebook, and nowhere else.
    """
    if answer is MISSING:
        return Outcome(stopped="missing")
    results: list[Result] = []
    thing, mutated, size = answer, False, 0
    handed: list[Tensor] = []
    for step in steps:
        if step.op == "overwrite":
            for tensor in handed:
                tensor.detach().zero_()
            continue
        args, kwargs = _fresh(step.args, given), _fresh(dict(step.kwargs), given)
        kept = _fresh(step.args, given)
        handed += _tensors(args)
        try:
            if step.op == "build":
                thing = answer(*args, **kwargs)
                continue
            if step.op == "load":
                _load(thing, kwargs["state"])
                continue
            value = (
                thing(*args, **kwargs) if step.op != "gradient" else _gradient(thing, args, step)
            )
            result = _describe(value)
        except _Odd as odd:
            return Outcome(tuple(results), str(odd), mutated)
        except (Exception, SystemExit) as error:
            told(error)
            why = "MemoryError" if "allocate memory" in str(error)[:500] else _name(error)
            return Outcome(tuple(results), why, mutated)
        mutated = mutated or not _same(args, kept)
        size += sum(item.numel() * item.element_size() for item in result.items)
        if size > MAX_BYTES:
            return Outcome(tuple(results), "too large", mutated)
        results.append(result)
    return Outcome(tuple(results), "", mutated)


def _load(thing: Any, state: Mapping[str, Tensor]) -> None:
    """Load these parameters; what else the object holds, such as a mask, stays as it made it."""
    unknown = thing.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise RuntimeError(f"there is no parameter {', '.join(unknown)}: keep the text's names")


def _gradient(thing: Any, args: Any, step: Step) -> Any:
    """d sum(output · along) / d (argument number `wrt`, or the parameter of that name).

    An output that is no tensor has none: it is returned itself, for its type to be judged.
    """
    with torch.enable_grad():
        if isinstance(step.wrt, str):
            at = dict(thing.named_parameters())[step.wrt]
        else:
            at = args[step.wrt].requires_grad_()
        out = thing(*args)
        if not isinstance(out, Tensor):
            return out
        total = out.sum() if step.along is None else (out * step.along).sum()
        if not total.requires_grad:
            return torch.zeros_like(at)
        (gradient,) = torch.autograd.grad(total, [at], allow_unused=True)
    return torch.zeros_like(at) if gradient is None else gradient


def _fresh(value: Any, given: Mapping[str, Any]) -> Any:
    """A copy that the answer may do with as it likes."""
    if isinstance(value, Ref):
        return given[value.name]
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _fresh(v, given) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return (
            [_fresh(v, given) for v in value]
            if isinstance(value, list)
            else tuple(_fresh(v, given) for v in value)
        )
    return value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [t for v in inner for t in _tensors(v)] if isinstance(value, _NESTED) else []


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and bool(torch.equal(a.detach(), b))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    return True


def _describe(value: Any) -> Result:
    if isinstance(value, tuple | list):
        if len(value) > MAX_ITEMS:
            raise _Odd("too large")
        for entry, item in enumerate(value):
            if not isinstance(item, _PLAIN):
                return Result(f"other: {_name(item)} at {entry}")
        return Result(f"tuple of {len(value)}", tuple(_tensor(v) for v in value))
    if isinstance(value, Tensor):
        return Result("tensor", (_tensor(value),))
    if isinstance(value, np.ndarray):
        return Result("array", (_tensor(value),))
    if isinstance(value, bool | int | float | np.generic):
        return Result("number", (_tensor(value),))
    return Result(f"other: {_name(value)}")


def _tensor(value: Any) -> Tensor:
    if isinstance(value, nn.Parameter):
        value = value.data
    if isinstance(value, Tensor):
        if value.dtype.is_complex or value.is_sparse or value.is_quantized:
            raise _Odd("odd dtype")
        value = value.detach().cpu().contiguous()
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "biuf":
        raise _Odd("odd dtype")
    if isinstance(value, float):  # a Python float has 53 bits, torch's default only 24
        return torch.tensor(value, dtype=torch.float64)
    if not isinstance(value, bool | int | np.ndarray | np.generic):
        raise _Odd("odd dtype")
    return torch.as_tensor(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value)


def _name(value: Any) -> str:
    """The type's name where it is Python's own: others' names are their authors' text."""
    if value is None:
        return "None"
    name = type(value).__name__
    if getattr(builtins, name, None) is type(value):
        return name
    return "Exception" if isinstance(value, BaseException) else "object"
