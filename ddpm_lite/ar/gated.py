"""The gated PixelCNN (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN
Decoders"), read twice: `features` for a whole image at once, `features_at` pixel by pixel.

Two stacks remove the blind spot. The vertical one sees every row above; the horizontal one sees the
pixels to the left in its own row, and is told of the rows above through a 1×1 link. Causality is in
two shifts at the very start: the vertical stack's input moves down by one row, the horizontal one's
right by one pixel. From there on a layer may read its own position, and no mask is needed: the
kernels have no weights below or to the right of their centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import require
from .base import Label, add_labels, make_labels
from .heads import LevelEmbedding, PixelModel, make_head
from .sampling import Cache


def gate(x: Tensor) -> Tensor:
    """tanh(first half of the channels) · sigmoid(second half); eq. 2 of the paper."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """One layer of both stacks: (v, h) -> (v, h, g); g [B,width,H,W] goes to the output.

    v [B,cin,H,W] at row r has seen rows above r; h at (r, c) rows above and columns left of c.
    """

    def __init__(
        self, cin: int, width: int, kernel: int, classes: int | None, dropout: float, last: bool
    ) -> None:
        super().__init__()
        self.pad = p = kernel // 2
        self.adds = cin == width  # the first layer's 8C features of levels carry no residual
        self.vertical = nn.Conv2d(cin, 2 * width, (p + 1, kernel))
        self.horizontal = nn.Conv2d(cin, 2 * width, (1, p + 1))
        self.link = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.residual = None if last else nn.Conv2d(width, width, 1, bias=False)
        self.labels_v = None if last else make_labels(classes, 2 * width)
        self.labels_h = make_labels(classes, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, v: Tensor, h: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        p = self.pad
        below = self.vertical(F.pad(self.dropout(v), (p, p, p, 0)))  # [B,2W,H,W]
        beside = self.horizontal(F.pad(self.dropout(h), (p, 0, 0, 0))) + self.link(below)
        g = gate(add_labels(beside, self.labels_h, y))  # [B,W,H,W]
        if self.residual is None or self.labels_v is None:  # the last layer: only g is read
            return v, h, g
        out = self.residual(g)
        v = gate(add_labels(below, self.labels_v, y))
        return v, h + out if self.adds else out, g


class GatedPixelCNN(PixelModel):
    """`layers` gated layers of `width` channels under a head ("categorical" or "logistic").

    The first kernel is 5 wide (7 on images larger than 16), the others 3. Dropout sits inside the
    branches, before the convolutions: on the residual stream it would compound over layers.

    With `positions` a learned map is added to the vertical stack's input, 8 numbers per value: a
    convolution alone does not know where it is, further than its kernels reach from an edge
    (Chen et al. 2018, "PixelSNAIL", give coordinates). The map starts at zero.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        width: int = 64,
        layers: int = 8,
        head: str = "categorical",
        classes: int | None = None,
        dropout: float = 0.0,
        positions: bool = False,
    ) -> None:
        arguments: dict[str, Any] = {"width": width, "layers": layers, "head": head}
        arguments |= {"classes": classes, "dropout": dropout, "positions": positions}
        require.flag("positions", positions)
        super().__init__(shape, levels, classes, arguments=arguments)
        C, H, W = self.shape
        self.embed = LevelEmbedding(levels)
        self.positions = nn.Parameter(torch.zeros(8 * C, H, W)) if positions else None
        first = 5 if max(H, W) <= 16 else 7
        self.layers = nn.ModuleList(
            GatedLayer(
                width if l else 8 * C, width, 3 if l else first, classes, dropout, l == layers - 1
            )
            for l in range(layers)
        )
        self.skip = nn.Conv2d(layers * width, width, 1)
        self.head = make_head(head, width, C, levels)

    def features(self, x: Tensor, y: Tensor | None) -> Tensor:
        e = self.embed(x).permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B,8C,H,W]
        v = F.pad(e, (0, 0, 1, -1))  # down by one row
        v = v if self.positions is None else v + self.positions
        h = F.pad(e, (1, -1, 0, 0))  # right by one pixel
        gated = []
        for layer in self.layers:
            v, h, g = layer(v, h, y)
            gated.append(g)
        return self.skip(torch.cat(gated, 1))

    # ---- the same, one pixel at a time

    @torch.no_grad()
    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        width = self.skip.out_channels
        gated = self.skip.weight.new_zeros(n, len(self.layers) * width)
        cache.buffers = Buffers(
            layers=[
                CachedLayer(layer, self.shape[2], cache.y, g)  # type: ignore[arg-type]
                for layer, g in zip(self.layers, gated.split(width, 1), strict=True)
            ],
            gated=gated,
            skip=(self.skip.weight[:, :, 0, 0].T.contiguous(), self.skip.bias),
        )
        return cache

    def features_at(self, cache: Cache, pixel: int) -> Tensor:
        layers = cache.buffers.layers
        row, column = divmod(pixel, self.shape[2])
        if column == 0:  # a new row: the vertical stack, all columns at once
            v = self.embed(cache.x[:, :, row - 1].permute(2, 0, 1)).flatten(2)  # [W,n,8C]
            v = v if row else torch.zeros_like(v)
            if self.positions is not None:
                v = v + self.positions[:, row].T[:, None]
            for layer in layers:
                v = layer.begin_row(v)
        else:
            left = self.embed(cache.x[:, :, row, column - 1])  # [n,C,8]
            layers[0].columns[column].copy_(left.flatten(1))
        for layer, above in zip(layers, [*layers[1:], None], strict=True):
            layer.pixel(column, above.columns[column] if above else None)
        weight, bias = cache.buffers.skip
        return torch.addmm(bias, cache.buffers.gated, weight)  # [n,F]


