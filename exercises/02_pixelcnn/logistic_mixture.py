"""# A mixture of discretised logistics

Instead of one logit per level a network may describe curves: for 256 levels and three colours a
softmax needs 768 outputs per pixel, ten bells 70: for each a weight, and a mean and a scale per
colour. (Chapter 2 counts 100: there each bell has three numbers more, by which one colour may depend
on another. Here it does not.) A logistic bell with mean $\\mu$ and scale $\\varsigma$ has the
distribution function $s((v-\\mu)/\\varsigma)$ with $s(z) = 1/(1+e^{-z})$. Level $k$ of $K$ stands for the value $v_k = 2k/(K-1) - 1$ and for the bin
around it, of half-width $\\delta = 1/(K-1)$. Its probability is the area over the bin,

$$
P(k) = s\\bigl((v_k + \\delta - \\mu)/\\varsigma\\bigr)
    - s\\bigl((v_k - \\delta - \\mu)/\\varsigma\\bigr),
$$

with the first term replaced by 1 for $k = K-1$ and the second by 0 for $k = 0$: the edge bins take
the tails, so that the levels sum to 1.

A pixel has $C$ channels and $M$ components. **One component is drawn for the whole pixel**, with
weight $\\pi_m$, and within it the channels are independent:

$$
p(k_1, \\dots, k_C) = \\sum_{m=1}^{M} \\pi_m \\prod_{c=1}^{C} P_{m,c}(k_c) .
$$

`k` is int64 `[n, C]`, levels $0, \\dots, K-1$. `logits` is float `[n, M]`; $\\pi$ is their softmax.
`means` and `log_scales` are float `[n, M, C]`; $\\varsigma = e^{\\text{log scale}}$. `levels` is
$K \\ge 3$. Return $\\log p$ in nats, float `[n]`.

The formula as it stands gets most of the points. The last check is what training meets in its first
minutes: narrow bells far from the data, in float32. There both terms of the difference round to the
same number, the logarithm is $-\\infty$, and the gradient is gone. Write the difference so that no
small difference of large numbers is taken. With $a < b$ the bin's edges in units of the scale, the
identity

$$
s(b) - s(a) = s(b) \\, s(-a) \\, (1 - e^{a-b})
$$

is worth proving; `F.logsigmoid` and `torch.expm1` are worth knowing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def logistic_mixture(
    k: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, levels: int
) -> Tensor:
    """log p(k) in nats, [n], of n pixels with levels k int64[n,C]."""
    ### BEGIN SOLUTION
    k = k[:, None]  # [n,1,C], beside the components
    half = 1 / (levels - 1)
    centre = 2 * k * half - 1
    inverse = torch.exp(-log_scales)  # [n,M,C]
    low, high = (centre - half - means) * inverse, (centre + half - means) * inverse
    top, bottom = k == levels - 1, k == 0
    log_high = torch.where(top, 0.0, F.logsigmoid(high))  # log s(b), or log 1
    log_low = torch.where(bottom, 0.0, F.logsigmoid(-low))  # log s(-a), or log(1 - 0)
    inner = torch.log(-torch.expm1(-2 * half * inverse))  # log(1 - exp(a - b))
    log_p = log_high + log_low + torch.where(top | bottom, 0.0, inner)  # [n,M,C]
    joint = F.log_softmax(logits, -1) + log_p.sum(-1)  # [n,M], all channels of a component
    return torch.logsumexp(joint, -1)
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call, gradient


def pixels(
    rng: Random, n: int, C: int, levels: int, scale: tuple[float, float] = (-1.5, 0.0)
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """n pixels with inner levels, and broad bells: the formula as it stands is exact enough."""
    M = rng.whole(2, 4)
    k = rng.integers(1, levels - 1, n, C)
    bells = rng.uniform(-1, 1, n, M, C), rng.uniform(*scale, n, M, C)
    return (k, rng.normal(n, M), *bells, levels)


def inner(rng: Random) -> Iterator[Step]:
    for levels in (5, 9, 17):
        yield call(*pixels(rng, rng.whole(4, 7), 1, levels))


def edges(rng: Random) -> Iterator[Step]:
    """Black, white, and three levels of which two are edges."""
    for levels in (3, 9):
        k, *rest = pixels(rng, rng.whole(5, 8), 1, levels)
        k[::2] = 0
        k[1::2] = levels - 1
        yield call(k, *rest)


def colour(rng: Random) -> Iterator[Step]:
    for C in (2, 3):
        yield call(*pixels(rng, rng.whole(3, 6), C, rng.whole(4, 10)))


def far(rng: Random) -> Iterator[Step]:
    """Narrow bells far from the level: log p is -100 and less; its gradient in the means too."""
    for channels, levels in ((1, 17), (3, 9)):
        k, logits, means, _, _ = pixels(rng, rng.whole(4, 7), channels, levels)
        means = torch.where(2 * k[:, None] < levels, 1.0, -1.0) + 0.2 * means
        log_scales = rng.uniform(-5.5, -4.5, *means.shape)
        k[0] = (levels - 1) * (k[0] * 2 >= levels)  # an edge: black or white, and the tail of it
        yield call(k, logits, means, log_scales, levels)
        yield gradient(k, logits, means, log_scales, levels, wrt=2)


EXERCISE = Exercise(
    difficulty=4,
    minutes=60,
    checks=[
        Check("inner levels of one channel", inner, points=2, tolerance=3e-4, hint="bin"),
        Check("edge bins take the tails", edges, points=1, tolerance=3e-4, hint="edges"),
        Check("one component for all channels", colour, points=1, tolerance=3e-4, hint="bin"),
        Check(
            "stable: bells that are narrow and far away",
            far,
            points=2,
            tolerance=1e-3,
            hint="stable",
        ),
    ],
    hints={
        "density": "this is the bell's height times the bin's width: in narrow bells take the "
        "area instead",
        "width": "the bins are 2/(K-1) wide, not 2/K: level 0 stands at -1 and level K-1 at +1",
        "edges": "black and white also take what lies beyond: replace s by 0 below the first "
        "and 1 above the last",
        "exchanged": "the edges are exchanged: level 0 takes the lower tail, level K-1 the "
        "upper one",
        "scale": "the scale is exp(log_scale), and distances are divided by it, not multiplied",
        "weights": "the mixture's weights are a softmax of the logits",
        "separate": "a component is drawn once per pixel: multiply its channels first, then mix",
        "mean": "the channels' probabilities multiply: their logarithms are summed, not averaged",
        "logs": "a mixture adds probabilities: the logarithm comes after the sum over components",
        "stable": "two numbers that round to the same were subtracted, or the result was "
        "clamped, and the "
        "gradient is gone: use s(b)·s(-a)·(1 - exp(a-b)) in logarithms",
        "bin": "the area over each bin, all channels of a component multiplied, then the "
        "weighted sum",
    },
    mutants=[
        Mutant(
            "density",
            "log_high + log_low + torch.where(top | bottom, 0.0, inner)",
            "torch.log(2 * half * inverse) + F.logsigmoid((centre - means) * inverse)"
            " + F.logsigmoid((means - centre) * inverse)",
        ),
        Mutant("width", "low, high =", "half = 1 / levels\n    low, high ="),
        Mutant("edges", "top, bottom = k == levels - 1, k == 0", "top = bottom = k < 0"),
        Mutant(
            "exchanged",
            "top, bottom = k == levels - 1, k == 0",
            "bottom, top = k == levels - 1, k == 0",
        ),
        Mutant("scale", "torch.exp(-log_scales)", "torch.exp(log_scales)"),
        Mutant("weights", "F.log_softmax(logits, -1)", "logits"),
        Mutant(
            "separate",
            "return torch.logsumexp(joint, -1)",
            "joint = F.log_softmax(logits, -1)[..., None] + log_p\n"
            "    return torch.logsumexp(joint, 1).sum(-1)",
        ),
        Mutant("mean", "log_p.sum(-1)", "log_p.mean(-1)"),
        Mutant(
            "logs", "torch.logsumexp(joint, -1)", "(F.softmax(logits, -1) * log_p.sum(-1)).sum(-1)"
        ),
        Mutant(
            "stable",
            source="""
