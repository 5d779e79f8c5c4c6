"""# The receptive field, by gradients

A loss does not tell whether a network peeks, and a drawing of its layers is a promise. A gradient
is a proof: where there is no path from a pixel to an output, the derivative is exactly `0.0`, and
one backward pass finds all paths at once.

Write the function that makes such a map, as chapter 2 draws it layer by layer. `net` takes images,
float `[B, C, H, W]`, and returns features `[B, F, H, W]`. Which pixels does it read in order to
compute its features at the place (`row`, `column`)? Return bool `[H, W]`, True at a pixel if for
**any** of the images, **any** of the `F` output channels at that place has a derivative different
from zero in **any** of the `C` channels of the pixel.

Three things hide a path that is there. A ReLU that happens to be closed stops the gradient: that is
why several images are given, and a path found in one of them is a path. Derivatives of two outputs
may cancel if the outputs are added up before differentiating. And a derivative may be negative, or
as small as $10^{-15}$: a leak all the same. The images do not influence one another. Leave `images`
as they are.

Three small networks are given to try it with: `one_stack` has the blind spot of the first PixelCNN,
`two_stacks` has not, and `contrast` returns features that add up to nothing.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def weights(cout: int, cin: int, kh: int, kw: int) -> Tensor:
    """Fixed numbers of both signs; none is zero."""
    return torch.cos(1.9 * torch.arange(cout * cin * kh * kw) + 0.4).view(cout, cin, kh, kw)


def one_stack(x: Tensor) -> Tensor:
    """Two layers of masked 3×3, kind A and then B: [B,C,H,W] -> [B,2,H,W]."""
    before = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]])
    h = F.conv2d(x, weights(1, x.shape[1], 3, 3) * before, padding=1).relu()
    before[1, 1] = 1  # kind B
    return F.conv2d(h, weights(2, 1, 3, 3) * before, padding=1)


def two_stacks(x: Tensor) -> Tensor:
    """All rows above and everything to the left, the farther the fainter: -> [B,1,H,W]."""
    H, W = x.shape[2:]
    row, column = torch.arange(H * W) // W, torch.arange(H * W) % W
    distance = (row[:, None] - row).abs() + (column[:, None] - column).abs()  # [HW,HW]
    faint = ((-0.01) ** distance).tril(-1)  # row i: what pixel i hears of each earlier one
    return (x.mean(1).flatten(1) @ faint.T).view(-1, 1, H, W).tanh()


def contrast(x: Tensor) -> Tensor:
    """A leaky net: sees right and below. Its two features are opposite: [B,C,H,W] -> [B,2,H,W]."""
    h = F.conv2d(F.pad(x[:, -1:], (0, 2, 0, 1)), weights(1, 1, 2, 3))
    return torch.cat([h, -h], 1)


def receptive_field(
    net: Callable[[Tensor], Tensor], images: Tensor, row: int, column: int
) -> Tensor:
    """Which pixels the features at (row, column) depend on: bool [H,W]."""
    ### BEGIN SOLUTION
    x = images.clone().requires_grad_()
    features = net(x)[:, :, row, column]  # [B,F]
    seen = torch.zeros(images.shape[2:], dtype=torch.bool)
    for feature in features.T:  # one by one: added up, they might cancel
        (slope,) = torch.autograd.grad(feature.sum(), x, retain_graph=True)  # [B,C,H,W]
        seen |= (slope != 0).any(0).any(0)
    return seen
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def masked(rng: Random) -> Iterator[Step]:
    """One stack on several images; both sides of the blind spot are in the picture."""
    for channels in (1, 3):
        H, W = rng.whole(5, 7), rng.whole(7, 9)
        images = rng.normal(rng.whole(4, 6), channels, H, W)
        yield call(Ref("one_stack"), images, rng.whole(3, 5), rng.whole(2, 5))


def faint(rng: Random) -> Iterator[Step]:
    """Every earlier pixel, most of them at 1e-10 or less."""
    for channels in (1, 2):
        H, W = rng.whole(4, 6), rng.whole(6, 8)
        yield call(
            Ref("two_stacks"), rng.normal(2, channels, H, W), rng.whole(2, 4), rng.whole(1, 5)
        )


def opposite(rng: Random) -> Iterator[Step]:
    for channels in (1, 3):
        H, W = rng.whole(4, 6), rng.whole(5, 8)
        yield call(Ref("contrast"), rng.normal(2, channels, H, W), rng.whole(0, 3), rng.whole(1, 3))


EXERCISE = Exercise(
    difficulty=3,
    minutes=30,
    checks=[
        Check("the field of a masked stack", masked, points=2, hint="any"),
        Check("faint dependence is dependence", faint, points=1, hint="faint"),
        Check(
            "outputs that would cancel; a leak below and to the right",
            opposite,
            points=1,
            hint="any",
        ),
    ],
    hints={
        "positive": "a derivative may be negative: a path is there wherever it is not zero",
        "cancel": "the output channels were added up first, and their derivatives cancel: take "
        "one at a time",
        "first": "a closed ReLU hides its paths in one image: look at all of them",
        "threshold": "no threshold: where there is no path the gradient is exactly 0.0, and "
        "1e-12 is a leak",
        "turned": "row and column are exchanged",
        "everything": "the sum over all places was differentiated: take the features at (row, "
        "column) only",
        "channel": "look at all channels of the pixel, not only at the first",
        "all": "any output, any channel, any image: one path is enough, they need not all be there",
        "reverse": "this is where the pixel's influence goes; asked is what the output there "
        "depends on",
        "faint": "compare with exactly zero, and let no thresholds or roundings in between",
        "any": "the derivative of each feature at (row, column) in all inputs; True where any "
        "is not 0",
    },
    mutants=[
        Mutant("positive", "(slope != 0)", "(slope > 0)"),
        Mutant("cancel", "in features.T:", "in features.sum(1, keepdim=True).T:"),
        Mutant("first", "(slope != 0).any(0).any(0)", "(slope[0] != 0).any(0)"),
        Mutant("threshold", "(slope != 0)", "(slope.abs() > 1e-6)"),
        Mutant("turned", "[:, :, row, column]", "[:, :, column, row]"),
        Mutant("everything", "net(x)[:, :, row, column]", "net(x).flatten(2).sum(2)"),
        Mutant("channel", "(slope != 0).any(0).any(0)", "(slope[:, 0] != 0).any(0)"),
        Mutant("all", "(slope != 0).any(0).any(0)", "(slope != 0).all(0).all(0)"),
        Mutant(
            "reverse",
            source="""
import torch

def receptive_field(net, images, row, column):
    x = images.clone().requires_grad_()
    out = net(x)
    seen = torch.zeros(out.shape[2:], dtype=torch.bool)
    for r in range(out.shape[2]):
        for c in range(out.shape[3]):
            for f in range(out.shape[1]):
                (slope,) = torch.autograd.grad(out[:, f, r, c].sum(), x, retain_graph=True)
                seen[r, c] |= (slope[:, :, row, column] != 0).any()
    return seen
""",
        ),
    ],
    rights=[
        """
import torch

def receptive_field(net, images, row, column):
    jacobian = torch.autograd.functional.jacobian(
        lambda x: net(x)[:, :, row, column].sum(0), images
    )  # [F,B,C,H,W]
    return jacobian.abs().amax((0, 1, 2)) > 0
""",
        """
import torch

def receptive_field(net, images, row, column):
    found = []
    for image in images:
        x = image[None].clone().requires_grad_()
        for feature in net(x)[0, :, row, column].unbind():
            x.grad = None
            feature.backward(retain_graph=True)
            found.append((x.grad != 0).flatten(0, 1).any(0))
    return torch.stack(found).any(0)
""",
    ],
    answer="receptive_field",
)
### END HIDDEN TESTS
