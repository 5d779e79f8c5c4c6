"""# The grey samples of the report

A student report has 100 noise levels, with $\\beta$ rising evenly from 0.0001 to 0.05. Below is its
sampler, cut down to one number per image, the brightness. The data have brightness
$\\mathcal{N}(4, 14^2)$. The network is not to blame: `exact` is the *perfect* answer for these data,
at every level. And still, over ten thousand draws from pure noise the brightness has mean 0.1 and
standard deviation 3.5: every sample is a middling grey. Started not from pure noise but from
photographs noised to the last level, the same loop draws mean 4 and deviation 14.

Find out what is wrong **with the levels**, and repair it for every list of betas. Keep as they are:
the number of levels, the *first* level, and $\\alpha^2 + \\sigma^2 = 1$. Change $\\alpha_k$ (the factor
of the image, $\\sqrt{\\bar\\alpha_k}$) to $a\\,\\alpha_k + b$, with the same $a$ and $b$ for all $k$.
These two numbers follow from two conditions; one of them you have just read. A schedule that has
nothing wrong with it comes out unchanged.

After that the program still does not work. Read its loop at the new last level: which line cannot be
computed there, and how else can it be written? No small number added, nothing clipped.

`betas` is float64 `[T]`, $T \\ge 2$, and the last one may be 1. `noise` is float64 `[n]`.
`network(x, alpha, sigma)` answers with the target $v = \\alpha\\varepsilon - \\sigma x_0$, its best
guess given `x`, float64 `[n]`. It is asked once per level, the noisiest first. Return the samples,
float64 `[n]`.

*Predict first*: which share of the image's amplitude is left at the report's last level?
"""

from collections.abc import Callable

import torch
from torch import Tensor


def exact(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[v | x] for data that are N(4, 14²)."""
    x0 = 4 + 196 * alpha / (196 * alpha**2 + sigma**2) * (x - 4 * alpha)
    return (alpha * x - x0) / sigma


def exact_pair(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[v | x] for data that are -5 or 5, equally often."""
    x0 = 5 * torch.tanh(5 * alpha * x / sigma**2)
    return (alpha * x - x0) / sigma


def draw(network: Callable[..., Tensor], noise: Tensor, betas: Tensor) -> Tensor:
    """From pure noise [n] to samples [n], without fresh noise on the way (DDIM)."""
    ### BEGIN SOLUTION
    alpha = torch.cumprod(1 - betas, 0).sqrt()  # [T], after 1, 2, … T steps
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])  # the last level: no signal
    sigma = (1 - alpha**2).sqrt()
    x = noise
    for k in reversed(range(len(betas))):
        v = network(x, alpha[k], sigma[k])
        x0 = alpha[k] * x - sigma[k] * v  # needs no division, as eps would
        eps = sigma[k] * x + alpha[k] * v
        x = alpha[k - 1] * x0 + sigma[k - 1] * eps if k > 0 else x0
    return x
    ### STARTER
    # alpha = torch.cumprod(1 - betas, 0).sqrt()  # [T], after 1, 2, … T steps
    # sigma = (1 - alpha**2).sqrt()
    # x = noise
    # for k in reversed(range(len(betas))):
    #     v = network(x, alpha[k], sigma[k])
    #     eps = sigma[k] * x + alpha[k] * v
    #     x0 = (x - sigma[k] * eps) / alpha[k]
    #     x = alpha[k - 1] * x0 + sigma[k - 1] * eps if k > 0 else x0
    # return x
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def report(rng: Random) -> Iterator[Step]:
    """The report's schedule, or nearly."""
    betas = torch.linspace(1e-4, rng.number(0.04, 0.06), 100, dtype=torch.float64)
    yield call(Ref("exact"), rng.normal(rng.whole(3, 7)).double(), betas)


def others(rng: Random) -> Iterator[Step]:
    for name in ("exact", "exact_pair"):
        betas = rng.uniform(0.02, 0.3, rng.whole(4, 9)).double()
        yield call(Ref(name), rng.normal(rng.whole(3, 7)).double(), betas)


def sound(rng: Random) -> Iterator[Step]:
    """A schedule that ends in pure noise: its levels stay, and the loop must bear alpha = 0."""
    betas = rng.uniform(0.05, 0.4, rng.whole(4, 9)).double()
    betas[-1] = 1
    yield call(Ref("exact"), rng.normal(rng.whole(3, 7)).double(), betas)


