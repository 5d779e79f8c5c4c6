"""# One step back, if the image were known

The chain can be walked backwards as soon as $x_0$ is given: what came one step before $x_k$ is
Gaussian. A sampler takes this very step with a guess in place of $x_0$, and a training bound
compares against it, so that an error here spoils both. The chapter derives it for two levels
$s < t$. With $r = \\alpha_t / \\alpha_s$ and $\\delta^2 = \\sigma_t^2 - r^2 \\sigma_s^2$,

$$
q(x_s \\mid x_t, x_0) = \\mathcal{N}\\Bigl(x_s;\\;
\\frac{r\\,\\sigma_s^2}{\\sigma_t^2}\\, x_t + \\frac{\\alpha_s \\delta^2}{\\sigma_t^2}\\, x_0,\\;
\\frac{\\delta^2 \\sigma_s^2}{\\sigma_t^2}\\, I\\Bigr) .
$$

Write it for neighbours, $t = k$ and $s = k - 1$, on a schedule that is given by its variances:
$\\bar\\alpha_k = (1 - \\beta_1) \\cdots (1 - \\beta_k)$, $\\alpha = \\sqrt{\\bar\\alpha}$,
$\\sigma = \\sqrt{1 - \\bar\\alpha}$. First find out, on paper, what $r$ and $\\delta^2$ become.

`x0` and `x` ($x_k$) are float64 `[B, C, H, W]`. `k` is int64 `[B]`, a step for each image, from 1
to $T$. `betas` is float64 `[T]`, $\\beta_1$ first, $T \\ge 2$; the last one may be 1, so that
nothing is left of the image at the end. Return a tuple: the mean, `[B, C, H, W]`, and the variance,
`[B]`. Stay in float64: a fine schedule begins with $\\beta$ of a millionth.

*Check yourself by hand first*: what is the variance at $k = 1$, and what the mean?
"""

import torch
from torch import Tensor


def posterior(x0: Tensor, x: Tensor, k: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B,C,H,W] and variance [B] of what was before x = x_k, given x0."""
    ### BEGIN SOLUTION
    bar = torch.cumprod(1 - betas, 0)
    bar = torch.cat([torch.ones_like(bar[:1]), bar])  # [T+1], entry 0: nothing has happened yet
    beta, now, before = betas[k - 1], bar[k], bar[k - 1]  # each [B]
    of_x0 = before.sqrt() * beta / (1 - now)
    of_x = (1 - beta).sqrt() * (1 - before) / (1 - now)
    variance = beta * (1 - before) / (1 - now)
    mean = of_x0.view(-1, 1, 1, 1) * x0 + of_x.view(-1, 1, 1, 1) * x
    return mean, variance
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def step(rng: Random, k: Tensor, betas: Tensor) -> Step:
    shape = (len(k), rng.whole(1, 3), 1, rng.whole(2, 4))
    return call(rng.normal(*shape).double(), rng.normal(*shape).double(), k, betas)


def middle(rng: Random) -> Iterator[Step]:
    for _ in range(2):
        betas = rng.uniform(0.05, 0.4, rng.whole(5, 9)).double()
        yield step(rng, torch.full((2,), rng.whole(3, len(betas))), betas)


def own(rng: Random) -> Iterator[Step]:
    """Every image at its own step; the last step of a chain that ends in pure noise among them."""
    for size in (3, 4):
        betas = rng.uniform(0.05, 0.4, rng.whole(6, 9)).double()
        betas[-1] = 1
        k = torch.arange(size) + len(betas) - size + 1
        yield step(rng, k.roll(rng.whole(1, size)), betas)


def last(rng: Random) -> Iterator[Step]:
    """k = 1: from the first noisy level to the clean image."""
    for _ in range(2):
        betas = rng.uniform(0.05, 0.4, rng.whole(4, 8)).double()
        yield step(rng, torch.ones(rng.whole(1, 3), dtype=torch.int64), betas)


def fine(rng: Random) -> Iterator[Step]:
    betas = rng.uniform(1e-6, 3e-6, rng.whole(5, 9)).double()
    yield step(rng, torch.tensor([2, rng.whole(3, 6)]), betas)


EXERCISE = Exercise(
    difficulty=2,
    minutes=25,
    checks=[
        Check("mean and variance inside a chain", middle, points=2, tolerance=1e-6, hint="bayes"),
        Check("every image at a step of its own", own, points=1, tolerance=1e-6, hint="bayes"),
        Check("the step to the clean image, k = 1", last, points=1, tolerance=1e-6, hint="entry"),
        Check("a schedule with betas of 1e-6", fine, points=1, tolerance=1e-8, hint="digits"),
    ],
    hints={
        "beta": "this variance is beta, which is that of a step forward: knowing x0 makes it "
        "smaller, by (1 - alpha-bar before) / (1 - alpha-bar now)",
        "wraps": "for k = 1 the level before is index -1, which is the last: alpha-bar_0 is 1",
        "previous": "two different levels meet here: the numerators hold alpha-bar of step k - 1",
        "clipped": "the variance of k = 1 is 0: a floor under it (often put there to take its "
        "logarithm) leaves noise in the picture",
        "root": "the factors of the mean hold roots: images are multiplied by alpha, which is the "
        "root of alpha-bar",
        "exchanged": "x0 and x have exchanged their factors: near the clean end x0 decides",
        "deviation": "a variance is asked for: this is its root",
        "denominator": "the variance is divided by 1 - alpha-bar of step k, as the mean is",
        "digits": "1 - alpha-bar is a small difference of large numbers: float32 has no digits "
        "left for it, stay in float64",
        "nan": "at k = 1 the noise before is 0 and cannot be divided by: multiply the fractions "
        "out, so that only 1 - alpha-bar of step k is a denominator",
        "entry": "before the first step nothing has happened: alpha-bar_0 = 1, the variance is 0, "
        "and the mean is x0",
        "bayes": "with s = k - 1 the shrinking r is the root of 1 - beta_k, and delta squared is "
        "beta_k",
    },
    mutants=[
        Mutant("beta", "variance = beta * (1 - before) / (1 - now)", "variance = beta"),
        Mutant("wraps", "bar[k - 1]", "bar[1:][k - 2]"),
        Mutant("previous", "bar[k], bar[k - 1]", "bar[k], bar[k]"),
        Mutant(
            "clipped",
            "    return mean, variance",
            "    floor = betas[1] * betas[0] / (1 - bar[2])\n"
            "    return mean, torch.where(k == 1, floor, variance)",
        ),
        Mutant("root", "before.sqrt() * beta", "before * beta"),
        Mutant("root", "(1 - beta).sqrt()", "(1 - beta)"),
        Mutant(
            "exchanged",
            "of_x0.view(-1, 1, 1, 1) * x0 + of_x.view(-1, 1, 1, 1) * x\n",
            "of_x0.view(-1, 1, 1, 1) * x + of_x.view(-1, 1, 1, 1) * x0\n",
        ),
        Mutant("deviation", "return mean, variance", "return mean, variance.sqrt()"),
        Mutant(
            "denominator",
            "variance = beta * (1 - before) / (1 - now)",
            "variance = beta * (1 - before)",
        ),
        Mutant("digits", "torch.cumprod(1 - betas, 0)", "torch.cumprod(1 - betas.float(), 0)"),
        Mutant(
            "nan",
            source="""
