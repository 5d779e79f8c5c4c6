"""# A cached row

A naive sampler runs the whole network for each pixel and throws away all but one place of it. But
an activation depends on earlier pixels only: once these are drawn it never changes. Keep what will
be read again, and a new pixel costs one place of arithmetic per layer.

`full_row` is the horizontal stack of a gated PixelCNN on one row of pixels, the whole row at once.
Its input is moved right by one place, so that place $c$ reads pixels before $c$. Each layer reads
its own place and the $k - 1$ to the left, hears from the vertical stack (`above`), passes a gate,
and adds its input where the widths agree. Read it until you can say what place $c$ of each layer
needs.

Write `step`, which does the same for **one place**. In:

- `left`, float `[n, C]`: the embedded pixel just before this place (zeros at the start of the row);
- `buffers`: a list with one tensor for each layer, `[n, cin, k - 1]`: this layer's **inputs** at
  the last $k - 1$ places, the oldest first, zeros where there was none. Its `cin` and `k` are those
  of the layer's weight;
- `above`: a list with one tensor for each layer, `[n, 2F]`: what `full_row` gets as `above`, at
  this place;
- `layers`: as for `full_row`.

Return a tuple: the stack's output at this place, `[n, F]`, and then the new buffers, one tensor for
each layer, of the shapes above: ready for the next place. So with three layers it has four entries.
Arguments stay as they are. No loop over places: the arithmetic is one place per layer.

*A check by hand*: begin with zero buffers, walk along a short row, and compare with `full_row`
place by place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Layer = tuple[Tensor, Tensor, Tensor]  # weight [2F,cin,k], bias [2F], out [F,F]


def full_row(x: Tensor, above: list[Tensor], layers: list[Layer]) -> Tensor:
    """x [n,C,W] embedded pixels, above L × [n,2F,W] -> [n,F,W]; place c knows x[..., :c]."""
    h = F.pad(x, (1, -1))  # right by one place
    for link, (weight, bias, out) in zip(above, layers, strict=True):
        cin, k = weight.shape[1:]
        both = F.conv1d(F.pad(h, (k - 1, 0)), weight, bias) + link  # [n,2F,W]
        a, b = both.chunk(2, 1)
        gated = out @ (torch.tanh(a) * torch.sigmoid(b))  # [n,F,W]
        h = h + gated if cin == len(out) else gated
    return h


def step(
    left: Tensor, buffers: list[Tensor], above: list[Tensor], layers: list[Layer]
) -> tuple[Tensor, ...]:
    """One place of the row: (output [n,F], new buffers [n,cin,k-1] …)."""
    ### BEGIN SOLUTION
    h, kept = left, []  # [n,cin]
    for buffer, link, (weight, bias, out) in zip(buffers, above, layers, strict=True):
        window = torch.cat([buffer, h[..., None]], -1)  # [n,cin,k]
        kept.append(window[..., 1:])
        both = window.flatten(1) @ weight.flatten(1).T + bias + link  # [n,2F]
        a, b = both.chunk(2, 1)
        gated = (torch.tanh(a) * torch.sigmoid(b)) @ out.T  # [n,F]
        h = h + gated if h.shape[1] == len(out) else gated
    return h, *kept
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def make(rng: Random, C: int, width: int, kernels: tuple[int, ...]) -> list[Layer]:
    """Random layers; the first reads C channels."""
    sizes = [C] + [width] * (len(kernels) - 1)
    return [
        (
            rng.normal(2 * width, cin, k) / (cin * k) ** 0.5,
            rng.normal(2 * width),
            rng.normal(width, width),
        )
        for cin, k in zip(sizes, kernels, strict=True)
    ]


def anything(
    rng: Random, n: int, C: int, width: int, kernels: tuple[int, ...], start: bool = False
) -> Step:
    """A step with random buffers (zero ones at the start of a row)."""
    layers = make(rng, C, width, kernels)
    keep = 0.0 if start else 1.0
    buffers = [keep * rng.normal(n, w.shape[1], w.shape[2] - 1) for w, _, _ in layers]
    above = [rng.normal(n, 2 * width) for _ in layers]
    return call(keep * rng.normal(n, C), buffers, above, layers)


def one_layer(rng: Random) -> Iterator[Step]:
    yield anything(rng, rng.whole(2, 4), 3, 2, (3,))
    yield anything(rng, rng.whole(1, 3), 2, 2, (2,))


def stack(rng: Random) -> Iterator[Step]:
    yield anything(rng, rng.whole(1, 3), 3, 2, (3, 2, 2))
    yield anything(rng, 1, 1, rng.whole(2, 4), (2, 3), start=True)


def in_a_row(rng: Random) -> Iterator[Step]:
    """The buffers as they are at a place of a real row, taken from the full pass."""
    n, C, width, W, kernels = 1, 1, 2, rng.whole(4, 6), (3, 2, 3)
    layers = make(rng, C, width, kernels)
    x = rng.normal(n, C, W)
    above = [rng.normal(n, 2 * width, W) for _ in layers]
    inputs = [F.pad(x, (1, -1))] + [full_row(x, above[:i], layers[:i]) for i in (1, 2)]
    for c in (1, W - 1):
        buffers = [
            F.pad(h, (k - 1, 0))[..., c : c + k - 1] for h, k in zip(inputs, kernels, strict=True)
        ]
        yield call(x[..., c - 1], buffers, [link[..., c] for link in above], layers)


EXERCISE = Exercise(
    difficulty=4,
    minutes=50,
    checks=[
        Check("one layer", one_layer, points=1, tolerance=1e-4, hint="place"),
        Check("a stack of layers", stack, points=2, tolerance=1e-4, hint="place"),
        Check(
            "along a row, equal to the full pass", in_a_row, points=2, tolerance=1e-4, hint="place"
        ),
    ],
    hints={
        "flipped": "a torch convolution does not turn its kernel: the last weight meets the "
        "newest place",
        "late": "the input at this place must be in the window before the layer computes, not "
        "after",
        "outputs": "a buffer keeps its layer's inputs: what a layer puts out is the next one's "
        "input",
        "newest_first": "the buffers are upside down: the oldest place comes first, the newest "
        "last",
        "stuck": "the buffers do not move: drop the oldest place and append this one",
        "halves": "the gate's halves are exchanged: tanh of the first, sigmoid of the second",
        "residual": "where the widths agree a layer adds its input to what it computed",
        "always": "the input is added only where its width is that of the output, as full_row does",
        "link": "the vertical stack's contribution is missing: add above to the convolution's "
        "output",
        "same_input": "every layer was given the pixel itself: a layer reads what the one "
        "before it put out",
        "place": "window = buffer and this place; one matrix product; gate; residual; new "
        "buffer = window "
        "without its oldest place",
    },
    mutants=[
        Mutant("flipped", "window.flatten(1)", "window.flip(-1).flatten(1)"),
        Mutant(
            "late",
            "both = window.flatten(1)",
            "window = torch.cat([torch.zeros_like(window[..., :1]), window[..., :-1]], -1)\n"
            "        both = window.flatten(1)",
        ),
        Mutant(
            "outputs",
            source="""
