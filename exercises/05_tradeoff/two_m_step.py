"""# One step of DPM-Solver++(2M)

DDIM freezes the clean image that the network expects, for the length of a step. But it changes on
the way, and the step before has shown how. Measure position by $\\ell = \\log(\\alpha/\\sigma)$. Let
$h$ be the length of this step in $\\ell$ and $h'$ the length of the last one, $\\hat x_0$ what the
network says now and $\\hat x_0^-$ what it said one step ago. The straight line through the two, read
off at the **middle** of the new step, takes the place of $\\hat x_0$:

$$
x' = \\frac{\\sigma'}{\\sigma}\\, x + \\Bigl(\\alpha' - \\alpha \\frac{\\sigma'}{\\sigma}\\Bigr)
\\Bigl[\\hat x_0 + \\frac{h}{2h'} \\bigl(\\hat x_0 - \\hat x_0^-\\bigr)\\Bigr] .
$$

One network call a step, as with DDIM, and second order: the chapter's 2M. Where one of the three
levels has $\\alpha = 0$ or $\\sigma = 0$, or where there is no step before, there is no line to draw:
then the square bracket is $\\hat x_0$ alone.

Write it. In:

- `denoise(x, alpha, sigma)` returns $\\hat x_0$ (not the noise), of x's shape;
- `x`, float64 `[B, C, H, W]`, the noisy image at `level`;
- `level` and `to`, the levels of departure and arrival, pairs `(alpha, sigma)` of floats. They need
  not lie on $\\alpha^2 + \\sigma^2 = 1$. In `level` sigma > 0; `to` may be `(1.0, 0.0)`;
- `past`: `None` in the first step, later `(alpha, sigma, x0)` of the step before: its level of
  departure, and what the next step is to remember of it. That level may be `(0.0, 1.0)`; the
  `level` that comes after it has alpha > 0. In a first step `level` itself may be `(0.0, 1.0)`.

Return a tuple of two tensors of x's shape: x', and the `x0` that the next step will find in its
`past`. Call the network once, and leave the arguments as they are.

*Predict, then try*: `walk` is the whole sampler, made of your step, and `exact` is where the flow
really ends for Gaussian data. From `circle(-3.0)` to `circle(3.0)`, equally spaced, how does the
error change from 20 steps to 40? And if you leave out the square bracket's second term?
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Level = tuple[float, float]
Past = tuple[float, float, Tensor]


def expected_image(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x0 | x] for data that are N(0.3, 0.5²) in every pixel."""
    return 0.3 + alpha * 0.25 * (x - alpha * 0.3) / (alpha**2 * 0.25 + sigma**2)