import torch

def logistic_mixture(k, logits, means, log_scales, levels):
    k = k[:, None]
    centre, half = 2 * k / (levels - 1) - 1, 1 / (levels - 1)
    high = torch.sigmoid((centre + half - means) / log_scales.exp())
    low = torch.sigmoid((centre - half - means) / log_scales.exp())
    p = torch.where(k == levels - 1, 1.0, high) - torch.where(k == 0, 0.0, low)
    return (logits.softmax(-1) * p.prod(-1)).sum(-1).log()
""",
        ),
        Mutant(
            "stable",
            source="""
import torch

def logistic_mixture(k, logits, means, log_scales, levels):
    k = k[:, None]
    centre, half = 2 * k / (levels - 1) - 1, 1 / (levels - 1)
    high = torch.sigmoid((centre + half - means) / log_scales.exp())
    low = torch.sigmoid((centre - half - means) / log_scales.exp())
    p = torch.where(k == levels - 1, 1.0, high) - torch.where(k == 0, 0.0, low)
    log_p = p.clamp(min=1e-12).log()
    return torch.logsumexp(logits.log_softmax(-1) + log_p.sum(-1), -1)
""",
        ),
    ],
    rights=[
        """
import torch
from torch.nn.functional import softplus

def logistic_mixture(k, logits, means, log_scales, levels):
    scales = log_scales.exp()
    total = logits.log_softmax(1)
    for c in range(k.shape[1]):
        level = k[:, c, None]  # [n,1]
        value = 2 * level / (levels - 1) - 1
        b = (value + 1 / (levels - 1) - means[..., c]) / scales[..., c]
        a = (value - 1 / (levels - 1) - means[..., c]) / scales[..., c]
        middle = -softplus(-b) - softplus(a) + torch.log1p(-torch.exp(a - b))
        inside = torch.where(level == levels - 1, -softplus(a), middle)
        total = total + torch.where(level == 0, -softplus(-b), inside)
    return total.logsumexp(1)
