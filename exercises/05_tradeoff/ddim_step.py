"""# One DDIM step

At a noise level $(\\alpha, \\sigma)$ an image is $x = \\alpha x_0 + \\sigma \\varepsilon$. A network guesses $\\varepsilon$
from $x$. DDIM takes that guess at its word: it solves for the clean image,

$$
\\hat x_0 = \\frac{x - \\sigma \\hat\\varepsilon}{\\alpha},
$$

and goes to the next, quieter level $(\\alpha', \\sigma')$ by mixing **the same** $\\hat x_0$ and $\\hat\\varepsilon$ anew,
$x' = \\alpha' \\hat x_0 + \\sigma' \\hat\\varepsilon$. No fresh noise, no clipping.

`denoise(x, alpha, sigma)` returns $\\hat\\varepsilon$, of x's shape `[B, C, H, W]`. `level` and `to` are pairs
`(alpha, sigma)` of floats, with alpha > 0 in `level`. Return x' as `[B, C, H, W]`; call the network once, and leave x as it is.
"""

from collections.abc import Callable

from torch import Tensor


def expected_noise(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """The exact answer for data that are N(0.3, 0.5²) in every pixel: E[eps | x]."""
    variance = (alpha * 0.5) ** 2 + sigma**2
    return sigma * (x - alpha * 0.3) / variance


def ddim_step(
    denoise: Callable[[Tensor, float, float], Tensor],
    x: Tensor,
    level: tuple[float, float],
    to: tuple[float, float],
) -> Tensor:
    """x at `level` -> x at `to`."""
    ### BEGIN SOLUTION
    alpha, sigma = level
    alpha_next, sigma_next = to
    eps = denoise(x, alpha, sigma)
    x0 = (x - sigma * eps) / alpha
    return alpha_next * x0 + sigma_next * eps
    ### END SOLUTION


### BEGIN HIDDEN TESTS
import math
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def on_circle(rng: Random, low: float, high: float) -> tuple[float, float]:
    """A level with alpha² + sigma² = 1; the angle is between low and high."""
    angle = rng.number(low, high)
    return math.cos(angle), math.sin(angle)


def inner(rng: Random) -> Iterator[Step]:
    """Steps between two noisy levels."""
    for _ in range(3):
        x = 4 * rng.normal(rng.whole(1, 3), rng.whole(1, 4), 3, rng.whole(2, 5))
        yield call(Ref("expected_noise"), x, on_circle(rng, 0.9, 1.4), on_circle(rng, 0.2, 0.7))


def ending(rng: Random) -> Iterator[Step]:
    """The last step arrives at the clean image: (1, 0)."""
    for _ in range(2):
        x = 4 * rng.normal(2, 1, 3, rng.whole(2, 5))
        yield call(Ref("expected_noise"), x, on_circle(rng, 0.4, 1.2), (1.0, 0.0))


def flow(rng: Random) -> Iterator[Step]:
    """The straight path of flow matching, where alpha + sigma = 1: the step knows only levels."""
    for _ in range(2):
        x = rng.normal(2, 1, 2, 4)
        t, s = rng.number(0.6, 0.9), rng.number(0.1, 0.5)
        yield call(Ref("expected_noise"), x, (1 - t, t), (1 - s, s))


EXERCISE = Exercise(
    difficulty=2,
    minutes=15,
    checks=[
        Check("a step between two noise levels", inner, points=2, hint="step"),
        Check("the last step, to the clean image", ending, points=1, hint="step"),
        Check("any path, not only alpha² + sigma² = 1", flow, points=1, hint="path"),
    ],
    hints={
        "bare": "x − eps is no clean image: the noise in x is sigma·eps, and the image is scaled by alpha",
        "swapped": "the network is told alpha first, then sigma: denoise(x, alpha, sigma)",
        "divide": "x − sigma·eps is alpha·x0: divide it by alpha",
        "stay": "the noise is put back at the old level: use the sigma of the level you go to",
        "variance": "sigma is a standard deviation here: no square and no square root",
        "unscaled": "the clean image enters the next level scaled by its alpha",
        "clip": "the clean image was clipped: this step must be exact, clipping is the caller's choice",
        "twice": "two steps in one: the network is asked once a step, at the level where x is",
        "path": "the levels come in as pairs: do not rebuild one number from the other",
        "step": "solve for x0 with the old level, then mix x0 and the same eps with the new one",
    },
    mutants=[
        Mutant("swapped", "denoise(x, alpha, sigma)", "denoise(x, sigma, alpha)"),
        Mutant("bare", "(x - sigma * eps) / alpha", "x - eps"),
        Mutant("divide", "(x - sigma * eps) / alpha", "x - sigma * eps"),
        Mutant("stay", "sigma_next * eps", "sigma * eps"),
        Mutant("variance", "sigma_next * eps", "sigma_next**0.5 * eps"),
        Mutant("unscaled", "alpha_next * x0", "x0"),
        Mutant("clip", "(x - sigma * eps) / alpha", "((x - sigma * eps) / alpha).clamp(-1, 1)"),
        Mutant(
            "path", "alpha, sigma = level", "alpha, sigma = level[0], (1 - level[0] ** 2) ** 0.5"
        ),
        Mutant(
            "twice",
            "    return alpha_next * x0 + sigma_next * eps",
            "    x = alpha_next * x0 + sigma_next * eps\n"
            "    return x + (sigma_next - sigma) * denoise(x, alpha_next, sigma_next)",
        ),
    ],
    rights=[
        """
def ddim_step(denoise, x, level, to):
    (a, s), (b, r) = level, to
    eps = denoise(x, a, s)
    return b / a * x + (r - b / a * s) * eps
""",
        """
import torch

def ddim_step(denoise, x, level, to):
    eps = denoise(x.clone(), level[0], level[1])
    clean = torch.sub(x, eps, alpha=level[1]).div(level[0])
    return torch.stack([clean * to[0], eps * to[1]]).sum(0)
""",
    ],
)
### END HIDDEN TESTS
