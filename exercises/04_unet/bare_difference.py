"""# A sampler from a blog

The sampler below follows a popular text. It was tried with a denoiser that is **exact**, `exact_pair`:
the data are black and white pixels, -1 and 1, equally often. $T = 100$, $\\beta$ from 0.001 to 0.2. What
was seen:

- After the very first step the canvas, which was $\\mathcal{N}(0, 1)$, has standard deviation 0.45.
  At the end it is in the millions.
- Someone subtracted $\\hat\\varepsilon/T$ instead. No explosion, but the pixels spread over nearly
  everything between -3 and 3.
- Someone mended the update of the mean, by the book. Now the picture is right, but for a fine grain:
  every black and white pixel is off by 0.03 or so, however good the denoiser. With the coarse chain
  of three steps that the check also has, it is no longer fine.

Mend it: the result must be DDPM's ancestral sampling, each step a draw from
$q(x_{k-1} \\mid x_k, x_0)$ of chapter 3 with $\\hat x_0$ in the place of $x_0$. So the mean is exact,
and **the variance is that of $q$**, the smaller of the two that the DDPM paper offers. Nothing is
clipped.

`denoise(x, alpha, sigma)` returns $\\hat\\varepsilon$ for `x` at that level
($\\alpha = \\sqrt{\\bar\\alpha_k}$, $\\sigma = \\sqrt{1 - \\bar\\alpha_k}$). `noise` is float64
`[B, C, H, W]`, the start. `fresh` is float64 `[T, B, C, H, W]`: `fresh[k - 1]` is there for the step from
$k$ to $k - 1$. `betas` is float64 `[T]`, $\\beta_1$ first; $T$ may be 1. Return the images, float64
`[B, C, H, W]`.

*Before you run the check*: how many mistakes do you count in the line that moves `x`?
"""

from collections.abc import Callable

import torch
from torch import Tensor


