"""# The weights that are kept

What a diffusion run keeps are not the last weights but a running average of them,

$$
\\bar\\theta \\leftarrow d\\,\\bar\\theta + (1 - d)\\,\\theta ,
$$

taken after every update. It costs nothing and lowers the loss, if it is done right; done wrong it
silently ruins a good model, for the training loss is that of the other weights. Write the class
that holds it.

`Average(values, decay)` begins with a list of tensors, the state of a network that is still
untrained, and with $d$, the largest decay. Each call `average(values)` hands in the state after the
next update and returns the averages after it, a tuple with one tensor for each entry, of its shape
and kind. Four things to get right:

- **Warm-up.** The first weights are random and must be forgotten soon. In the call that comes after
  $s$ earlier calls ($s = 0, 1, 2, \\dots$) the decay is $\\min\\bigl(d, \\frac{1 + s}{10 + s}\\bigr)$.
- **Whole numbers.** A state may hold more than weights, such as a mask, or the number of batches seen
  so far, an int64 (networks with batch norm count them; this course's do not). Entries that are not floating-point are not averaged; they are taken over as they are.
- **Nobody else's memory.** A network changes its weights in place. What was handed in must not be
  changed, and what was returned in one call, perhaps kept as "the best so far", must not change in a
  later one.
- **One average each.** Two objects of the class know nothing of one another.
"""

import torch
from torch import Tensor


class Average:
    """A running average of a network's state."""

    def __init__(self, values: list[Tensor], decay: float) -> None:
        ### BEGIN SOLUTION
        self.values = [value.clone() for value in values]
        self.decay = decay
        self.calls = 0
        ### END SOLUTION

    def __call__(self, values: list[Tensor]) -> tuple[Tensor, ...]:
        """The state after the next update -> the averages, of the same shapes and kinds."""
        ### BEGIN SOLUTION
        decay = min(self.decay, (1 + self.calls) / (10 + self.calls))
        for i, (old, new) in enumerate(zip(self.values, values, strict=True)):
            if new.is_floating_point():
                self.values[i] = decay * old + (1 - decay) * new  # a new tensor
            else:
                self.values[i] = new.clone()
        self.calls += 1
        return tuple(self.values)
        ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, build, forward, overwrite


def states(rng: Random, n: int, counts: bool = False) -> list[list[Tensor]]:
    """n states of one network, one after another: two weights, or with a counter and a mask too."""
    rows, columns = rng.whole(1, 3), rng.whole(2, 4)
    made = []
    for i in range(n):
        state = [rng.normal(rows, columns), rng.normal(columns)]
        if counts:
            state += [torch.tensor(7 + 100 * i), rng.integers(0, 2, 3) > 0]
        made.append(state)
    return made


def run(states: list[list[Tensor]], decay: float) -> list[Step]:
    first, *rest = states
    return [build(first, decay), *(forward(state) for state in rest)]


def reused(states: list[list[Tensor]], decay: float) -> list[Step]:
    """As a network does it: its tensors are overwritten after each call."""
    return [step for own in run(states, decay) for step in (own, overwrite())]


def first_call(rng: Random) -> Iterator[list[Step]]:
    for _ in range(2):
        yield run(states(rng, 2), rng.number(0.9, 0.999))


def warm_up(rng: Random) -> Iterator[list[Step]]:
    yield run(states(rng, 5), rng.number(0.9, 0.999))


def settled(rng: Random) -> Iterator[list[Step]]:
    """A decay so small that the warm-up soon ends."""
    yield run(states(rng, 5), rng.number(0.12, 0.17))


def whole(rng: Random) -> Iterator[list[Step]]:
    yield run(states(rng, 4, counts=True), rng.number(0.9, 0.999))
    yield reused(states(rng, 3, counts=True), rng.number(0.9, 0.999))


