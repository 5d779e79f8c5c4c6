"""# From numbers to grey levels

A diffusion model ends with real numbers, and a picture has $K$ levels. Turn each number $v$ into
the nearest level,

$$
k = \\operatorname{round}\\!\\left(\\frac{v + 1}{2}\\,(K - 1)\\right),
$$

so that $-1$ becomes level 0 and $1$ becomes level $K - 1$. A sampler overshoots a little: what lies
below $-1$ becomes level 0, and what lies above $1$ becomes level $K - 1$.

`x` is a float tensor of any shape, `levels` is $K$. Return an int64 tensor of the same shape.
"""

import torch
from torch import Tensor


def to_levels(x: Tensor, levels: int) -> Tensor:
    """x in about [-1, 1] -> the nearest level, int64, 0 to levels - 1."""
    ### BEGIN SOLUTION
    scaled = (x + 1) / 2 * (levels - 1)
    return scaled.round().clamp(0, levels - 1).to(torch.int64)
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def images(rng: Random) -> Iterator[Step]:
    """Grey and colour, few levels and many."""
    for channels, levels in ((1, 17), (3, 256)):
        yield call(rng.uniform(-1, 1, 2, channels, rng.whole(2, 4), rng.whole(4, 6)), levels)


def overshoot(rng: Random) -> Iterator[Step]:
    """Numbers on both sides of the range."""
    yield call(rng.uniform(-1.5, 1.5, rng.whole(20, 30)), rng.whole(5, 9))


EXERCISE = Exercise(
    difficulty=1,
    minutes=5,
    checks=[
        Check("the nearest level", images, points=2, hint="nearest"),
        Check("what lies outside of [-1, 1]", overshoot, points=1, hint="outside"),
    ],
    hints={
        "nearest": "shift by 1, halve, multiply by K - 1, and round",
        "outside": "bring what lies outside of the range to the first and the last level",
        "floor": "a conversion to whole numbers cuts off: round first, or every level is too dark",
        "count": "K levels have K - 1 steps between them: 1 becomes level K - 1, not K",
        "shift": "the range is [-1, 1], not [0, 1]: add 1 and halve",
        "wrapped": "levels do not go round in a circle: clamp, do not take the remainder",
    },
    mutants=[
        Mutant("outside", ".clamp(0, levels - 1)", ""),
        Mutant("floor", ".round()", ""),
        Mutant("count", "/ 2 * (levels - 1)", "/ 2 * levels"),
        Mutant("shift", "(x + 1) / 2", "x"),
        Mutant("wrapped", ".clamp(0, levels - 1)", ".remainder(levels)"),
        Mutant("dtype", ".to(torch.int64)", ""),
        Mutant("input", "(x + 1) / 2", "x.add_(1) / 2"),
    ],
    rights=[
        """
def to_levels(x, levels):
    steps = levels - 1
    return ((x.clamp(-1, 1) + 1) * steps / 2 + 0.5).floor().long()
""",
        """
import torch

def to_levels(x, levels):
    own = torch.linspace(-1, 1, levels)
    return (x[..., None] - own).abs().argmin(-1)
""",
    ],
)
### END HIDDEN TESTS
