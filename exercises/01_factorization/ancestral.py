"""# An ancestral sampler

A chain of easy draws: draw the value of rank 0 from its distribution; given that, draw rank 1; and
so on to rank $D-1$. Nothing else is needed to turn a model's conditionals into images.

`conditional(seen)` is the model. `seen` is int64 `[n, i]`, the values of the ranks $0, \\dots, i-1$
of $n$ images **in the order in which they were drawn** (for $i = 0$ it is `[n, 0]`). It returns
logits `[n, K]` of rank $i$.

A draw must be reproducible (chapter 2 holds a fast sampler against a slow one, image for image), so
the randomness is handed in: `u` is float64 `[n, D]`, numbers in $[0, 1)$, and `u[:, i]` decides
rank $i$ by *inversion*: take the **smallest level whose cumulative probability is greater than u**,

$$
k = \\min \\{\\, k : p(0) + \\dots + p(k) > u \\,\\} .
$$

`u` may be 0, and it may come as close to 1 as float64 allows. A level of probability 0 must never
be drawn, and rounding in the cumulative sum must not leave a draw without a level: work in float64,
and think about what happens at the two ends.

`order` is int64 `[D]`: rank $i$ stands at position `order[i]` of the flattened image
(`x.view(n, -1)`, layout C, H, W). `shape` is `(C, H, W)`. `temperature` $\\tau > 0$ divides the
logits.

Return the images, int64 `[n, C, H, W]`. Two toy models are given to try it with; the check uses
them too.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def echo(seen: Tensor) -> Tensor:
    """A toy model of 5 levels in which every earlier value has a say of its own."""
    i = seen.shape[1]
    say = torch.cos(torch.arange(i).double() + 1)  # [i]
    centre = 2 + (seen.double() - 2) @ say + torch.sin(torch.tensor(3.0 * i))  # [n]
    return -(torch.arange(5) - centre[:, None]).square() / 4  # [n,5]


def never_black(seen: Tensor) -> Tensor:
    """A toy model of 7 levels. Level 0 has probability 0."""
    logits = torch.cos(1.3 * torch.arange(7) * (1 + seen.sum(1, keepdim=True)) + seen.shape[1])
    logits[:, 0] = -torch.inf
    return logits  # [n,7], float32


def draw_images(
    conditional: Callable[[Tensor], Tensor],
    u: Tensor,
    order: Tensor,
    shape: tuple[int, int, int],
    temperature: float = 1.0,
) -> Tensor:
    """Uniform numbers u [n,D] -> images int64[n,C,H,W]."""
    ### BEGIN SOLUTION
    n, D = u.shape
    seen = torch.zeros(n, 0, dtype=torch.int64)
    for i in range(D):
        logits = conditional(seen) / temperature  # [n,K]
        cdf = logits.double().softmax(-1).cumsum(-1)
        total = cdf[:, -1:]  # 1, but for rounding
        level = (cdf <= u[:, i, None] * total).sum(-1)  # how many levels lie wholly below u
        seen = torch.cat([seen, level[:, None]], 1)
    x = torch.empty_like(seen)
    x[:, order] = seen  # from rank to place
    return x.view(n, *shape)
    ### END SOLUTION


### BEGIN HIDDEN TESTS
import math
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def uniforms(rng: Random, n: int, shape: tuple[int, int, int]) -> Tensor:
    return rng.uniform(0, 0.999, n, math.prod(shape)).double()


def permutation(rng: Random, size: int) -> Tensor:
    """A random order that is not its own inverse."""
    while True:
        order = rng.uniform(0, 1, size).argsort()
        if not torch.equal(order.argsort(), order):
            return order


def raster(rng: Random) -> Iterator[Step]:
    for width in (3, 4):
        shape = (1, rng.whole(2, 4), width)
        order = torch.arange(math.prod(shape))
        yield call(Ref("echo"), uniforms(rng, rng.whole(4, 8), shape), order, shape)


def any_order(rng: Random) -> Iterator[Step]:
    """Colour images; the last one with all of a pixel's channels one after another."""
    for _ in range(2):
        shape = (3, rng.whole(1, 3), rng.whole(2, 4))
        order = permutation(rng, math.prod(shape))
        yield call(Ref("echo"), uniforms(rng, rng.whole(4, 8), shape), order, shape)
    shape = (3, 2, rng.whole(2, 4))
    order = torch.arange(math.prod(shape)).view(3, -1).T.flatten()
    yield call(Ref("echo"), uniforms(rng, rng.whole(4, 8), shape), order, shape)


def warm_and_cold(rng: Random) -> Iterator[Step]:
    for low, high in ((0.2, 0.4), (2.5, 4.0)):
        shape = (1, rng.whole(2, 4), 3)
        order, u = torch.arange(math.prod(shape)), uniforms(rng, rng.whole(6, 9), shape)
        yield call(Ref("echo"), u, order, shape, temperature=rng.number(low, high))


def ends(rng: Random) -> Iterator[Step]:
    """u = 0, and the last number before 1."""
    for _ in range(2):
        shape = (1, 1, rng.whole(4, 7))
        u = rng.integers(0, 2, 24, math.prod(shape)).double() * (1 - 2.0**-53)
        u[0, 0], u[1, 0] = 0, 1 - 2.0**-53
        yield call(Ref("never_black"), u, torch.arange(math.prod(shape)), shape)


