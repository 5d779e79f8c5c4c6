"""The first PixelCNN (van den Oord et al. 2016, "Pixel Recurrent Neural Networks"): one stack of
masked convolutions. It has a blind spot, left in on purpose: a 3×3 kernel reaches one column to the
right per row upwards, so what stands above and far to the right is never seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import require
from .base import Label, add_labels, make_labels
from .heads import LevelEmbedding, PixelModel, make_head
from .sampling import Cache


class MaskedConv2d(nn.Conv2d):
    """A convolution through weight·mask; x [B,cin,H,W] -> [B,cout,H,W], stride 1, padded.

    kind "A" sees pixels before its own; "B" its own as well. With colours=3 channels fall into
    three equal blocks R, G, B, and at the pixel's own place a block sees the blocks before it
    ("A") or up to itself ("B"). The parameter is never changed: the mask acts in the forward.
    """

    mask: Tensor
    bias: Tensor

    def __init__(self, cin: int, cout: int, kernel: int, kind: str, colours: int = 1) -> None:
        if kind not in ("A", "B"):
            raise ValueError(f"kind must be 'A' or 'B', not {kind!r}")
        for name, size in (("kernel", kernel), ("colours", colours), ("cin", cin), ("cout", cout)):
            require.whole(name, size)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {kernel}")
        if cin % colours or cout % colours:
            raise ValueError(f"{colours} colours do not divide {cin} and {cout} channels")
        super().__init__(cin, cout, kernel, padding=kernel // 2)
        p = kernel // 2
        mask = torch.zeros(cout, cin, kernel, kernel)
        mask[:, :, :p] = 1  # the rows above
        mask[:, :, p, :p] = 1  # to the left
        into = torch.arange(cout) * colours // cout  # the colour that a channel belongs to
        come = torch.arange(cin) * colours // cin
        sees = into[:, None] > come if kind == "A" else into[:, None] >= come
        mask[:, :, p, p] = sees.to(mask.dtype)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(PixelModel):
    """A type-A convolution (5 wide; 7 on images larger than 16), then `layers` residual ones of
    type B, 3 wide, under a categorical head: h <- h + conv(dropout(relu(h)))."""

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        width: int = 64,
        layers: int = 8,
        classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        arguments = {"width": width, "layers": layers, "classes": classes, "dropout": dropout}
        super().__init__(shape, levels, classes, arguments=arguments)
        C, H, W = self.shape
        self.embed = LevelEmbedding(levels)
        self.first = MaskedConv2d(8 * C, width, 5 if max(H, W) <= 16 else 7, "A")
        self.layers = nn.ModuleList(MaskedConv2d(width, width, 3, "B") for _ in range(layers))
        self.labels = nn.ModuleList(make_labels(classes, width) for _ in range(layers + 1))
        self.dropout = nn.Dropout(dropout)
        self.head = make_head("categorical", width, C, levels)

    def features(self, x: Tensor, y: Tensor | None) -> Tensor:
        e = self.embed(x).permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B,8C,H,W]
        h = add_labels(self.first(e), self.labels[0], y)  # [B,width,H,W]
        for layer, labels in zip(self.layers, self.labels[1:], strict=True):
            h = h + add_labels(layer(self.dropout(F.relu(h))), labels, y)
        return h

    # ---- the same, one pixel at a time

    @torch.no_grad()
    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        convs = [self.first, *self.layers]
        cache.buffers = [
            CachedConv(conv, n, self.shape, labels, cache.y)
            for conv, labels in zip(convs, self.labels, strict=True)
        ]
        return cache

    def features_at(self, cache: Cache, pixel: int) -> Tensor:
        first, *layers = cache.buffers
        if pixel > 0:  # the input of the pixel before is known only now
            x = cache.x.flatten(2)[:, :, pixel - 1]
            first.put(pixel - 1, self.embed(x).flatten(1))  # [n,8C]
        h = first.at(pixel)
        for layer in layers:
            layer.put(pixel, F.relu(h))
            h = h + layer.at(pixel)
        return h  # [n,width]


class CachedConv:
    """A masked convolution that is fed and read one pixel at a time: its padded input so far, and
    for each row of the kernel the unmasked taps as a matrix."""

    def __init__(
        self,
        conv: MaskedConv2d,
        n: int,
        shape: tuple[int, int, int],
        labels: nn.Module,
        y: Tensor | None,
    ) -> None:
        (_, H, W), p = shape, conv.kernel_size[0] // 2
        self.pad, self.width = p, W
        self.bias = add_labels(conv.bias.expand(n, -1), labels, y)  # [n,cout]
        self.input = conv.weight.new_zeros(n, H + p, W + 2 * p, conv.in_channels)
        masked = (conv.weight * conv.mask)[:, :, : p + 1].permute(2, 3, 1, 0)  # [p+1,k,cin,cout]
        self.weights = list(masked.flatten(1, 2))  # (p+1) × [k·cin,cout]

    def put(self, pixel: int, value: Tensor) -> None:
        r, c = divmod(pixel, self.width)
        self.input[:, r + self.pad, c + self.pad] = value

    def at(self, pixel: int) -> Tensor:
        (r, c), k, out = divmod(pixel, self.width), 2 * self.pad + 1, self.bias
        for t, weight in enumerate(self.weights):
            out = torch.addmm(out, self.input[:, r + t, c : c + k].flatten(1), weight)
        return out  # [n,cout]
