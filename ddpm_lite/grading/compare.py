"""Judge an outcome against the reference's, and name the misconception behind a wrong one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .execute import Outcome, Result

__all__ = ["GENERIC", "PROPERTIES", "Fault", "diagnose", "fault", "same"]

PROPERTIES = ("exists", "runs", "type", "shape", "dtype", "values", "input")

# Hints that need no exercise to speak of: what a property's failure says by itself.
GENERIC = {
    "exists": "nothing of this name is defined: keep the name that the exercise gives",
    "unreadable": "the notebook could not be read: save it again as .ipynb (UTF-8, format 4)",
    "unwritten": "not written yet: replace the line that raises NotImplementedError",
    "runs": "it raises an error: call it in a cell of its own and read the last line",
    "time": "it takes too long or never ends: look at its loops",
    "crash": "it ended the whole process that ran it",
    "type": "the returned value is of another type than the text asks for",
    "shape": "the result has another shape than the text asks for: which axes are summed?",
    "dtype": "the result has another dtype than the text asks for (whole numbers, or fractions?)",
    "nan": "the result holds NaN or infinity: look for a logarithm or a quotient of zeros",
    "values": "the numbers differ from the expected ones",
    "input": "it changes its argument in place: work on a copy, or write a = a + b, not a += b",
}


# what cannot be carried to a comparison, and what to do
ODD = {
    "odd dtype": "complex numbers, or no numbers at all: return real ones",
    "too large": "far more comes back than the text asks for",
}
ADVICE = {"None": "is there a return?"}


class Fault(NamedTuple):
    """The first property in which an outcome is not as it should be."""

    property: str  # of PROPERTIES
    verdict: str  # "wrong", "exception", "ungradable"
    hint: str  # a name of GENERIC
    detail: str  # for the student's own notebook; hidden checks never show it


def fault(got: Outcome, want: Outcome, tolerance: float) -> Fault | None:
    """None where `got` is as good as `want`."""
    if got.stopped:
        return _stopped(got.stopped)
    if len(got.results) != len(want.results):
        return Fault("runs", "wrong", "runs", "it gave another number of results")
    for a, b in zip(got.results, want.results, strict=True):
        if found := _differs(a, b, tolerance):
            return found
    if got.mutated and not want.mutated:
        return Fault("input", "wrong", "input", "an argument was changed in place")
    return None


def _stopped(why: str) -> Fault:
    if why == "missing":
        return Fault("exists", "exception", "exists", "not defined")
    if why == "NotImplementedError":
        return Fault("runs", "exception", "unwritten", "not written yet")
    if why in ODD:
        return Fault("type", "ungradable", "type", ODD[why])
    return Fault("runs", "exception", "runs", f"it raised {why}")


def _differs(got: Result, want: Result, tolerance: float) -> Fault | None:
    scalars = {"number", "tensor"}
    alike = (
        got.form in scalars
        and want.form in scalars
        and (got.form == want.form or got.items[0].ndim == want.items[0].ndim == 0)
    )
    if not alike and got.form != want.form:
        return Fault("type", "wrong", "type", _types(got, want))
    for i, (a, b) in enumerate(zip(got.items, want.items, strict=True)):
        where = f" of item {i}" if len(want.items) > 1 else ""
        if a.shape != b.shape:
            text = f"expected {list(b.shape)}{where}, got {list(a.shape)}"
            return Fault("shape", "wrong", "shape", text)
        if _kind(a) != _kind(b):
            return Fault("dtype", "wrong", "dtype", f"expected {_kind(b)}{where}, got {_kind(a)}")
        near = _near(a, b, tolerance)
        if not bool(near.all()):
            finite = bool(a.isfinite().all())
            return Fault("values", "wrong", "values" if finite else "nan", _where(a, b, near))
    return None


def _types(got: Result, want: Result) -> str:
    """Expected against got, and what to do about it where that can be told."""
    shape = list(want.items[0].shape)
    asked = f"one tensor {shape}" if want.form == "tensor" else f"a {want.form}"
    name, _, entry = got.form.removeprefix("other: ").partition(" at ")
    if entry:
        what = f"a tuple whose entry {entry} is {_a(name)}"
        todo = "spread it: return first, *rest" if name in ("list", "tuple") else ""
    elif got.form == "array":
        what, todo = "a NumPy array", "torch.from_numpy makes it a tensor"
    else:
        what, todo = _a(name), ADVICE.get(name, "")
    if got.form.startswith("tuple") and want.form == "tensor":
        alike = all(list(item.shape) == shape[1:] for item in got.items)
        todo = "torch.stack them" if alike and shape[:1] == [len(got.items)] else ""
    if got.form == "tensor" and want.form.startswith("tuple"):
        todo = "return all of them, with commas between"
    return f"expected {asked}, got {what}" + (f": {todo}" if todo else "")


def _a(name: str) -> str:
    """A type's name with its article; "None" is what nothing gives."""
    return name if name == "None" else f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _kind(x: Tensor) -> str:
    if x.dtype == torch.bool:
        return "bool"
    return "float" if x.dtype.is_floating_point else "int"


def _near(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    if not b.dtype.is_floating_point:
        return a.to(torch.int64) == b.to(torch.int64)
    a, b = a.double(), b.double()
    close = (a - b).abs() <= tolerance * b.abs().clamp(min=1)  # False for NaN
    return torch.where(b.isfinite(), close, a == b)


def _where(a: Tensor, b: Tensor, near: Tensor) -> str:
    index = (~near).nonzero()[0].tolist()
    got, want = a[tuple(index)].item(), b[tuple(index)].item()
    place = f"at index {index} " if index else ""
    error = (a.double() - b.double()).abs().max().item()
    largest = "" if a.numel() == 1 else f" (largest error {error:.3g})"
    return f"{place}expected {want:.6g}, got {got:.6g}{largest}"


def same(a: Outcome, b: Outcome, tolerance: float) -> bool:
    """Whether two wrong answers are wrong in the same way; NaN equals NaN here."""
    if (a.stopped, a.mutated, len(a.results)) != (b.stopped, b.mutated, len(b.results)):
        return False
    pairs = list(zip(a.results, b.results, strict=True))
    if any(x.form != y.form or len(x.items) != len(y.items) for x, y in pairs):
        return False
    for x, y in ((p, q) for r, s in pairs for p, q in zip(r.items, s.items, strict=True)):
        if x.shape != y.shape or _kind(x) != _kind(y):
            return False
        nan = x.isnan() & y.isnan() if x.dtype.is_floating_point else torch.tensor(False)
        if not bool((_near(x, y, tolerance) | nan).all()):
            return False
    return True


def diagnose(
    got: Sequence[Outcome],
    tolerances: Sequence[float],
    failing: Sequence[int],
    mutants: Sequence[tuple[str, Sequence[Outcome]]],
) -> Mapping[int, str]:
    """Failing case -> the hint of the wrong answer that it equals, where there is one.

    A wrong answer that equals the submission on all cases explains all failures. Otherwise each
    failing case is explained by itself: two misconceptions may be at work.
    """

    def equal(outcomes: Sequence[Outcome], case: int) -> bool:
        return same(got[case], outcomes[case], tolerances[case])

    ran = [case for case in failing if not got[case].stopped]  # an exception says too little
    for hint, outcomes in mutants if ran else ():
        if all(equal(outcomes, case) for case in range(len(got))):
            return dict.fromkeys(failing, hint)
    found = {}
    for case in ran:
        hints = [hint for hint, outcomes in mutants if equal(outcomes, case)]
        if hints:
            found[case] = hints[0]
    return found