def pair(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x0 | x] for pixels that are -1 or 1, equally often."""
    return torch.tanh(alpha * x / sigma**2)


def circle(place: float) -> Level:
    """The level on alpha² + sigma² = 1 with log(alpha / sigma) = place."""
    return 1 / math.hypot(1, math.exp(-place)), 1 / math.hypot(1, math.exp(place))


def exact(x: Tensor, level: Level, to: Level) -> Tensor:
    """Where the flow of the Gaussian data takes x: as many standard deviations off as before."""
    (a, s), (b, r) = level, to
    return 0.3 * b + (x - 0.3 * a) * math.hypot(0.5 * b, r) / math.hypot(0.5 * a, s)


def walk(denoise: Callable[..., Tensor], x: Tensor, levels: list[Level]) -> Tensor:
    """From the first level to the last, each step remembering the one before."""
    past: Past | None = None
    for level, to in pairwise(levels):
        x, x0 = two_m_step(denoise, x, level, to, past)
        past = (*level, x0)
    return x


def two_m_step(
    denoise: Callable[[Tensor, float, float], Tensor],
    x: Tensor,
    level: Level,
    to: Level,
    past: Past | None,
) -> tuple[Tensor, Tensor]:
    """x at `level` -> (x at `to`, the x0 to remember)."""
    ### BEGIN SOLUTION
    alpha, sigma = level
    alpha_next, sigma_next = to
    x0 = expected = denoise(x, alpha, sigma)
    if past is not None and past[0] > 0 and sigma_next > 0:
        place = math.log(alpha / sigma)
        last = place - math.log(past[0] / past[1])
        step = math.log(alpha_next / sigma_next) - place
        expected = x0 + step / (2 * last) * (x0 - past[2])
    shrink = sigma_next / sigma
    return shrink * x + (alpha_next - alpha * shrink) * expected, x0
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def on_circle(rng: Random, low: float, high: float) -> Level:
    return circle(rng.number(low, high))


def images(rng: Random, batch: int = 1) -> tuple[Tensor, Tensor]:
    """A noisy image, and what was expected a step before."""
    shape = batch, rng.whole(1, 3), rng.whole(1, 3), rng.whole(3, 5)
    return rng.normal(*shape).double(), 2 * rng.normal(*shape).double()


def inner(rng: Random) -> Iterator[Step]:
    """Three levels on the circle; steps of unequal length, the second the shorter or the longer."""
    for name, middle in (
        ("expected_image", (-0.6, -0.4)),
        ("pair", (0.4, 0.6)),
        ("expected_image", (1.0, 1.2)),
    ):
        x, before = images(rng)
        past = (*on_circle(rng, -1.6, -1.4), before)
        yield call(Ref(name), x, on_circle(rng, *middle), on_circle(rng, 1.7, 2.0), past)


def first(rng: Random) -> Iterator[Step]:
    """No step before: DDIM, also from pure noise."""
    for level in (on_circle(rng, -1, 0), (0.0, 1.0)):
        x, _ = images(rng, 2 - int(level[0] == 0))
        yield call(Ref("expected_image"), x, level, on_circle(rng, 0.5, 1), None)


def ends(rng: Random) -> Iterator[Step]:
    """The step after pure noise, and the step to no noise at all."""
    x, before = images(rng)
    past = (0.0, 1.0, before)
    yield call(Ref("expected_image"), x, on_circle(rng, -1, -0.5), on_circle(rng, 0, 0.5), past)
    x, before = images(rng)
    past = (*on_circle(rng, -0.5, 0), before)
    yield call(Ref("pair"), x, on_circle(rng, 0.5, 1), (1.0, 0.0), past)


def paths(rng: Random) -> Iterator[Step]:
    """alpha = 1 and ever less noise; and alpha + sigma = 1."""
    x, before = images(rng)
    levels = [(1.0, rng.number(low, low + 0.3)) for low in (2.5, 1.1, 0.3)]
    yield call(Ref("expected_image"), x, levels[1], levels[2], (*levels[0], before))
    x, before = images(rng)
    ts = [rng.number(low, low + 0.1) for low in (0.8, 0.5, 0.3)]
    levels = [(1 - t, t) for t in ts]
    yield call(Ref("expected_image"), x, levels[1], levels[2], (*levels[0], before))


EXERCISE = Exercise(
    difficulty=2,
    minutes=25,
    checks=[
        Check(
            "a step with a step before it, lengths unequal",
            inner,
            points=2,
            tolerance=1e-6,
            hint="line",
        ),
        Check("the first step, also from pure noise", first, tolerance=1e-6, hint="frozen"),
        Check("beside pure noise, and to no noise", ends, tolerance=1e-6, hint="ends"),
        Check("any path, not only the circle", paths, tolerance=1e-6, hint="path", public=False),
    ],
    hints={
        "forgetful": "this is DDIM: the step before is not used at all",
        "backwards": "the line is followed back into the past: what has grown goes on growing, so "
        "the difference is now minus before",
        "far": "the line is read off at the end of the step: a frozen value must stand for the "
        "whole step, so read at its middle",
        "exchanged": "the two lengths are exchanged: a longer new step reaches further along the "
        "line",
        "even": "the steps are not equally long in log(alpha/sigma): one half is right only where "
        "they are",
        "ruler": "length is measured in log(alpha/sigma), with the logarithm and with both numbers "
        "of the level",
        "memory": "remember what the network said, not the extrapolated value: else errors add up",
        "decay": "x itself must shrink as its noise does: by sigma' / sigma",
        "weight": "the shrunken x still holds alpha·sigma'/sigma of the image: only what is missing "
        "to alpha' is added",
        "ends": "at alpha = 0 or sigma = 0 the length is infinite: no small number instead, use "
        "the frozen value there",
        "frozen": "without a usable step before, the bracket is x0 alone, and x0 is to remember",
        "path": "the levels come in as pairs: use both numbers, do not rebuild one from the other",
        "line": "h from `level` to `to`, h' from `past` to `level`, both in log(alpha/sigma); "
        "x0 + h/(2h')·(x0 − old x0) in the place of x0",
    },
    mutants=[
        Mutant("forgetful", "if past is not None", "if False"),
        Mutant("backwards", "(x0 - past[2])", "(past[2] - x0)"),
        Mutant("far", "step / (2 * last)", "step / last"),
        Mutant("exchanged", "step / (2 * last)", "last / (2 * step)"),
        Mutant("even", "step / (2 * last)", "0.5"),
        Mutant(
            "ruler",
            source="""
