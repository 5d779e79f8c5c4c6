"""# Log-likelihood by the chain rule

A network has read a batch of images and returned all its predictions at once. At image $b$, channel
$c$, row $h$ and column $w$ it gives $K$ numbers, the *logits*; their softmax over the last axis is
$p(x_i \\mid x_{<i})$, the distribution over the $K$ levels of that one value, given all values
before it. The chain rule makes the image's probability of them,

$$
\\log p(x) = \\sum_{i=1}^{D} \\log p(x_i \\mid x_{<i}), \\qquad D = C \\cdot H \\cdot W .
$$

It is the loss of every autoregressive model of this course, so it must survive a model that is
badly wrong: where the true level has a probability like $e^{-400}$, the answer is a large negative
number, not minus infinity.

`logits` is float `[B, C, H, W, K]`, `x` is int64 `[B, C, H, W]` with levels $0, \\dots, K-1$.
Return $\\log p(x)$ in **nats** for each image, a float tensor of shape `[B]`. Raw logits are not
normalised: that is left to you.

*A check by hand*: if all logits are 0, each image has $\\log p(x) = -D \\ln K$.
"""

import torch.nn.functional as F
from torch import Tensor


def chain_rule(logits: Tensor, x: Tensor) -> Tensor:
    """logits [B,C,H,W,K], x int64[B,C,H,W] -> log p(x) in nats, [B]."""
    ### BEGIN SOLUTION
    log_p = F.log_softmax(logits, -1)  # [B,C,H,W,K]
    own = log_p.gather(-1, x[..., None])[..., 0]  # [B,C,H,W]
    return own.flatten(1).sum(1)
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def images(rng: Random, channels: int, scale: float) -> Step:
    """A call with random logits of the given size."""
    shape = (rng.whole(2, 4), channels, rng.whole(2, 4), rng.whole(4, 6))
    levels = rng.whole(3, 6)
    return call(scale * rng.normal(*shape, levels), rng.integers(0, levels, *shape))


def grey(rng: Random) -> Iterator[Step]:
    for _ in range(2):
        yield images(rng, 1, 1.5)


def colour(rng: Random) -> Iterator[Step]:
    yield images(rng, 3, 1.5)


def wrong_and_sure(rng: Random) -> Iterator[Step]:
    """Levels to which the model gives next to nothing: a float32 softmax is 0 there."""
    yield images(rng, 1, 200.0)
    yield images(rng, 1, 800.0)


EXERCISE = Exercise(
    difficulty=1,
    minutes=10,
    checks=[
        Check("log p of grey images", grey, points=2, hint="chain"),
        Check("log p of colour images", colour, points=1, hint="chain"),
        Check("finite where the model is sure and wrong", wrong_and_sure, points=1, hint="stable"),
    ],
    hints={
        "raw": "logits are no log-probabilities yet: normalise them over the levels first",
        "axis": "the softmax runs over the levels, the last axis, not over another one",
        "mean": "a product of D conditionals is a sum of D logarithms: this is their mean",
        "batch": "one number per image is asked for: sum over channels and pixels, not over the "
        "batch",
        "bits": "the answer is asked for in nats: no division by log 2",
        "sign": "this is −log p, the loss: a log-probability is negative",
        "likeliest": "take the probability of the level that x has, not of the likeliest level",
        "added": "probabilities of conditionals are multiplied: add up their logarithms",
        "stable": "the softmax became 0 before its logarithm was taken: there is a log_softmax",
        "chain": "at each value the log-softmax over levels, at the level of x; then the sum "
        "over C, H, W",
    },
    mutants=[
        Mutant("raw", "F.log_softmax(logits, -1)", "logits"),
        Mutant("axis", "F.log_softmax(logits, -1)", "F.log_softmax(logits, 1)"),
        Mutant("axis", "F.log_softmax(logits, -1)", "F.log_softmax(logits, 0)"),
        Mutant("mean", ".sum(1)", ".mean(1)"),
        Mutant("batch", "own.flatten(1).sum(1)", "own.sum()"),
        Mutant("bits", ".sum(1)", ".sum(1) / 0.6931471805599453"),
        Mutant("sign", "return own", "return -own"),
        Mutant("likeliest", "log_p.gather(-1, x[..., None])[..., 0]", "log_p.amax(-1)"),
        Mutant("added", "own.flatten(1).sum(1)", "own.exp().flatten(1).sum(1).log()"),
        Mutant("stable", "F.log_softmax(logits, -1)", "logits.softmax(-1).log()"),
        Mutant("stable", "F.log_softmax(logits, -1)", "(logits.softmax(-1) + 1e-12).log()"),
    ],
    rights=[
        """
import torch.nn.functional as F

def chain_rule(logits, x):
    losses = F.cross_entropy(logits.movedim(-1, 1), x, reduction="none")  # [B,C,H,W]
    return -losses.sum((1, 2, 3))
""",
        """
import torch

def chain_rule(logits, x):
    one_hot = torch.nn.functional.one_hot(x, logits.shape[-1]).to(logits.dtype)
    total = (logits * one_hot).sum(-1) - torch.logsumexp(logits, -1)
    return torch.stack([image.sum() for image in total])
""",
        """
import torch

def chain_rule(logits, x):
    flat = logits.reshape(-1, logits.shape[-1])
    flat = flat - flat.max(1, keepdim=True).values
    own = flat[torch.arange(len(flat)), x.reshape(-1)] - flat.exp().sum(1).log()
    return own.reshape(len(x), -1).sum(1)
""",
    ],
    answer="chain_rule",
    vary={"chain_rule": ["chain_rule", "log_likelihood", "log_prob_of_images"]},
)
### END HIDDEN TESTS
