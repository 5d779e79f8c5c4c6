"""# Masks, in grey and in colour

A masked convolution multiplies its kernel by zeros and ones before use. This function makes them.
Let the kernel have $k_h$ rows and $k_w$ columns, both odd, and its *centre* at the pixel that is
predicted. What comes before it in raster order is open for all channels: every row above, and in
the centre's own row what is to the left. What comes after it is closed.

At the centre itself kind and colour decide. With `colours = 1` kind `"A"` closes it and `"B"` opens
it. With `colours = 3` the values of a pixel are drawn in the order R, G, B, and the channels of a
layer fall into three **blocks** of equal size: with six channels the first two belong to R, the
next two to G, the last two to B. Let $g(\\cdot)$ be the number of a channel's block. An output
channel $o$ may read an entering channel $e$ at the centre if

$$
g(o) > g(e) \\;\\text{ for kind A}, \\qquad g(o) \\ge g(e) \\;\\text{ for kind B}.
$$

Kind A reads the values themselves and opens a network; kind B reads what A layers have made of
them. The first PixelCNN ordered its colours so; a wrong entry in this table is a leak that no grey
image shows.

Return the mask, a float tensor `[cout, cin, kh, kw]` of zeros and ones, laid out like the weight of
`nn.Conv2d`. `kernel` is `(kh, kw)`. `cin` and `cout` are multiples of `colours`, and need not be
equal. A kernel of 1×1 is allowed.
"""

import torch
from torch import Tensor


def colour_mask(
    cin: int, cout: int, kernel: tuple[int, int], kind: str, colours: int = 1
) -> Tensor:
    """Zeros and ones, float [cout,cin,kh,kw]."""
    ### BEGIN SOLUTION
    kh, kw = kernel
    mask = torch.zeros(cout, cin, kh, kw)
    mask[:, :, : kh // 2] = 1  # the rows above
    mask[:, :, kh // 2, : kw // 2] = 1  # to the left
    into = torch.arange(cout) // (cout // colours)  # [cout], block of each output channel
    come = torch.arange(cin) // (cin // colours)  # [cin]
    sees = into[:, None] > come if kind == "A" else into[:, None] >= come  # [cout,cin]
    mask[:, :, kh // 2, kw // 2] = sees.float()
    return mask
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def grey(rng: Random) -> Iterator[Step]:
    for kind, kernel in (("A", (3, 5)), ("B", (5, 3)), ("A", (3, 3)), ("B", (3, 3))):
        yield call(rng.whole(1, 3), rng.whole(1, 4), kernel, kind)


def colour(rng: Random) -> Iterator[Step]:
    yield call(3, 6, (3, 3), "A", colours=3)
    yield call(6, 3, (1, 3), "B", colours=3)
    yield call(6, 6, (3, 1), "B", colours=3)
    yield call(2 * rng.whole(1, 3), 4, (1, 3), "A", colours=2)


def pointwise(rng: Random) -> Iterator[Step]:
    """1×1: the centre is all there is."""
    for kind in ("A", "B"):
        yield call(6, 3 * rng.whole(1, 3), (1, 1), kind, colours=3)
        yield call(rng.whole(1, 4), rng.whole(1, 4), (1, 1), kind)


EXERCISE = Exercise(
    difficulty=2,
    minutes=15,
    checks=[
        Check("grey masks, kinds A and B", grey, points=2, hint="before"),
        Check("colour masks: who reads whom at the centre", colour, points=2, hint="centre"),
        Check("kernels of 1×1", pointwise, points=1, hint="centre"),
    ],
    hints={
        "swapped": "A and B are exchanged: A is the first layer's, it must not see the value it "
        "predicts",
        "later": "the pixels to the right of the centre are open: they are not drawn yet",
        "columns": "rows and columns are exchanged: raster order goes along rows",
        "table": "the table at the centre is transposed: weights are [cout, cin], and G reads "
        "R, not R G",
        "interleaved": "channels belong to colours in blocks (R R G G B B), not in turn (R G B "
        "R G B)",
        "everywhere": "the table of colours holds at the centre only: what lies before it is "
        "open for all channels",
        "grey": "with colours=3 the centre is not all or nothing: it is a table of blocks",
        "always_a": "kind B opens the centre to a channel's own block; strictly less is kind A",
        "before": "1 for all rows above the centre, and in its row to the left of it; the rest "
        "is 0",
        "centre": "at the centre compare the blocks of cout and cin: > for kind A, >= for kind B",
    },
    mutants=[
        Mutant("swapped", 'kind == "A"', 'kind == "B"'),
        Mutant("later", "kh // 2, : kw // 2] = 1", "kh // 2] = 1"),
        Mutant(
            "columns",
            "mask[:, :, : kh // 2] = 1  # the rows above\n    mask[:, :, kh // 2, : kw // 2] = 1",
            "mask[..., : kw // 2] = 1\n    mask[:, :, : kh // 2, kw // 2] = 1",
        ),
        Mutant(
            "table",
            'into[:, None] > come if kind == "A" else into[:, None] >= come',
            'into[:, None] < come if kind == "A" else into[:, None] <= come',
        ),
        Mutant(
            "interleaved",
            source="""
import torch

def colour_mask(cin, cout, kernel, kind, colours=1):
    kh, kw = kernel
    mask = torch.zeros(cout, cin, kh, kw)
    mask[:, :, : kh // 2] = 1
    mask[:, :, kh // 2, : kw // 2] = 1
    for o in range(cout):
        for e in range(cin):
            a, b = o % colours, e % colours
            mask[o, e, kh // 2, kw // 2] = float(a > b if kind == "A" else a >= b)
    return mask
""",
        ),
        Mutant("everywhere", "return mask", "return mask * sees.float()[:, :, None, None]"),
        Mutant("grey", "= sees.float()", '= float(kind == "B")'),
        Mutant("always_a", 'if kind == "A" else into[:, None] >= come', ""),
    ],
    rights=[
        """
import torch

def colour_mask(cin, cout, kernel, kind, colours=1):
    kh, kw = kernel
    rank = torch.arange(kh * kw).view(kh, kw) - (kh // 2 * kw + kw // 2)  # 0 at the centre
    o = (torch.arange(cout) * colours // cout).view(-1, 1, 1, 1)
    e = (torch.arange(cin) * colours // cin).view(1, -1, 1, 1)
    least = 1 if kind == "A" else 0
    return ((rank < 0) | ((rank == 0) & (o - e >= least))).float()
""",
        """
import torch

def colour_mask(cin, cout, kernel, kind, colours=1):
    kh, kw = kernel
    grid = torch.zeros(kh * kw)
    grid[: kh * kw // 2] = 1
    mask = grid.repeat(cout * cin).view(cout, cin, kh, kw)
    blocks = torch.ones(colours, colours).tril(-1 if kind == "A" else 0)
    centre = blocks.repeat_interleave(cout // colours, 0).repeat_interleave(cin // colours, 1)
    mask[:, :, kh // 2, kw // 2] = centre
    return mask
""",
    ],
    answer="colour_mask",
    vary={"colour_mask": ["colour_mask", "causal_mask", "kernel_mask"]},
)
### END HIDDEN TESTS