EXERCISE = Exercise(
    difficulty=2,
    minutes=25,
    checks=[
        Check("images from given uniform numbers", raster, points=2, hint="draw"),
        Check("any order of the values, colour too", any_order, points=1, hint="order"),
        Check("temperature below and above 1", warm_and_cold, points=1, hint="temperature"),
        Check("u at both ends of [0, 1)", ends, points=1, hint="ends"),
    ],
    hints={
        "likeliest": "the likeliest level was taken: a draw must follow u, or all images are one",
        "below": "one level too low: the level asked for is the first whose cumulative sum "
        "exceeds u",
        "one_u": "every rank has a random number of its own: u[:, i] for rank i",
        "blank": "the model is not told what was drawn before: give it the values, not an empty "
        "canvas",
        "order": "values are drawn rank by rank, and rank i belongs at place order[i] of the image",
        "inverse": "the order is applied backwards: x[:, order] = seen puts rank i at order[i]",
        "canvas": "the model reads values in the order drawn: seen is not the first i places of "
        "the image",
        "heat": "a low temperature must sharpen: divide the logits by it, do not multiply",
        "temperature": "the temperature divides the logits, before the softmax",
        "zero": "at u = 0 a level of probability 0 was drawn: the cumulative sum must be "
        "greater than u",
        "rounding": "the sum of the probabilities rounds to just below 1, and u came after it: "
        "no level is "
        "greater there; compare with u times the total",
        "ends": "look at u = 0 and at u just below 1: greater, not greater or equal, and always "
        "a level",
        "draw": "cumulative sum of the softmax, then the first level where it is greater than "
        "u[:, i]",
    },
    mutants=[
        Mutant("likeliest", "(cdf <= u[:, i, None] * total).sum(-1)", "logits.argmax(-1)"),
        Mutant(
            "below",
            "(cdf <= u[:, i, None] * total).sum(-1)",
            "((cdf <= u[:, i, None] * total).sum(-1) - 1).clamp(min=0)",
        ),
        Mutant("one_u", "u[:, i, None]", "u[:, 0, None]"),
        Mutant("blank", "conditional(seen)", "conditional(torch.zeros_like(seen))"),
        Mutant("order", "x[:, order] = seen", "x[:] = seen"),
        Mutant("inverse", "x[:, order] = seen", "x[:] = seen[:, order]"),
        Mutant(
            "canvas",
            source="""
import torch

def draw_images(conditional, u, order, shape, temperature=1.0):
    n, D = u.shape
    x = torch.zeros(n, D, dtype=torch.int64)
    for i in range(D):
        cdf = (conditional(x[:, :i]) / temperature).double().softmax(-1).cumsum(-1)
        x[:, order[i]] = (cdf <= u[:, i, None] * cdf[:, -1:]).sum(-1)
    return x.view(n, *shape)
""",
        ),
        Mutant("heat", "conditional(seen) / temperature", "conditional(seen) * temperature"),
        Mutant("temperature", "conditional(seen) / temperature", "conditional(seen)"),
        Mutant("zero", "(cdf <= u[:, i, None] * total)", "(cdf < u[:, i, None] * total)"),
        Mutant(
            "rounding",
            "(cdf <= u[:, i, None] * total).sum(-1)",
            "(logits.softmax(-1).cumsum(-1) > u[:, i, None]).int().argmax(-1)",
        ),
        Mutant(
            "rounding",
            "(cdf <= u[:, i, None] * total).sum(-1)",
            "(cdf > u[:, i, None]).int().argmax(-1)",
        ),
    ],
    rights=[
        """
import torch

def draw_images(conditional, u, order, shape, temperature=1.0):
    x = torch.zeros(len(u), u.shape[1], dtype=torch.int64)
    for i in range(len(order)):
        p = torch.softmax(conditional(x[:, order[:i]]).double() / temperature, -1)
        cdf = torch.cumsum(p, -1)
        goal = u[:, i : i + 1] * cdf[:, -1:]
        x[:, order[i]] = torch.searchsorted(cdf, goal, right=True)[:, 0]
    return x.reshape(-1, *shape)
""",
        """
import numpy as np
import torch

def draw_images(conditional, u, order, shape, temperature=1.0):
    drawn = [[] for _ in range(len(u))]
    for i in range(u.shape[1]):
        seen = torch.tensor(drawn, dtype=torch.int64).reshape(len(u), i)
        logits = conditional(seen).double().numpy() / temperature
        weights = np.exp(logits - logits.max(1, keepdims=True))
        for j, row in enumerate(weights):
            left = float(u[j, i]) * row.sum()
            level = 0
            while left >= row[level] and level < len(row) - 1:
                left -= row[level]
                level += 1
            drawn[j].append(level)
    places = np.argsort(order.numpy())
    return torch.tensor(np.array(drawn)[:, places]).reshape(-1, *shape)
""",
    ],
    answer="draw_images",
    vary={"draw_images": ["draw_images", "sample_images", "ancestral_draws"]},
)
### END HIDDEN TESTS