def exact(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[eps | x] for data that are N(0.3, 0.5²) in every pixel."""
    return sigma * (x - 0.3 * alpha) / ((0.5 * alpha) ** 2 + sigma**2)


def exact_pair(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[eps | x] for pixels that are -1 or 1, equally often."""
    return (x - alpha * torch.tanh(alpha * x / sigma**2)) / sigma


def ancestral(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    noise: Tensor,
    fresh: Tensor,
    betas: Tensor,
) -> Tensor:
    """From noise [B,C,H,W] to images, by T steps."""
    bar = torch.cumprod(1 - betas, 0)  # bar[k - 1] after k steps
    x = noise
    for k in range(len(betas), 0, -1):
        beta, now = betas[k - 1], bar[k - 1]
        eps = denoise(x, now.sqrt(), (1 - now).sqrt())
        ### BEGIN SOLUTION
        before = bar[k - 2] if k > 1 else torch.ones_like(now)  # after k - 1 steps
        mean = (x - beta / (1 - now).sqrt() * eps) / (1 - beta).sqrt()
        variance = beta * (1 - before) / (1 - now)  # 0 in the last step
        x = mean + variance.sqrt() * fresh[k - 1]
        ### STARTER
        # x = x - eps + beta.sqrt() * fresh[k - 1]
        ### END SOLUTION
    return x


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def chain(rng: Random, name: str, betas: Tensor, loud: float = 1.0) -> Step:
    shape = (rng.whole(1, 3), rng.whole(1, 3), 1, rng.whole(2, 4))
    fresh = loud * rng.normal(len(betas), *shape).double()
    return call(Ref(name), rng.normal(*shape).double(), fresh, betas)


def coarse(rng: Random, steps: int) -> Tensor:
    return rng.uniform(0.1, 0.6, steps).double()


def one_step(rng: Random) -> Iterator[Step]:
    """The first step is the last."""
    for name in ("exact", "exact_pair"):
        yield chain(rng, name, coarse(rng, 1))


def silent(rng: Random) -> Iterator[Step]:
    """All fresh noise is 0: the means alone."""
    for name in ("exact", "exact_pair"):
        yield chain(rng, name, coarse(rng, rng.whole(2, 6)), loud=0.0)


def noisy(rng: Random) -> Iterator[Step]:
    for name, steps in (("exact_pair", 3), ("exact", rng.whole(4, 7))):
        yield chain(rng, name, coarse(rng, steps))


def long(rng: Random) -> Iterator[Step]:
    betas = torch.linspace(1e-3, rng.number(0.15, 0.25), 100, dtype=torch.float64)
    yield call(
        Ref("exact"), rng.normal(1, 1, 1, 2).double(), rng.normal(100, 1, 1, 1, 2).double(), betas
    )


EXERCISE = Exercise(
    difficulty=3,
    minutes=30,
    checks=[
        Check("the means: no fresh noise", silent, points=2, tolerance=1e-6, hint="mean"),
        Check("the last step adds none", one_step, points=1, tolerance=1e-6, hint="last"),
        Check("fresh noise in the steps before", noisy, points=2, tolerance=1e-6, hint="noise"),
        Check("a hundred steps", long, points=1, tolerance=1e-6, hint="noise"),
    ],
    hints={
        "blog": "the update is still the blog's: it is wrong in what it takes away, in what it "
        "does not scale, and in its noise; the first check looks at the mean alone",
        "bare": "eps is all the noise in x, scaled to variance 1: a step takes only the share "
        "beta/sqrt(1 - alpha-bar) of it away and then scales up",
        "fraction": "each step takes another share of the noise away: "
        "beta/sqrt(1 - alpha-bar), not 1/T",
        "unscaled": "what is left must be scaled up: the step forward had shrunk it by "
        "sqrt(1 - beta)",
        "root": "eps has variance 1, the noise in x has 1 - alpha-bar: the share is beta over its "
        "root",
        "jump": "this is the expected clean image, and the next state is noisy still: mix it "
        "with x, as the mean of q(x_(k-1) | x_k, x0) does",
        "last": "noise is added in the last step, and stays in the picture: at k = 1 alpha-bar "
        "before is 1 and the variance 0",
        "beta": "the noise has the variance beta of a step forward: knowing x0 makes it smaller, "
        "by (1 - alpha-bar before)/(1 - alpha-bar now)",
        "variance": "the fresh noise is multiplied by the variance: its root is due",
        "quiet": "no fresh noise at all: every step goes to the mean, and the samples lose their "
        "spread",
        "stops": "the chain stops before the last step: k goes down to 1",
        "wraps": "at k = 1 the index k - 2 is -1, which is the last entry: alpha-bar of step 0 is 1",
        "mean": "compare the mean with that of q(x_(k-1) | x_k, x0), x0 from x and eps",
        "noise": "the root of beta·(1 - alpha-bar before)/(1 - alpha-bar now), times fresh[k - 1]",
    },
    mutants=[
        Mutant(
            "blog",
            "x = mean + variance.sqrt() * fresh[k - 1]",
            "x = x - eps + beta.sqrt() * fresh[k - 1]",
        ),
        Mutant("bare", "(x - beta / (1 - now).sqrt() * eps) / (1 - beta).sqrt()", "x - eps"),
        Mutant(
            "fraction",
            "(x - beta / (1 - now).sqrt() * eps) / (1 - beta).sqrt()",
            "x - eps / len(betas)",
        ),
        Mutant("unscaled", "* eps) / (1 - beta).sqrt()", "* eps)"),
        Mutant("root", "beta / (1 - now).sqrt() * eps", "beta / (1 - now) * eps"),
        Mutant(
            "jump",
            "(x - beta / (1 - now).sqrt() * eps) / (1 - beta).sqrt()",
            "(x - (1 - now).sqrt() * eps) / now.sqrt()",
        ),
        Mutant("last", "variance = beta * (1 - before) / (1 - now)", "variance = beta"),
        Mutant(
            "last",
            "variance = beta * (1 - before) / (1 - now)",
            "variance = beta * (1 - before) / (1 - now) if k > 1 else beta",
        ),
        Mutant(
            "beta",
            "variance = beta * (1 - before) / (1 - now)",
            "variance = beta * (k > 1)",
        ),
        Mutant("variance", "variance.sqrt()", "variance"),
        Mutant("quiet", "+ variance.sqrt() * fresh[k - 1]", ""),
        Mutant("stops", "range(len(betas), 0, -1)", "range(len(betas), 1, -1)"),
        Mutant("wraps", "bar[k - 2] if k > 1 else torch.ones_like(now)", "bar[k - 2]"),
    ],
    rights=[
        """
import torch

def ancestral(denoise, noise, fresh, betas):
    bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])
    alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
    x = noise
    for t in reversed(range(1, len(bar))):
        eps = denoise(x, alpha[t], sigma[t])
        x0 = (x - sigma[t] * eps) / alpha[t]
        r = alpha[t] / alpha[t - 1]
        delta = sigma[t] ** 2 - r**2 * sigma[t - 1] ** 2
        x = (r * sigma[t - 1] ** 2 * x + alpha[t - 1] * delta * x0) / sigma[t] ** 2
        if t > 1:
            x = x + delta.sqrt() * sigma[t - 1] / sigma[t] * fresh[t - 1]
    return x
""",
        """
import torch

def ancestral(denoise, noise, fresh, betas):
    levels = [(1.0, 0.0)]  # alpha and sigma after 0, 1, … steps
    for beta in betas.tolist():
        alpha = levels[-1][0] * (1 - beta) ** 0.5
        levels.append((alpha, (1 - alpha**2) ** 0.5))
    x = noise.clone()
    for k in range(len(betas), 0, -1):
        (a, s), (b, u) = levels[k], levels[k - 1]
        eps = denoise(x, torch.tensor(a).double(), torch.tensor(s).double())
        spread = u / s * (1 - a**2 / b**2) ** 0.5  # DDIM with eta = 1
        x0 = (x - s * eps) / a
        x = b * x0 + max(0.0, u**2 - spread**2) ** 0.5 * eps + spread * fresh[k - 1]
    return x
""",
    ],
    vary={"ancestral": ["ancestral", "ddpm_chain", "draw_images"]},
    answer="ancestral",
)
### END HIDDEN TESTS
