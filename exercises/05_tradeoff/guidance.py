"""# Mend the guidance

A network that was trained with the label left out now and then answers two questions: what is the
noise in x, given that this is a 3, and what is it if nothing is known? Guidance goes from the
second answer in the direction of the first, and by a weight $w$ as far as one likes:

$$
\\hat\\varepsilon = \\hat\\varepsilon_\\varnothing
 + w\\,(\\hat\\varepsilon_y - \\hat\\varepsilon_\\varnothing) .
$$

So $w = 0$ forgets the label, $w = 1$ is the conditional network itself, and more than 1
exaggerates. At a level $(\\alpha, \\sigma)$ the clean image expected is
$\\hat x_0 = (x - \\sigma\\hat\\varepsilon)/\\alpha$. Pixels lie in $[-1, 1]$, so it is clipped to that;
and the noise that is returned must agree with it, $x = \\alpha\\hat x_0 + \\sigma\\hat\\varepsilon$.

The program below is meant to do this. Of a trained network it is observed that with $w = 1$ the
images are not the conditional network's, but ghosts: what most images share is missing. One fault
was found and mended, and $w = 1$ became right. Yet pixels that both answers put beyond white stayed
white at every weight, even where the label wants them darker. Find both faults.

`network(x, alpha, sigma, label)` returns $\\hat\\varepsilon$, float32 `[B, C, H, W]` like x; `label`
is int64 `[B]`, and −1 means no label. `level` is `(alpha, sigma)`, floats above 0; `weight` is a
float. Return the tuple (x̂₀, ε̂), both of x's shape; arguments stay as they are.

*By hand, before you run it*: with $w = 3$, a pixel is expected at 1.2 with the label and at 1.6
without. What should come out? What comes out of a program that clips each answer first?
And what if the two are 0.6 and 1.2?
"""

from collections.abc import Callable

import torch
from torch import Tensor


def network(x: Tensor, alpha: float, sigma: float, label: Tensor) -> Tensor:
    """The answer for classes that are N(m, 0.4²) with m = -0.9, 0.2, 0.8; N(0, 0.8²) if unknown."""
    mean = torch.tensor([-0.9, 0.2, 0.8, 0.0])[label].view(-1, 1, 1, 1)  # -1 is the last entry
    spread = torch.tensor([0.4, 0.4, 0.4, 0.8])[label].view(-1, 1, 1, 1)
    return sigma * (x - alpha * mean) / ((alpha * spread) ** 2 + sigma**2)


