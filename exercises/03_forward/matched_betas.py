"""# The same schedule for another size, and another path

Somebody found good noise levels for images of `base` × `base` pixels, on a path of their own. You
want DDPM's kind of chain, with variances $\\beta_1, \\dots, \\beta_T$, for images of `size` × `size`
pixels. What has to be carried over is one curve, the signal-to-noise ratio
$\\mathrm{SNR}_k = \\alpha_k^2 / \\sigma_k^2$. Whatever else differs is scale.

Two facts settle it. A chain with $\\beta$ has $\\alpha^2 + \\sigma^2 = 1$ at every step, and
$\\bar\\alpha = \\alpha^2$. And a larger picture of the same thing hides less: averaging it in square
blocks down to `base` × `base` leaves a smooth image as it was, and averages the noise. **The image
thus averaged must have at each step the SNR that the given schedule has there.** How much noisier
must the large image be? (`size` may also be smaller than `base`, with the same formula.)

`alpha` and `sigma` are float64 `[T]`: the given levels after step 1, 2, …, $T$, each noisier than
the one before. They may lie on **any** path, $\\alpha^2 + \\sigma^2 = 1$ or $\\alpha + \\sigma = 1$ or
$\\alpha = 1$ or none. All $\\sigma$ are positive; the last $\\alpha$ may be 0. `base` and `size` are
ints. Return the betas, float64 `[T]`. Before step 1 the image is clean.

*By hand*: a flow level with $\\alpha = \\sigma = 1/2$, and twice the width. What is the new
$\\bar\\alpha$? (One fifth.)
"""

import torch
from torch import Tensor


def matched_betas(alpha: Tensor, sigma: Tensor, base: int, size: int) -> Tensor:
    """Levels [T] for base × base pixels, on any path -> betas [T] for size × size pixels."""
    ### BEGIN SOLUTION
    snr = (alpha / sigma * base / size) ** 2  # [T], so that the averaged image has the given one
    bar = snr / (1 + snr)  # alpha² where alpha² + sigma² = 1
    before = torch.cat([torch.ones_like(bar[:1]), bar[:-1]])  # clean before the first step
    return 1 - bar / before
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def falling(rng: Random, steps: int, high: float, low: float) -> Tensor:
    """sigma/alpha of a schedule whose log-SNR falls in unequal steps from high to low."""
    cuts = (0.2 + rng.uniform(0, 1, steps).double()).cumsum(0)
    return torch.exp(-0.5 * (high + (low - high) * cuts / cuts[-1]))


