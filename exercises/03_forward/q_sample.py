"""# Many steps in one jump

Training needs noisy images from the middle of the chain, thousands a second. Nobody walks there:
$k$ small steps are one jump,

$$
x_k = \\sqrt{\\bar\\alpha_k}\\, x_0 + \\sqrt{1 - \\bar\\alpha_k}\\; \\varepsilon ,
\\qquad \\bar\\alpha_k = (1 - \\beta_1)(1 - \\beta_2) \\cdots (1 - \\beta_k) .
$$

Write it for a batch in which **every image is at a step of its own**. `x0` and `noise` are float32
`[B, C, H, W]`; the noise is handed in, so that nothing is random here. `k` is int64 `[B]`, the
number of steps that each image has taken, from 0 (none: the image itself) to $T$. `betas` is
float32 `[T]`; its first entry is $\\beta_1$. Return a float tensor `[B, C, H, W]`.

Two things to decide before you type. Where in a tensor does $\\bar\\alpha_0$ stand? And what is
$1 - 10^{-9}$ in float32? The last check has a schedule as fine as that.
"""

import torch
from torch import Tensor


def q_sample(x0: Tensor, k: Tensor, noise: Tensor, betas: Tensor) -> Tensor:
    """x0 [B,C,H,W] after k[B] steps of the schedule betas[T] -> [B,C,H,W]."""
    ### BEGIN SOLUTION
    bar = torch.cumprod(1 - betas.double(), 0)  # [T], after 1, 2, … T steps
    bar = torch.cat([torch.ones_like(bar[:1]), bar])  # [T+1], entry k after k steps
    kept = bar[k].view(-1, 1, 1, 1)  # [B,1,1,1], beside the images
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    return (alpha * x0 + sigma * noise).float()
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def schedule(rng: Random, steps: int) -> Tensor:
    return rng.uniform(0.05, 0.4, steps)


def together(rng: Random) -> Iterator[Step]:
    """All images at one step, neither the first nor the last."""
    for channels in (1, 3):
        steps = rng.whole(5, 9)
        shape = (2, channels, 2, rng.whole(4, 6))
        k = torch.full((2,), rng.whole(2, steps))
        yield call(rng.normal(*shape), k, rng.normal(*shape), schedule(rng, steps))


def apart(rng: Random) -> Iterator[Step]:
    """Every image at its own step; first with as many images as columns."""
    for size, width in ((3, 3), (4, 2)):
        steps = rng.whole(5, 9)
        shape = (size, rng.whole(1, 3), 2, width)
        k = (rng.whole(0, steps) + torch.arange(size)) % (steps - 1) + 1  # 1 … T-1, all different
        yield call(rng.normal(*shape), k, rng.normal(*shape), schedule(rng, steps))


def ends(rng: Random) -> Iterator[Step]:
    """No step at all; and all of them."""
    for last in (False, True):
        steps = rng.whole(3, 7)
        shape = (2, 1, 2, rng.whole(3, 5))
        k = torch.full((2,), steps * last)
        yield call(rng.normal(*shape), k, rng.normal(*shape), schedule(rng, steps))


def fine(rng: Random) -> Iterator[Step]:
    """Betas of 1e-9; the noise is scaled up, so that a few steps of them are seen."""
    steps = rng.whole(5, 9)
    shape = (2, 1, 2, rng.whole(3, 5))
    k = 2 + rng.integers(0, steps - 2, 2)
    noise = 3000 * rng.normal(*shape)
    yield call(rng.normal(*shape), k, noise, rng.uniform(1e-9, 4e-9, steps))


EXERCISE = Exercise(
    difficulty=1,
    minutes=12,
    checks=[
        Check("a batch after k steps", together, points=2, hint="jump"),
        Check("every image at a step of its own", apart, points=1, hint="jump"),
        Check("no step, and all steps", ends, points=1, hint="ends"),
        Check("a schedule with betas of 1e-9", fine, points=1, hint="digits"),
    ],
    hints={
        "ahead": "the cumulative product's entry k is the level after k + 1 steps: put 1 in front",
        "wraps": "at k = 0 the index k - 1 is -1, which is the last entry: put 1 in front",
        "root": "image and noise are multiplied by roots: alpha-bar is a share of variance",
        "sum": "the variances add up to 1, not the amplitudes: sigma is the root of 1 - alpha-bar",
        "one_step": "this is a single step with beta_k: multiply the factors of all steps up to k",
        "swapped": "image and noise have exchanged their factors: alpha-bar is what is left of x0",
        "one_level": "all images got the level of the first: k holds a step for each image",
        "axis": "the levels were laid along the columns of the images: give them shape [B,1,1,1]",
        "digits": "in float32 1 - 1e-9 is 1, and no noise is left: compute the product in float64",
        "ends": "k = 0 gives the image itself, k = T uses the last beta",
        "jump": "alpha-bar is the product of (1 - beta) up to k; its root times the image, and the "
        "root of the rest times the noise",
    },
    mutants=[
        Mutant("ahead", "bar[k]", "bar[1:][k.clamp(max=len(betas) - 1)]"),
        Mutant("wraps", "bar[k]", "bar[1:][k - 1]"),
        Mutant("root", "kept.sqrt(), (1 - kept).sqrt()", "kept, 1 - kept"),
        Mutant("sum", "(1 - kept).sqrt()", "1 - kept.sqrt()"),
        Mutant("one_step", "torch.cumprod(1 - betas.double(), 0)", "1 - betas.double()"),
        Mutant("swapped", "alpha, sigma =", "sigma, alpha ="),
        Mutant("one_level", "bar[k]", "bar[k[0]]"),
        Mutant("axis", ".view(-1, 1, 1, 1)", ""),
        Mutant("digits", "betas.double()", "betas"),
        Mutant("input", "alpha * x0 +", "alpha * x0.mul_(alpha) / alpha +"),
    ],
    rights=[
        """
import torch

def q_sample(x0, k, noise, betas):
    logs = torch.nn.functional.pad(torch.log1p(-betas).cumsum(0), (1, 0))  # float32 is enough here
    alpha, sigma = torch.exp(logs / 2), torch.sqrt(-torch.expm1(logs))
    at = k[:, None, None, None]
    return alpha[at] * x0 + sigma[at] * noise
""",
        """
import torch

def q_sample(x0, k, noise, betas):
    images = []
    for image, steps, draw in zip(x0.double(), k.tolist(), noise.double()):
        variance, shrink = 0.0, 1.0
        for beta in betas[:steps].tolist():
            variance = (1 - beta) * variance + beta
            shrink *= (1 - beta) ** 0.5
        images.append(shrink * image + variance**0.5 * draw)
    return torch.stack(images)
""",
    ],
    vary={"q_sample": ["q_sample", "diffuse", "noised"]},
    answer="q_sample",
)
### END HIDDEN TESTS