def two_m_step(denoise, x, level, to, past):
    alpha, sigma = level
    x0 = expected = denoise(x, alpha, sigma)
    if past is not None and past[0] > 0 and to[1] > 0:
        last = alpha / sigma - past[0] / past[1]
        step = to[0] / to[1] - alpha / sigma
        expected = x0 + step / (2 * last) * (x0 - past[2])
    shrink = to[1] / sigma
    return shrink * x + (to[0] - alpha * shrink) * expected, x0
""",
        ),
        Mutant(
            "ruler",
            source="""
import math

def two_m_step(denoise, x, level, to, past):
    alpha, sigma = level
    x0 = expected = denoise(x, alpha, sigma)
    if past is not None and past[0] > 0 and to[1] > 0:
        last = math.log(past[1] / sigma)
        step = math.log(sigma / to[1])
        expected = x0 + step / (2 * last) * (x0 - past[2])
    shrink = to[1] / sigma
    return shrink * x + (to[0] - alpha * shrink) * expected, x0
""",
        ),
        Mutant("memory", "* expected, x0", "* expected, expected"),
        Mutant("decay", "return shrink * x", "return x"),
        Mutant("weight", "(alpha_next - alpha * shrink)", "alpha_next"),
        Mutant(
            "ends",
            source="""
import math

def two_m_step(denoise, x, level, to, past):
    alpha, sigma = level
    def place(at):
        return math.log(max(at[0], 1e-8)) - math.log(max(at[1], 1e-8))
    x0 = expected = denoise(x, alpha, sigma)
    if past is not None:
        last, step = place(level) - place(past), place(to) - place(level)
        expected = x0 + step / (2 * last) * (x0 - past[2])
    shrink = to[1] / sigma
    return shrink * x + (to[0] - alpha * shrink) * expected, x0
""",
        ),
        Mutant(
            "ends",
            source="""
import torch

def two_m_step(denoise, x, level, to, past):
    alpha, sigma = level
    def place(at):
        return torch.tensor(at[0]).double().log() - torch.tensor(at[1]).double().log()
    x0 = expected = denoise(x, alpha, sigma)
    if past is not None:
        last, step = place(level) - place(past), place(to) - place(level)
        expected = x0 + step / (2 * last) * (x0 - past[2])
    shrink = to[1] / sigma
    return shrink * x + (to[0] - alpha * shrink) * expected, x0
""",
        ),
        Mutant(
            "path",
            "alpha_next, sigma_next = to",
            "alpha_next, sigma_next = to[0], max(0, 1 - to[0] ** 2) ** 0.5",
        ),
    ],
    rights=[
        """
import torch

def two_m_step(denoise, x, level, to, past):
    table = torch.tensor([past[:2] if past else level, level, to], dtype=torch.float64)
    a, s = table.T
    now = denoise(x, *level)
    bracket = now
    if past and bool((table > 0).all()):
        h = (a / s).log().diff()
        w = h[1] / h[0] / 2
        bracket = (1 + w) * now - w * past[2]
    # the exact step: x/sigma moves by x0 times the change of alpha/sigma
    if to[1] == 0:
        return bracket.clone() * to[0], now
    return to[1] * (x / s[1] + bracket * (a[2] / s[2] - a[1] / s[1])), now
""",
        """
import numpy as np

def two_m_step(denoise, x, level, to, past):
    (a, s), (b, r) = level, to
    clean = denoise(x.clone(), a, s)
    guess = clean
    if past is not None:
        with np.errstate(divide="ignore"):
            l0, l1, l2 = (np.log(np.float64(p[0])) - np.log(np.float64(p[1]))
                          for p in (past, level, to))
        if np.isfinite(l0) and np.isfinite(l2):
            slope = (clean - past[2]) / float(l1 - l0)
            guess = clean + slope * float(l2 - l1) / 2
    noise = (x - a * guess) / s
    return b * guess + r * noise, clean
""",
    ],
    answer="two_m_step",
    vary={"two_m_step": ["two_m_step", "multistep", "solver_step"]},
)
### END HIDDEN TESTS