import torch

def step(left, buffers, above, layers):
    h, kept = left, []
    for buffer, link, (weight, bias, out) in zip(buffers, above, layers):
        window = torch.cat([buffer, h[..., None]], -1)
        a, b = (window.flatten(1) @ weight.flatten(1).T + bias + link).chunk(2, 1)
        gated = (torch.tanh(a) * torch.sigmoid(b)) @ out.T
        h = h + gated if h.shape[1] == len(out) else gated
        kept.append(torch.cat([buffer, h[..., None]], -1)[..., 1:] if h.shape[1] == buffer.shape[1]
                    else window[..., 1:])
    return h, *kept
""",
        ),
        Mutant(
            "newest_first", "kept.append(window[..., 1:])", "kept.append(window[..., 1:].flip(-1))"
        ),
        Mutant("stuck", "kept.append(window[..., 1:])", "kept.append(buffer)"),
        Mutant(
            "halves",
            "a, b = both.chunk(2, 1)\n        gated = (",
            "b, a = both.chunk(2, 1)\n        gated = (",
        ),
        Mutant("residual", "h = h + gated if h.shape[1] == len(out) else gated", "h = gated"),
        Mutant(
            "always",
            "h = h + gated if h.shape[1] == len(out) else gated",
            "h = gated + F.pad(h, (0, len(out) - h.shape[1]))",
        ),
        Mutant("link", " + bias + link", " + bias"),
        Mutant(
            "same_input",
            "torch.cat([buffer, h[..., None]], -1)",
            "torch.cat([buffer, F.pad(left, (0, buffer.shape[1] - left.shape[1]))[..., None]], -1)",
        ),
        Mutant(
            "input",
            "kept.append(window[..., 1:])",
            "buffer.copy_(window[..., 1:])\n        kept.append(buffer)",
        ),
    ],
    rights=[
        """
import torch
import torch.nn.functional as F

def step(left, buffers, above, layers):
    x, answer = left[:, :, None], []
    for i in range(len(layers)):
        weight, bias, out = layers[i]
        seen = torch.cat((buffers[i], x), 2)
        answer.append(seen.narrow(2, 1, seen.shape[2] - 1))
        y = F.conv1d(seen, weight, bias) + above[i].unsqueeze(2)
        half = y.shape[1] // 2
        y = torch.matmul(out, y[:, :half].tanh() * y[:, half:].sigmoid())
        x = y + x if y.shape == x.shape else y
    return (x.squeeze(2), *answer)
""",
        """
import torch

def step(left, buffers, above, layers):
    h, fresh = left, []
    for buffer, link, (weight, bias, out) in zip(buffers, above, layers):
        k, width = weight.shape[-1], len(out)
        total = link + bias + torch.einsum("oi,ni->no", weight[:, :, k - 1], h)
        for j in range(k - 1):
            total = total + torch.einsum("oi,ni->no", weight[:, :, j], buffer[:, :, j])
        gated = torch.tanh(total[:, :width]) / (1 + torch.exp(-total[:, width:]))
        moved = torch.roll(buffer, -1, 2)
        moved[:, :, -1] = h
        fresh.append(moved)
        put = torch.einsum("oi,ni->no", out, gated)
        h = put + h if h.shape[1] == width else put
    return tuple([h] + fresh)
""",
    ],
    answer="step",
    vary={"step": ["step", "one_place", "advance"]},
)
### END HIDDEN TESTS
