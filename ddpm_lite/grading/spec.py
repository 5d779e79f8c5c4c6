"""What an exercise's hidden part is made of. Exercise files import their words from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .execute import Ref, Step

__all__ = [
    "Check",
    "Exercise",
    "Mutant",
    "Random",
    "Ref",
    "Step",
    "build",
    "call",
    "forward",
    "gradient",
    "load",
    "overwrite",
]

Steps = Step | Sequence[Step]  # a case: one step, or several


def call(*args: Any, **kwargs: Any) -> Step:
    """Call the function with these arguments; what it returns is compared."""
    return Step("call", args, kwargs)


def build(*args: Any, **kwargs: Any) -> Step:
    """Make an object of the class; the case's further steps are about it."""
    return Step("build", args, kwargs)


def load(**state: Tensor) -> Step:
    """Load these parameters into the object (name them in the exercise's text)."""
    return Step("load", (), {"state": state})


def forward(*args: Any, **kwargs: Any) -> Step:
    """Call the object; what it returns is compared."""
    return Step("forward", args, kwargs)


def gradient(*args: Any, wrt: int | str = 0, along: Tensor | None = None) -> Step:
    """Call the object (or the function), and compare d sum(output · along) / d argument `wrt`.

    `wrt` is an argument's number or a parameter's name. `along` defaults to ones.
    """
    return Step("gradient", args, {}, wrt, along)


def overwrite() -> Step:
    """Overwrite with zeros, in place, all tensors handed in so far, as a network does with its own.

    What kept one of them, or returned it, shows from here on.
    """
    return Step("overwrite")


class Random:
    """Random inputs, the same on every machine for the same key."""

    def __init__(self, *key: int) -> None:
        self._rng = np.random.default_rng(key)

    def normal(self, *shape: int) -> Tensor:
        """float32, standard normal."""
        return torch.from_numpy(self._rng.standard_normal(shape, dtype=np.float32))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """float32 in [low, high)."""
        return (low + (high - low) * torch.from_numpy(self._rng.random(shape))).float()

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64, low, …, high − 1."""
        return torch.from_numpy(self._rng.integers(low, high, size=shape))

    def number(self, low: float, high: float) -> float:
        """A Python float in [low, high)."""
        return float(self._rng.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """A Python int, low, …, high − 1."""
        return int(self._rng.integers(low, high))


class Mutant(NamedTuple):
    """A wrong answer, and the hint that it must get: an edit of the solution, or a whole source.

    `old` must occur exactly once in the student's part of the file (solution included).
    """

    hint: str
    old: str = ""
    new: str = ""
    source: str = ""


@dataclass(frozen=True)
class Check:
    """One property of a right answer, all or nothing.

    title: what a right answer does, in words that may be shown ("values: a batch of images").
    cases: `Random -> cases`, called once to make all cases of the check.
    points: for passing all of them.
    tolerance: |answer − reference| ≤ tolerance · max(1, |reference|), everywhere.
    hint: name of the hint where the answer equals no mutant's.
    public: cases of it (with one fixed key) are also checked in the student's notebook.
    """

    title: str
    cases: Callable[[Random], Iterable[Steps]]
    points: float = 1
    tolerance: float = 1e-5
    hint: str = ""
    public: bool = True


@dataclass(frozen=True)
class Exercise:
    """The hidden part of an exercise; `source.read` adds what is read from the file.

    answer: the function or class that is asked for; by default named like the file.
    difficulty: 1 (a warm-up) to 4 (an hour's work). minutes: what a student may need.
    hints: name -> one sentence that names the misconception and what to do about it.
    rights: sources of differently written right answers.
    vary: word of the file -> what else it may be, for `--variant`.
    seconds: time limit of one case. rubric: (what, points) of what people grade.
    """

    difficulty: int
    minutes: int
    checks: Sequence[Check] = ()
    hints: Mapping[str, str] = field(default_factory=dict)
    mutants: Sequence[Mutant] = ()
    rights: Sequence[str] = ()
    answer: str = ""
    vary: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seconds: float = 5.0
    rubric: Sequence[tuple[str, float]] = ()

    @property
    def points(self) -> float:
        """What the machine gives at most."""
        return sum(check.points for check in self.checks)


def steps_of(case: Steps) -> tuple[Step, ...]:
    """A case as a tuple of steps."""
    return (case,) if isinstance(case, Step) else tuple(case)
