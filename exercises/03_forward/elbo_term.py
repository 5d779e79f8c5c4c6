"""# One term of the bound, in bits

What does one step of a chain cost? The true step back, with the image known, is Gaussian:
$q(x_s \\mid x_t, x_0) = \\mathcal{N}(\\mu, \\tilde\\beta I)$. The model's step is Gaussian, too. It puts
its guess $\\hat x_0$ where $x_0$ stood, and it may **choose its own variance** $v$ for every pixel,
as chapter 3 found that it should. The step's price is the divergence

$$
\\mathrm{KL}\\bigl(\\mathcal{N}(\\mu, \\tilde\\beta I) \\,\\Vert\\,
\\mathcal{N}(\\hat\\mu, \\operatorname{diag} v)\\bigr) .
$$

Given are, as in the chapter, $r = \\alpha_t/\\alpha_s$, $\\delta^2 = \\sigma_t^2 - r^2\\sigma_s^2$ and

$$
\\mu = \\frac{r\\,\\sigma_s^2}{\\sigma_t^2}\\, x_t + \\frac{\\alpha_s \\delta^2}{\\sigma_t^2}\\, x_0,
\\qquad
\\hat\\mu = \\frac{r\\,\\sigma_s^2}{\\sigma_t^2}\\, x_t + \\frac{\\alpha_s \\delta^2}{\\sigma_t^2}\\, \\hat x_0,
\\qquad \\tilde\\beta = \\frac{\\delta^2 \\sigma_s^2}{\\sigma_t^2} .
$$

The divergence of two Gaussians with different variances you derive: it is the mean, under the
first, of the difference of the two log-densities, and pixels are independent. For
$v = \\tilde\\beta$ it must come to
$\\tfrac12\\bigl(\\mathrm{SNR}(s) - \\mathrm{SNR}(t)\\bigr) \\lVert x_0 - \\hat x_0 \\rVert^2$, which is
the first check; and it is 0 only where both distributions are the same.

`x0`, `x0_hat` and `variance` ($v > 0$) are float32 `[B, C, H, W]`. `t` and `s` are pairs
`(alpha, sigma)` of Python floats, `t` the noisier; alpha of `t` may be 0, sigma of `s` is positive.
Return **bits per dimension**, `[B]`, with $D = C \\cdot H \\cdot W$. The last check has neighbours of
a very fine chain: think about which numbers may be float32.
"""

import math

import torch
from torch import Tensor

Level = tuple[float, float]  # (alpha, sigma)