EXERCISE = Exercise(
    difficulty=3,
    minutes=35,
    checks=[
        Check("the report's schedule, repaired", report, points=2, tolerance=1e-6, hint="levels"),
        Check("other schedules and data", others, points=1, tolerance=1e-6, hint="levels"),
        Check(
            "a schedule that ends in pure noise stays",
            sound,
            points=1,
            tolerance=1e-6,
            hint="divide",
        ),
    ],
    hints={
        "untouched": "the levels are still the old ones: the last holds a good part of the image, "
        "and the start holds nothing of it",
        "start": "less noise at the start does not help: what is missing there is the image's "
        "share, and the last level must have none",
        "squares": "alpha-bar was shifted and stretched: do it to its root, the factor of the "
        "image",
        "last_only": "only the last level was changed: that makes one huge step of all that was "
        "left; move every level a little",
        "first": "the first level has moved: which of the two conditions is missing?",
        "stale": "sigma belongs to the old levels: make it from the new alpha",
        "divide": "at the last level alpha is 0, and the noise says nothing about x0: get x0 from "
        "x and v without dividing",
        "nearly": "a trace of signal was left at the last level, to be able to divide by it: let "
        "it be 0, and get x0 from x and v without dividing",
        "steeper": "larger betas repair the end too, but the text asks for the same schedule "
        "shifted and stretched",
        "target": "v = alpha·eps - sigma·x0 and x = alpha·x0 + sigma·eps are two equations: solve "
        "them for x0",
        "levels": "two conditions on a·alpha + b: 0 at the last level, unchanged at the first; "
        "then sigma anew",
    },
    mutants=[
        Mutant(
            "untouched",
            "alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])",
            "alpha = alpha",
        ),
        Mutant(
            "start",
            source="""
import torch

def draw(network, noise, betas):
    alpha = torch.cumprod(1 - betas, 0).sqrt()
    sigma = (1 - alpha**2).sqrt()
    x = sigma[-1] * noise
    for k in reversed(range(len(betas))):
        v = network(x, alpha[k], sigma[k])
        x0, eps = alpha[k] * x - sigma[k] * v, sigma[k] * x + alpha[k] * v
        x = alpha[k - 1] * x0 + sigma[k - 1] * eps if k > 0 else x0
    return x
""",
        ),
        Mutant(
            "squares",
            "alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])",
            "bar = alpha**2\n    alpha = ((bar - bar[-1]) * bar[0] / (bar[0] - bar[-1])).sqrt()",
        ),
        Mutant(
            "last_only",
            "alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])",
            "alpha = torch.cat([alpha[:-1], torch.zeros_like(alpha[:1])])",
        ),
        Mutant("first", "* alpha[0] / (alpha[0] - alpha[-1])", "/ (1 - alpha[-1])"),
        Mutant("first", " * alpha[0] / (alpha[0] - alpha[-1])", ""),
        Mutant(
            "stale",
            "sigma = (1 - alpha**2).sqrt()",
            "sigma = (1 - torch.cumprod(1 - betas, 0)).sqrt()",
        ),
        Mutant(
            "divide",
            "alpha[k] * x - sigma[k] * v",
            "(x - sigma[k] * (sigma[k] * x + alpha[k] * v)) / alpha[k]",
        ),
        Mutant(
            "nearly",
            "    sigma = (1 - alpha**2).sqrt()",
            "    alpha = alpha.clamp(min=1e-4)\n    sigma = (1 - alpha**2).sqrt()",
        ),
        Mutant(
            "steeper",
            "alpha = torch.cumprod(1 - betas, 0).sqrt()",
            "betas = torch.linspace(float(betas[0]), 0.2, len(betas), dtype=torch.float64)\n"
            "    alpha = torch.cumprod(1 - betas, 0).sqrt()",
        ),
        Mutant("target", "alpha[k] * x - sigma[k] * v", "alpha[k] * x + sigma[k] * v"),
    ],
    rights=[
        """
import torch

def draw(network, noise, betas):
    bar, old = 1.0, []
    for beta in betas.tolist():
        bar *= 1 - beta
        old.append(bar**0.5)
    a = old[0] / (old[0] - old[-1])
    new = [torch.tensor(a * value - a * old[-1], dtype=torch.float64) for value in old]
    x = noise.clone()
    for alpha, after in zip(reversed(new), [*reversed(new[:-1]), torch.ones(()).double()]):
        angle = torch.arccos(alpha)
        turn = torch.arccos(after) - angle  # on this path a DDIM step turns (x, v) by an angle
        v = network(x, alpha, torch.sin(angle))
        x = torch.cos(turn) * x + torch.sin(turn) * v
    return x
""",
        """
import torch

def draw(network, noise, betas):
    old = torch.exp(0.5 * torch.log1p(-betas).cumsum(0))
    new = old[0] * (old - old[-1]) / (old[0] - old[-1])
    table = torch.cat([torch.ones(1, dtype=torch.float64), new]).flip(0)
    x = noise
    for now, after in zip(table[:-1], table[1:]):
        s = torch.sqrt((1 - now) * (1 + now))
        v = network(x, now, s)
        image = now * x - s * v
        x = after * image + torch.sqrt((1 - after) * (1 + after)) * (x - now * image) / s
    return x
""",
    ],
    vary={"draw": ["draw", "sample_chain", "generate"]},
    answer="draw",
)
### END HIDDEN TESTS