""",
        """
import torch

def logistic_mixture(k, logits, means, log_scales, levels):
    # log(e^x - e^y) with x, y the logarithms of the two distribution functions; mirrored where
    # both are near 1, so that they are small numbers; float64 throughout
    mu, scale = means.double(), log_scales.double().exp()
    v, half = (2 * k / (levels - 1) - 1)[:, None].double(), 1 / (levels - 1)
    sign = torch.where(v > mu, -1.0, 1.0).double()
    upper = torch.where(v > mu, -(v - half - mu), v + half - mu) / scale
    lower = torch.where(v > mu, -(v + half - mu), v - half - mu) / scale
    x, y = torch.nn.functional.logsigmoid(upper), torch.nn.functional.logsigmoid(lower)
    last, first = (k == levels - 1)[:, None], (k == 0)[:, None]
    open_below = torch.where(sign > 0, first, last)  # the lower of the two edges is at infinity
    open_above = torch.where(sign > 0, last, first)
    x = torch.where(open_above, torch.zeros_like(x), x)
    gap = torch.where(open_below, torch.full_like(x, -1.0), y - x)
    log_p = torch.where(open_below, x, x + torch.log(-torch.expm1(gap)))
    joint = logits.double().log_softmax(-1) + log_p.sum(-1)
    return torch.logsumexp(joint, -1).float()
""",
    ],
    answer="logistic_mixture",
)
### END HIDDEN TESTS