import torch

def posterior(x0, x, k, betas):
    bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
    beta, before = (v.view(-1, 1, 1, 1) for v in (betas[k - 1], bar[k - 1]))
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * x + before.sqrt() / (1 - before) * x0) / precision
    return mean, 1 / precision.flatten()
""",
        ),
    ],
    rights=[
        """
import torch

def posterior(x0, x, k, betas):
    logs = torch.nn.functional.pad(torch.log1p(-betas).cumsum(0), (1, 0))
    alpha, square = torch.exp(logs / 2), -torch.expm1(logs)  # sigma squared
    a_t, a_s, v_t, v_s = alpha[k], alpha[k - 1], square[k], square[k - 1]
    r = a_t / a_s
    delta = v_t - r**2 * v_s
    mean = torch.einsum("b,bchw->bchw", r * v_s / v_t, x)
    return mean + torch.einsum("b,bchw->bchw", a_s * delta / v_t, x0), delta * v_s / v_t
""",
        """
import torch

def posterior(x0, x, k, betas):
    means, variances = [], []
    for image, noisy, steps in zip(x0, x, k.tolist()):
        variance, shrink = 0.0, 1.0  # the prior of x_{k-1} given x0: N(shrink x0, variance)
        for beta in betas[: steps - 1].tolist():
            variance, shrink = (1 - beta) * variance + beta, shrink * (1 - beta) ** 0.5
        beta = betas[steps - 1].item()
        root = (1 - beta) ** 0.5  # then condition on x = root x_{k-1} + noise of variance beta
        gain = variance * root / (root**2 * variance + beta)
        means.append(shrink * image + gain * (noisy - root * shrink * image))
        variances.append((1 - gain * root) * variance)
    return torch.stack(means), torch.tensor(variances, dtype=torch.float64)
""",
    ],
    vary={"posterior": ["posterior", "step_back", "backward_step"]},
    answer="posterior",
)
### END HIDDEN TESTS