def circle(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """alpha² + sigma² = 1."""
    scale = torch.hypot(torch.ones_like(ratio), ratio)
    return 1 / scale, ratio / scale


def same_size(rng: Random) -> Iterator[Step]:
    """A path of DDPM's kind, nothing to shift: levels back to betas."""
    for _ in range(2):
        size = rng.whole(8, 64)
        yield call(*circle(falling(rng, rng.whole(4, 9), 4, -5)), size, size)


def other_paths(rng: Random) -> Iterator[Step]:
    """The straight path, the path with alpha = 1, and levels with any factor."""
    size = rng.whole(8, 64)
    ratio = falling(rng, rng.whole(4, 9), 4, -5)
    yield call(1 / (1 + ratio), ratio / (1 + ratio), size, size)
    ratio = falling(rng, rng.whole(4, 9), 3, -7)
    yield call(torch.ones_like(ratio), ratio, size, size)
    ratio = falling(rng, rng.whole(4, 9), 3, -4)
    factor = rng.uniform(0.5, 3, len(ratio)).double()
    yield call(factor, factor * ratio, size, size)


def resized(rng: Random) -> Iterator[Step]:
    """Larger, smaller, and by a factor that is no whole number."""
    for base, size in ((rng.whole(10, 30), 64), (96, rng.whole(20, 60)), (32, 48)):
        yield call(*circle(falling(rng, rng.whole(4, 9), 4, -4)), base, size)


def ends(rng: Random) -> Iterator[Step]:
    """First levels that are nearly clean, and a last one without signal."""
    for steps in (5, 7):
        ratio = falling(rng, steps, 15, -3)
        alpha, sigma = 1 / (1 + ratio), ratio / (1 + ratio)
        alpha[-1], sigma[-1] = 0, 1
        yield call(alpha, sigma, 32, rng.whole(20, 70))


EXERCISE = Exercise(
    difficulty=2,
    minutes=30,
    checks=[
        Check("equal size: levels to betas", same_size, points=1, hint="betas"),
        Check("levels of any path", other_paths, points=1, hint="path"),
        Check("another size", resized, points=2, hint="size"),
        Check("nearly clean, and pure noise", ends, points=1, tolerance=1e-9, hint="ends"),
    ],
    hints={
        "direction": "the shift goes the wrong way: a larger image must be noisier to hide as much",
        "width": "a block holds (size/base)² pixels, and averaging n of them divides the "
        "noise's variance by n: the SNR changes by the square of the ratio of widths",
        "square": "the SNR is a ratio of variances: square alpha / sigma (and the log-SNR is "
        "twice the logarithm of their ratio)",
        "path": "the given levels need not have alpha² + sigma² = 1: use both, by their ratio",
        "first": "the first beta is lost: before the first step alpha-bar is 1",
        "inverted": "the quotient is upside down: alpha-bar falls, and a step keeps the share "
        "alpha-bar_k / alpha-bar_(k-1)",
        "snr_ratio": "a step multiplies alpha-bar by 1 - beta, not the SNR: go from SNR to "
        "alpha-bar first",
        "amplitude": "1 - beta is the share of variance that a step keeps: no root",
        "total": "this is all the noise so far, 1 - alpha-bar: a beta is what one step adds",
        "clip": "the last beta may be 1: clipped at 0.999 the chain ends with signal left",
        "digits": "stay in float64: 1 - alpha-bar of a nearly clean level is a millionth",
        "betas": "alpha-bar = SNR / (1 + SNR), and beta_k = 1 - alpha-bar_k / alpha-bar_(k-1)",
        "size": "averaging multiplies the SNR by (size/base)²: give the large image that much less",
        "ends": "stay in float64, and see what each line does where alpha is 0",
    },
    mutants=[
        Mutant("direction", "* base / size", "* size / base"),
        Mutant("width", "(alpha / sigma * base / size) ** 2", "(alpha / sigma) ** 2 * base / size"),
        Mutant(
            "square", "(alpha / sigma * base / size) ** 2", "alpha / sigma * (base / size) ** 2"
        ),
        Mutant("path", "alpha / sigma * base", "alpha / (1 - alpha**2).sqrt() * base"),
        Mutant("path", "snr / (1 + snr)", "(alpha * base / size) ** 2"),
        Mutant("first", "torch.ones_like(bar[:1])", "bar[:1]"),
        Mutant("inverted", "1 - bar / before", "1 - before / bar"),
        Mutant(
            "snr_ratio",
            "bar = snr / (1 + snr)  # alpha² where alpha² + sigma² = 1",
            "bar = snr / (1 + snr[0])",
        ),
        Mutant("amplitude", "1 - bar / before", "1 - (bar / before).sqrt()"),
        Mutant("total", "1 - bar / before", "1 - bar"),
        Mutant("clip", "1 - bar / before", "(1 - bar / before).clamp(max=0.999)"),
        Mutant("digits", "snr / (1 + snr)", "(snr / (1 + snr)).float()"),
    ],
    rights=[
        """
import math

import torch
import torch.nn.functional as F

def matched_betas(alpha, sigma, base, size):
    log_snr = 2 * (alpha.log() - sigma.log()) - 2 * math.log(size / base)
    log_bar = F.pad(F.logsigmoid(log_snr), (1, 0))  # log alpha-bar, 0 before the first step
    return -torch.expm1(log_bar[1:] - log_bar[:-1])
""",
        """
import torch

def matched_betas(alpha, sigma, base, size):
    betas, clean = [], 1.0
    for a, s in zip(alpha.tolist(), sigma.tolist()):
        s = s * size / base
        bar = a**2 / (a**2 + s**2)
        betas.append((clean - bar) / clean)
        clean = bar
    return torch.tensor(betas, dtype=torch.float64)
""",
    ],
    vary={"matched_betas": ["matched_betas", "resized_betas", "betas_for_size"]},
    answer="matched_betas",
)
### END HIDDEN TESTS
