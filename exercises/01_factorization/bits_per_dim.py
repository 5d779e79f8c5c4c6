"""# Bits per dimension

A model gives each image of a batch a log-probability in **nats** (natural logarithm). Turn them
into **bits per dimension**,

$$
b = -\\frac{\\ln p(x)}{D \\ln 2}, \\qquad D = C \\cdot H \\cdot W,
$$

one number per image. A model that knows nothing about an image with $K$ levels, and spreads its
probability evenly, pays $\\log_2 K$.

`log_prob` is a float tensor of shape `[B]`, `shape` is `(C, H, W)`. Return a float tensor of shape
`[B]`.
"""

import math

from torch import Tensor


def bits_per_dim(log_prob: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """log_prob[B] in nats -> [B] in bits per dimension."""
    ### BEGIN SOLUTION
    return -log_prob / (math.prod(shape) * math.log(2))
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

import torch

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def batches(rng: Random) -> Iterator[Step]:
    """Images of several sizes, colour among them."""
    for channels in (1, 3, 1):
        shape = (channels, rng.whole(2, 7), rng.whole(7, 12))
        yield call(-rng.uniform(1, 400, rng.whole(2, 6)), shape)


def uniform(rng: Random) -> Iterator[Step]:
    """A model that knows nothing: log p = −D ln K."""
    for levels in (2, 17, 256):
        shape = (rng.whole(1, 4), rng.whole(2, 6), rng.whole(2, 6))
        yield call(torch.full((rng.whole(1, 4),), -math.prod(shape) * math.log(levels)), shape)


def large(rng: Random) -> Iterator[Step]:
    """Whole photographs: exp(log p) is 0 in any floating point."""
    shape = (3, rng.whole(40, 60), rng.whole(60, 80))
    yield call(-rng.uniform(20_000, 60_000, rng.whole(2, 5)), shape)


EXERCISE = Exercise(
    difficulty=1,
    minutes=5,
    checks=[
        Check("bits/dim of a batch, grey and colour", batches, points=2, hint="definition"),
        Check("a uniform model pays log2 K", uniform, points=1, hint="definition"),
        Check("a large image, whose probability no float can hold", large, points=1, hint="exp"),
    ],
    hints={
        "nats": "divide by log 2 as well: these are nats per dimension, not bits",
        "sign": "a log-probability is negative, a code length is positive: the sign is missing",
        "whole": "these are bits for the whole image: divide by the number of dimensions",
        "channels": "D counts every channel of every pixel: C·H·W, not H·W",
        "mean": "one number per image is asked for: do not average over the batch",
        "log_base": "nats become bits by dividing by log 2, not by multiplying with it",
        "exp": "stay with logarithms: exp of a log-probability this low is 0",
        "definition": "bits/dim is −log p / (D · log 2), with D = C·H·W",
    },
    mutants=[
        Mutant("nats", " * math.log(2))", ")"),
        Mutant("sign", "-log_prob", "log_prob"),
        Mutant("whole", "(math.prod(shape) * math.log(2))", "math.log(2)"),
        Mutant("channels", "math.prod(shape)", "math.prod(shape[1:])"),
        Mutant("mean", "-log_prob /", "-log_prob.mean() /"),
        Mutant("log_base", "(math.prod(shape) * math.log(2))", "math.prod(shape) * math.log(2)"),
        Mutant("input", "-log_prob /", "log_prob.neg_() /"),
    ],
    rights=[
        """
import math

import torch

def bits_per_dim(log_prob, shape):
    channels, height, width = shape
    return -log_prob * torch.log2(torch.tensor(math.e)) / (channels * height * width)
""",
        """
import numpy as np

def bits_per_dim(log_prob, shape):
    result = log_prob.clone()
    for i, value in enumerate(log_prob):
        result[i] = -value.item() / np.log(2.0) / np.prod(shape)
    return result
""",
    ],
    answer="bits_per_dim",
    vary={"bits_per_dim": ["bits_per_dim", "bits_per_pixel", "code_length"]},
)
### END HIDDEN TESTS