def guided(
    network: Callable[..., Tensor],
    x: Tensor,
    level: tuple[float, float],
    label: Tensor,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """The expected clean image and the noise, both [B, C, H, W], guided towards the labels [B]."""
    ### BEGIN SOLUTION
    alpha, sigma = level
    eps_label = network(x, alpha, sigma, label)
    eps_none = network(x, alpha, sigma, torch.full_like(label, -1))
    eps = eps_none + weight * (eps_label - eps_none)
    x0 = ((x - sigma * eps) / alpha).clamp(-1, 1)
    return x0, (x - alpha * x0) / sigma
    ### STARTER
    # alpha, sigma = level
    # eps_label = network(x, alpha, sigma, label)
    # eps_none = network(x, alpha, sigma, torch.full_like(label, -1))
    # x0_label = ((x - sigma * eps_label) / alpha).clamp(-1, 1)
    # x0_none = ((x - sigma * eps_none) / alpha).clamp(-1, 1)
    # x0 = (weight * (x0_label - x0_none)).clamp(-1, 1)
    # return x0, (x - alpha * x0) / sigma
    ### END SOLUTION


### BEGIN HIDDEN TESTS
import math
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def asked(rng: Random, loud: float, weight: float, low: float, high: float) -> Step:
    """An image of each class, at a level between two angles."""
    angle = rng.number(low, high)
    label = torch.arange(3).roll(rng.whole(0, 3))
    x = loud * rng.normal(3, rng.whole(1, 3), 2, rng.whole(2, 4))
    return call(Ref("network"), x, (math.cos(angle), math.sin(angle)), label, weight)


def plain(rng: Random) -> Iterator[Step]:
    """w = 1 and w = 0, where little is clipped."""
    for weight in (1.0, 0.0):
        yield asked(rng, 0.8, weight, 0.6, 0.9)


def between(rng: Random) -> Iterator[Step]:
    """Nothing lies beyond [-1, 1]: the sum alone."""
    yield asked(rng, 0.2, rng.number(1.5, 2), 0.9, 1.1)


def strong(rng: Random) -> Iterator[Step]:
    """Both answers often beyond 1, and weights that exaggerate."""
    for _ in range(2):
        yield asked(rng, 3.0, rng.number(2.5, 6), 0.8, 1.1)


EXERCISE = Exercise(
    difficulty=1,
    minutes=15,
    checks=[
        Check(
            "w = 1 is the conditional network, w = 0 the other", plain, tolerance=1e-4, hint="sum"
        ),
        Check("weights above 1", between, tolerance=1e-4, hint="sum"),
        Check("answers beyond [-1, 1]", strong, points=2, tolerance=1e-4, hint="late"),
    ],
    hints={
        "bare": "the difference alone is no image: it must be added to the answer without a label",
        "early": "clipping the two answers before the sum cuts off what tells them apart: form the "
        "sum first, then clip once",
        "both": "two faults at once: the bare difference, and clipping before the sum",
        "convention": "this starts from the conditional answer, so that w = 0 would be the "
        "conditional network: here w = 1 is",
        "reversed": "the direction is from no label to the label, not back",
        "open": "the guided image leaves [-1, 1], large weights burn it: clip after the sum",
        "noise": "eps belongs to the image before clipping: make it again from x and the clipped "
        "image",
        "clip_noise": "it is the image that lies in [-1, 1]; the noise is not to be clipped",
        "no_label": "no label is −1; any other number is a class of its own",
        "late": "sum of the two unclipped answers, then x0, then one clip, then eps from x and x0",
        "sum": "eps = eps_none + w·(eps_label − eps_none)",
    },
    mutants=[
        Mutant("bare", "eps = eps_none + weight *", "eps = weight *"),
        Mutant(
            "bare",
            source="""
import torch

def guided(network, x, level, label, weight):
    alpha, sigma = level
    with_label = (x - sigma * network(x, alpha, sigma, label)) / alpha
    without = (x - sigma * network(x, alpha, sigma, torch.full_like(label, -1))) / alpha
    x0 = (weight * (with_label - without)).clamp(-1, 1)
    return x0, (x - alpha * x0) / sigma
""",
        ),
        Mutant(
            "both",
            source="""
import torch

def guided(network, x, level, label, weight):
    alpha, sigma = level
    c = ((x - sigma * network(x, alpha, sigma, label)) / alpha).clamp(-1, 1)
    u = ((x - sigma * network(x, alpha, sigma, torch.full_like(label, -1))) / alpha).clamp(-1, 1)
    x0 = (weight * (c - u)).clamp(-1, 1)
    return x0, (x - alpha * x0) / sigma
""",
        ),
        Mutant(
            "early",
            source="""
import torch

def guided(network, x, level, label, weight):
    alpha, sigma = level
    c = ((x - sigma * network(x, alpha, sigma, label)) / alpha).clamp(-1, 1)
    u = ((x - sigma * network(x, alpha, sigma, torch.full_like(label, -1))) / alpha).clamp(-1, 1)
    x0 = (u + weight * (c - u)).clamp(-1, 1)
    return x0, (x - alpha * x0) / sigma
""",
        ),
        Mutant(
            "early",
            source="""
import torch

def guided(network, x, level, label, weight):
    alpha, sigma = level
    c = ((x - sigma * network(x, alpha, sigma, label)) / alpha).clamp(-1, 1)
    u = ((x - sigma * network(x, alpha, sigma, torch.full_like(label, -1))) / alpha).clamp(-1, 1)
    x0 = u + weight * (c - u)
    return x0, (x - alpha * x0) / sigma
""",
        ),
        Mutant("convention", "eps_none + weight *", "eps_label + weight *"),
        Mutant("reversed", "(eps_label - eps_none)", "(eps_none - eps_label)"),
        Mutant("open", ".clamp(-1, 1)", ""),
        Mutant("noise", "return x0, (x - alpha * x0) / sigma", "return x0, eps"),
        Mutant(
            "clip_noise",
            "return x0, (x - alpha * x0) / sigma",
            "return x0, ((x - alpha * x0) / sigma).clamp(-1, 1)",
        ),
        Mutant("no_label", "torch.full_like(label, -1)", "torch.zeros_like(label)"),
    ],
    rights=[
        """
import torch

def guided(network, x, level, label, weight):
    alpha, sigma = level
    both = network(torch.cat([x, x]), alpha, sigma, torch.cat([label, 0 * label - 1]))
    given, free = ((torch.cat([x, x]) - sigma * both) / alpha).chunk(2)
    image = torch.lerp(free, given, weight).clip(-1, 1)
    return image, (x - alpha * image) / sigma
""",
        """
import torch

def guided(network, x, level, label, weight):
    alpha, sigma = level
    eps = (1 - weight) * network(x, alpha, sigma, torch.full(label.shape, -1))
    eps = eps + weight * network(x, alpha, sigma, label)
    # the image is in [-1, 1] exactly where the noise lies between these two
    low, high = (x - alpha) / sigma, (x + alpha) / sigma
    eps = torch.minimum(torch.maximum(eps, low), high)
    return (x - sigma * eps) / alpha, eps
""",
    ],
    answer="guided",
    vary={"guided": ["guided", "with_guidance", "steered"]},
)
### END HIDDEN TESTS