@dataclass
class Buffers:
    """One run of sampling: the layers, and the gates of the pixel in hand on their way out."""

    layers: list[CachedLayer]
    gated: Tensor  # [n,L·width]: each layer writes its own columns
    skip: tuple[Tensor, Tensor | None]  # weight [L·width,F], bias [F]


class CachedLayer:
    """A `GatedLayer` with its weights packed for matrix products, and the inputs it will reread.

    Columns come first and images second, [W,n,·], so that one column's images, and likewise a
    whole row of columns, are a matrix without copying.
    """

    def __init__(self, layer: GatedLayer, W: int, y: Tensor | None, g: Tensor) -> None:
        weight, p, (n, width) = layer.vertical.weight, layer.pad, g.shape
        cin = weight.shape[1]
        self.pad, self.adds, self.g = p, layer.adds, g
        self.vertical = list(weight.permute(3, 2, 1, 0).flatten(1, 2))  # kernel × [(p+1)cin,2width]
        # tanh(a) = 1 - 2 sigmoid(-2a), and a sigmoid costs a third of a tanh: what feeds a gate is
        # scaled beforehand, so that one sigmoid serves both halves and the gate is (1 - 2a) b
        self.scale = scale = weight.new_tensor([-2.0, 1.0]).repeat_interleave(width)
        beside, link = layer.horizontal.weight[:, :, 0], layer.link.weight[:, :, 0, 0]
        self.horizontal = beside.permute(2, 1, 0).flatten(0, 1) * scale  # [(p+1)cin,2width]
        self.link = link.T * scale
        self.residual = (
            None if layer.residual is None else layer.residual.weight[:, :, 0, 0].T.contiguous()
        )
        bias_v, bias_h = layer.vertical.bias, layer.horizontal.bias
        assert bias_v is not None and bias_h is not None  # a Conv2d may be built without
        self.bias_v = bias_v
        self.bias_h = add_labels(bias_h.expand(n, -1), layer.labels_h, y) * scale
        if layer.labels_v is not None:
            self.gate_v = add_labels(weight.new_zeros(n, 2 * width), layer.labels_v, y) * scale
        # the vertical stack's last p+1 input rows, with p empty columns on either side
        self.rows = weight.new_zeros(W + 2 * p, n, p + 1, cin)
        # the horizontal stack's input in the present row, with p empty columns on the left
        row = weight.new_zeros(n, p + W, cin)
        self.columns = list(row[:, p:].unbind(1))  # W × [n,cin]
        self.windows = [row[:, c : c + p + 1].flatten(1) for c in range(W)]  # W × [n,(p+1)cin]
        # what the row hears from above, with the bias: one matrix, and the same by columns
        self.linked = weight.new_zeros(W * n, 2 * width)
        self.links = self.linked.view(W, n, -1).unbind()
        self.gates = weight.new_zeros(n, 2 * width)
        self.halves = self.gates.chunk(2, 1)

    def begin_row(self, v: Tensor) -> Tensor:
        """Take the vertical input [W,n,cin] of a row; return the vertical output [W,n,width]."""
        (W, n, _), p = v.shape, self.pad
        for t in range(p):  # the rows move up by one
            self.rows[:, :, t] = self.rows[:, :, t + 1]
        self.rows[p : p + W, :, p] = v
        rows = self.rows.flatten(2)  # [W+2p,n,(p+1)cin]
        below = self.bias_v.repeat(W * n, 1)  # [Wn,2width]
        for t, weight in enumerate(self.vertical):  # one product per column of the kernel
            torch.addmm(below, rows[t : t + W].flatten(0, 1), weight, out=below)
        self.linked.view(W, n, -1).copy_(self.bias_h)
        torch.addmm(self.linked, below, self.link, out=self.linked)
        if self.residual is None:  # nothing reads the last layer's vertical output
            return v
        gates = torch.addcmul(self.gate_v, below.view(W, n, -1), self.scale)
        a, b = gates.sigmoid_().chunk(2, 2)
        return torch.addcmul(b, a, b, value=-2)  # [W,n,width]

    def pixel(self, column: int, out: Tensor | None) -> None:
        """One pixel of the horizontal stack: its gates into g, the next layer's input into out."""
        torch.addmm(self.links[column], self.windows[column], self.horizontal, out=self.gates)
        self.gates.sigmoid_()
        a, b = self.halves
        torch.addcmul(b, a, b, value=-2, out=self.g)
        if out is None or self.residual is None:
            return
        if self.adds:
            torch.addmm(self.columns[column], self.g, self.residual, out=out)
        else:
            torch.mm(self.g, self.residual, out=out)