EXERCISE = Exercise(
    difficulty=2,
    minutes=20,
    checks=[
        Check("the first update", first_call, points=1, hint="average"),
        Check("a warm-up, and results that stay", warm_up, points=1, hint="warm_up"),
        Check("then the decay that was asked for", settled, points=1, hint="warm_up"),
        Check(
            "counters and masks, of a network that changes them in place",
            whole,
            points=1,
            hint="whole",
        ),
    ],
    hints={
        "exchanged": "d is the share that the old average keeps: the new weights get 1 - d",
        "constant": "the warm-up is missing: with d = 0.999 the random first weights would stay "
        "for thousands of updates",
        "larger": "the smaller of the two decays is used: the warm-up ends where d is reached",
        "early": "the first call comes after no other: s = 0, and its decay is 1/10",
        "stuck": "the calls are not counted: every update gets the decay of the first",
        "averaged": "whole numbers are not averaged: half a batch cannot be counted; take them "
        "over as they are",
        "frozen": "entries that are not floating-point are still those of the first state: take "
        "over the new ones",
        "zeros": "the average begins with the first state, not with zeros",
        "debias": "this corrects for a beginning at zero, as Adam does: the average begins with "
        "the first state and needs no correction",
        "alias": "what an earlier call returned has changed: return copies, or make new tensors "
        "instead of writing into the old ones",
        "kept": "a tensor that was handed in was kept, or handed back: the network goes on changing "
        "it in place, so take a copy",
        "average": "d · old + (1 - d) · new, with d = 1/10 in the first call",
        "warm_up": "min(d, (1 + s)/(10 + s)) after s earlier calls, and earlier results stay",
        "whole": "floating-point entries are averaged, all others copied",
    },
    mutants=[
        Mutant("exchanged", "decay * old + (1 - decay) * new", "(1 - decay) * old + decay * new"),
        Mutant("constant", "min(self.decay, (1 + self.calls) / (10 + self.calls))", "self.decay"),
        Mutant("larger", "min(self.decay, ", "max(self.decay, "),
        Mutant("early", "self.calls = 0", "self.calls = 1"),
        Mutant("stuck", "self.calls += 1", "self.calls += 0"),
        Mutant("averaged", "if new.is_floating_point():", "if True:"),
        Mutant(
            "averaged",
            "self.values[i] = new.clone()",
            "self.values[i] = (decay * old + (1 - decay) * new).to(new.dtype)",
        ),
        Mutant("kept", "self.values[i] = new.clone()", "self.values[i] = new"),
        Mutant("kept", "[value.clone() for value in values]", "list(values)"),
        Mutant("frozen", "self.values[i] = new.clone()", "pass"),
        Mutant("zeros", "[value.clone() for", "[torch.zeros_like(value) for"),
        Mutant(
            "debias",
            source="""
import torch

class Average:
    def __init__(self, values, decay):
        self.values, self.decay, self.left = [0 * v for v in values], decay, 1.0
        self.calls = 0

    def __call__(self, values):
        d = min(self.decay, (1 + self.calls) / (10 + self.calls))
        self.calls += 1
        self.left *= d
        for i, new in enumerate(values):
            if new.is_floating_point():
                self.values[i] = d * self.values[i] + (1 - d) * new
        return tuple(
            v / (1 - self.left) if new.is_floating_point() else new.clone()
            for v, new in zip(self.values, values)
        )
""",
        ),
        Mutant(
            "alias",
            "self.values[i] = decay * old + (1 - decay) * new  # a new tensor",
            "old.lerp_(new, 1 - decay)",
        ),
        Mutant(
            "input",
            "self.values[i] = decay * old + (1 - decay) * new  # a new tensor",
            "self.values[i] = new.lerp_(old, decay)",
        ),
    ],
    rights=[
        """
import copy
import itertools

import torch

class Average:
    def __init__(self, values, decay):
        self.kept = copy.deepcopy(values)
        self.largest = decay
        self.rate = (n / (n + 9) for n in itertools.count(1))

    def __call__(self, values):
        d = min(self.largest, next(self.rate))
        for old, new in zip(self.kept, values):
            if torch.is_floating_point(old):
                old.mul_(d).add_(new, alpha=1 - d)
            else:
                old.copy_(new)
        return copy.deepcopy(tuple(self.kept))
""",
        """
import torch
from torch import nn

class Average(nn.Module):
    def __init__(self, values, decay):
        super().__init__()
        for i, value in enumerate(values):
            self.register_buffer(f"v{i}", value.clone())
        self.decay, self.seen = decay, 0

    def forward(self, values):
        self.seen += 1
        keep = self.seen / (9 + self.seen)
        keep = keep if keep < self.decay else self.decay
        result = []
        for i, new in enumerate(values):
            old = getattr(self, f"v{i}")
            mixed = torch.lerp(new, old, keep) if new.dtype.is_floating_point else new.detach().clone()
            setattr(self, f"v{i}", mixed)
            result.append(mixed)
        return result
""",
    ],
    vary={"Average": ["Average", "RunningAverage", "Shadow"]},
    answer="Average",
)
### END HIDDEN TESTS
