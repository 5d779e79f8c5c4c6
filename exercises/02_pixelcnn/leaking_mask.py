"""# Mend a leaking mask

A masked convolution may look at the pixels that come **before** its own in raster order: all rows
above, and in its own row what stands to the left. Kind `"A"` does not see its own pixel either;
kind `"B"` does.

The layer below trains to a wonderful 0.9 bits/dim, and what it draws is noise: it looks at pixels
that have not been drawn yet. Find the leak and mend it. Leave the rest: the constructor's
arguments, the parameters `weight` of shape `[cout, cin, kernel, kernel]` and `bias` of shape
`[cout]`, and that `forward` takes and returns `[B, C, H, W]` with the same height and width.
`kernel` is odd. The mask is the same for all pairs of channels, and the stored `weight` must stay
as it is: masking happens in `forward`.

*Before you run the check*: in which row of the kernel is the leak, and which single weight does
kind decide about?
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv2d(nn.Module):
    """A convolution that sees earlier pixels only: [B, cin, H, W] -> [B, cout, H, W]."""

    def __init__(self, cin: int, cout: int, kernel: int, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel) / kernel)
        self.bias = nn.Parameter(torch.zeros(cout))
        ### BEGIN SOLUTION
        middle = kernel // 2
        mask = torch.zeros(kernel, kernel)
        mask[:middle] = 1  # rows above
        mask[middle, :middle] = 1  # the same row, to the left
        if kind == "B":
            mask[middle, middle] = 1
        ### STARTER
        # middle = kernel // 2
        # mask = torch.zeros(kernel, kernel)
        # mask[: middle + 1] = 1
        # if kind == "A":
        #     mask[middle, middle] = 0
        ### END SOLUTION
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.weight.shape[-1] // 2)


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import (
    Check,
    Exercise,
    Mutant,
    Random,
    Step,
    build,
    forward,
    gradient,
    load,
)


def layers(rng: Random) -> Iterator[tuple[list[Step], Tensor, int]]:
    """Layers of both kinds with parameters, an input, and cout."""
    for kind, kernel in (("A", 3), ("B", 3), ("A", 5), ("B", 5)):
        cin, cout = rng.whole(1, 3), rng.whole(1, 3)
        weight, bias = rng.normal(cout, cin, kernel, kernel), rng.normal(cout)
        x = rng.normal(1, cin, rng.whole(3, 5), rng.whole(4, 6))
        yield [build(cin, cout, kernel, kind), load(weight=weight, bias=bias)], x, cout


def outputs(rng: Random) -> Iterator[list[Step]]:
    for made, x, _ in layers(rng):
        yield [*made, forward(x)]


def reach(rng: Random) -> Iterator[list[Step]]:
    """What the output at one pixel depends on: its gradient in the input."""
    for made, x, cout in layers(rng):
        along = torch.zeros(1, cout, *x.shape[2:])
        along[0, :, rng.whole(1, 3), rng.whole(1, 3)] = 1
        yield [*made, gradient(x, along=along)]


EXERCISE = Exercise(
    difficulty=2,
    minutes=20,
    checks=[
        Check("outputs for given weights, kinds A and B", outputs, points=1, hint="mask"),
        Check("no output depends on a later pixel", reach, points=2, hint="mask"),
    ],
    hints={
        "leak": "pixels to the right in the same row are still seen: they are not drawn yet",
        "swapped": "A and B are exchanged: A is the first layer's, and must not see its own pixel",
        "own": "the pixel itself is seen in kind A too: its model would copy its answer",
        "blind": "the pixel itself is hidden in kind B too: B may see what A has already shifted",
        "columns": "rows and columns are exchanged: raster order goes along rows",
        "above": "the rows above are missing: only the pixels to the left are seen",
        "below": "the mask is upside down: later rows are seen, earlier ones hidden",
        "mask": "1 for every row above, and in the middle row left of the middle; B adds the "
        "middle",
    },
    mutants=[
        Mutant(
            "leak",
            "mask[middle, :middle] = 1 ",
            "mask[middle, middle + 1 :] = 1; mask[middle, :middle] = 1 ",
        ),
        Mutant("swapped", 'if kind == "B"', 'if kind == "A"'),
        Mutant("own", 'if kind == "B"', "if True"),
        Mutant("blind", 'if kind == "B"', "if False"),
        Mutant(
            "columns", 'self.register_buffer("mask", mask,', 'self.register_buffer("mask", mask.T,'
        ),
        Mutant("above", "mask[:middle] = 1 ", "mask[:0] = 1 "),
        Mutant(
            "below",
            'self.register_buffer("mask", mask,',
            'self.register_buffer("mask", mask.flip(0),',
        ),
    ],
    rights=[
        """
import torch
import torch.nn.functional as F
from torch import nn

class CausalConv2d(nn.Module):
    def __init__(self, cin, cout, kernel, kind):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(cout, cin, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(cout))
        rank = torch.arange(kernel * kernel).view(kernel, kernel)
        own = kernel * kernel // 2
        self.seen = rank < own if kind == "A" else rank <= own

    def forward(self, x):
        kernel = self.weight.where(self.seen, torch.zeros(()))
        return F.conv2d(x, kernel, self.bias, padding="same")
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class CausalConv2d(nn.Module):
    def __init__(self, cin, cout, kernel, kind):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(cout))
        mask = torch.ones(kernel, kernel).flatten()
        mask[kernel**2 // 2 + (kind == "B") :] = 0
        self.register_buffer("mask", mask.view(kernel, kernel))  # part of the state: it may be

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.mask.shape[0] // 2)
""",
        """
import torch
from torch import nn

class CausalConv2d(nn.Conv2d):
    def __init__(self, cin, cout, kernel, kind):
        super().__init__(cin, cout, kernel, padding=kernel // 2)
        self.kind = kind

    def forward(self, x):
        p = self.padding[0]
        padded = torch.nn.functional.pad(x, (p, p, p, p))
        out = self.bias.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])
        for r in range(p + 1):
            for c in range(2 * p + 1):
                if r < p or c < p or (c == p and self.kind == "B"):
                    part = padded[:, :, r : r + x.shape[2], c : c + x.shape[3]]
                    out = out + torch.einsum("oi,bihw->bohw", self.weight[:, :, r, c], part)
        return out
""",
    ],
    answer="CausalConv2d",
)
### END HIDDEN TESTS