def elbo_term(x0: Tensor, x0_hat: Tensor, variance: Tensor, t: Level, s: Level) -> Tensor:
    """Price of the step from level t to level s, [B], in bits per dimension."""
    ### BEGIN SOLUTION
    (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s  # floats of Python have 53 bits
    added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2  # delta²
    true = added * sigma_s**2 / sigma_t**2  # variance of the true step
    gap = alpha_s * added / sigma_t**2 * (x0 - x0_hat)  # of the means; x_t drops out
    ratio = true / variance
    kl = 0.5 * (ratio - 1 - ratio.log() + gap.square() / variance)  # [B,C,H,W], nats
    return kl.flatten(1).sum(1) / (math.prod(x0.shape[1:]) * math.log(2))
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def level(angle: float, scale: float = 1.0) -> tuple[float, float]:
    return scale * math.cos(angle), scale * math.sin(angle)


def true_variance(t: tuple[float, float], s: tuple[float, float]) -> float:
    return (t[1] ** 2 - (t[0] / s[0] * s[1]) ** 2) * s[1] ** 2 / t[1] ** 2


def term(
    rng: Random, t: tuple[float, float], s: tuple[float, float], spread: float, channels: int
) -> Step:
    """A guess that is as far off as the step makes it matter, and variances around the true one."""
    shape = (rng.whole(2, 4), channels, 2, rng.whole(3, 5))
    x0 = rng.uniform(-1, 1, *shape)
    weight = (s[0] / s[1]) ** 2 - (t[0] / t[1]) ** 2
    guess = x0 + rng.normal(*shape) * min(1.0, weight**-0.5)
    variance = true_variance(t, s) * torch.exp(spread * rng.uniform(-1, 1, *shape))
    return call(x0, guess, variance, t, s)


def fixed(rng: Random) -> Iterator[Step]:
    """v is the true variance; once from a level without any signal."""
    for channels in (1, 3):
        s = rng.number(0.3, 0.7)
        yield term(rng, level(s + rng.number(0.2, 0.6)), level(s), 0.0, channels)
    yield term(rng, (0.0, 1.0), level(rng.number(0.9, 1.2)), 0.0, 1)


def chosen(rng: Random) -> Iterator[Step]:
    for channels in (1, 3):
        s = rng.number(0.3, 0.7)
        yield term(rng, level(s + rng.number(0.2, 0.6)), level(s), 1.2, channels)


def any_path(rng: Random) -> Iterator[Step]:
    """alpha² + sigma² is not 1: the straight path, and alpha = 1."""
    s = rng.number(0.2, 0.4)
    t = s + rng.number(0.2, 0.4)
    yield term(rng, (1 - t, t), (1 - s, s), 0.8, 1)
    s = rng.number(0.5, 2)
    yield term(rng, (1.0, s + rng.number(0.3, 2)), (1.0, s), 0.8, 1)


def neighbours(rng: Random) -> Iterator[Step]:
    s = rng.number(0.6, 1.0)
    yield term(rng, level(s + rng.number(1e-7, 2e-7)), level(s), 0.8, 1)


EXERCISE = Exercise(
    difficulty=3,
    minutes=45,
    checks=[
        Check(
            "the true variance: half the fall of the SNR",
            fixed,
            points=2,
            tolerance=1e-4,
            hint="fixed",
        ),
        Check("a variance of its own", chosen, points=2, tolerance=1e-4, hint="kl"),
        Check("on any path", any_path, points=1, tolerance=1e-4, hint="kl"),
        Check(
            "two neighbours of a very fine chain",
            neighbours,
            points=1,
            tolerance=1e-3,
            hint="digits",
        ),
    ],
    hints={
        "reverse": "the two distributions are exchanged: the average is over the true step, so "
        "the model's variance is the one in the denominators",
        "nats": "these are nats: divide by log 2 as well",
        "whole": "this is the whole image's price: divide by the number of dimensions",
        "channels": "D counts every channel of every pixel: C·H·W",
        "half": "a Gaussian's logarithm has a factor ½, which the divergence keeps",
        "bare": "the means differ by less than the images do: x0 enters mu with the factor "
        "alpha_s·delta²/sigma_t²",
        "ignored": "the model's variance is not used: with a wrong variance even the right mean "
        "costs something",
        "trace": "the mean square of the first about the second's mean holds the first's "
        "variance too: the term true/v - 1 is missing",
        "log": "the normalising constants differ: half the logarithm of v/true is missing",
        "deviation": "v is a variance already: no square and no root of it",
        "forward": "this is the variance of the step forward, delta²: knowing x0 makes it "
        "smaller, by sigma_s²/sigma_t²",
        "one_path": "alpha and sigma are given both: do not make one from the other",
        "digits": "delta² is a small difference of large numbers: keep the levels as Python "
        "floats or float64 until it is taken",
        "fixed": "compare with ½·(SNR(s) - SNR(t))·‖x0 - x0_hat‖², divided by D·log 2",
        "kl": "per pixel ½·(true/v - 1 - log(true/v) + (difference of means)²/v); then sum, and "
        "divide by D·log 2",
    },
    mutants=[
        Mutant(
            "reverse",
            "    ratio = true / variance\n"
            "    kl = 0.5 * (ratio - 1 - ratio.log() + gap.square() / variance)",
            "    ratio = variance / true\n"
            "    kl = 0.5 * (ratio - 1 - ratio.log() + gap.square() / true)",
        ),
        Mutant("nats", " * math.log(2))", ")"),
        Mutant("whole", "(math.prod(x0.shape[1:]) * math.log(2))", "math.log(2)"),
        Mutant("channels", "math.prod(x0.shape[1:])", "math.prod(x0.shape[2:])"),
        Mutant("half", "0.5 * (ratio", "1.0 * (ratio"),
        Mutant("bare", "alpha_s * added / sigma_t**2 * (x0 - x0_hat)", "x0 - x0_hat"),
        Mutant("ignored", "ratio = true", "variance = torch.full_like(x0, true)\n    ratio = true"),
        Mutant("trace", "ratio - 1 - ratio.log()", "-ratio.log()"),
        Mutant("log", "ratio - 1 - ratio.log()", "ratio - 1"),
        Mutant("deviation", "ratio = true", "variance = variance**2\n    ratio = true"),
        Mutant("forward", "true = added * sigma_s**2 / sigma_t**2", "true = added"),
        Mutant("one_path", "added = ", "sigma_s = (1 - alpha_s**2) ** 0.5\n    added = "),
        Mutant(
            "digits",
            "(alpha_t, sigma_t), (alpha_s, sigma_s) = t, s",
            "alpha_t, sigma_t, alpha_s, sigma_s = torch.tensor([*t, *s])",
        ),
    ],
    rights=[
        """
import math

import torch
from torch.distributions import Normal, kl_divergence

def elbo_term(x0, x0_hat, variance, t, s):
    (a, b), (c, d) = t, s
    delta = b**2 - a**2 / c**2 * d**2
    step = Normal(c * delta / b**2 * x0.double(), d / b * delta**0.5)
    model = Normal(c * delta / b**2 * x0_hat.double(), variance.double().sqrt())
    return kl_divergence(step, model).mean((1, 2, 3)).float() / math.log(2)
""",
        """
import math

import torch

def elbo_term(x0, x0_hat, variance, t, s):
    levels = torch.tensor([t, s], dtype=torch.float64)
    snr = (levels[:, 0] / levels[:, 1]) ** 2
    r = levels[0, 0] / levels[1, 0]
    true = (1 - (r * levels[1, 1] / levels[0, 1]) ** 2) * levels[1, 1] ** 2
    square = (snr[1] - snr[0]) * (x0 - x0_hat) ** 2 * true / variance  # /v in place of /true
    shape = (true - variance) / variance + torch.log(variance / true)
    return ((square + shape) / 2 / math.log(2)).flatten(1).mean(1)
""",
    ],
    vary={"elbo_term": ["elbo_term", "step_price", "bits_of_step"]},
    answer="elbo_term",
)
### END HIDDEN TESTS
