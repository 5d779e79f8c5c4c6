"""Models that read the whole image as one vector: `Marginal`, `LinearAR` and `MADE`.

All of them are one masked matrix product after another. Values enter as numbers in [-1, 1], not as
one-hot vectors. Inside, positions are sorted by rank, so "earlier" is "to the left".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import require
from ..data import to_unit
from .base import ARModel, Label, add_labels, make_labels
from .sampling import Cache


class DenseModel(ARModel):
    """What the dense models share: values by rank going in, logits by rank coming out."""

    def by_rank(self, values: Tensor, y: Tensor | None) -> Tensor:
        """Values [B,D] in [-1,1], by rank -> logits [B,D,K], by rank."""
        raise NotImplementedError

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        x = self.check(x)
        values = to_unit(x.flatten(1)[:, self.order], self.levels, self.dtype)
        logits = self.by_rank(values, self.label_rows(len(x), label))
        return logits[:, self.order.argsort()].view(*x.shape, self.levels)  # rank -> position

    def value(self, cache: Cache, i: int) -> Tensor:
        """The value [n,1] in [-1,1] that rank i was given."""
        return to_unit(cache.x.flatten(1)[:, self.order[i], None], self.levels, self.dtype)


class Marginal(DenseModel):
    """Every position on its own: p(x) = prod_i p_i(x_i), a table of D × K logits."""

    def __init__(self, shape: Sequence[int], levels: int) -> None:
        super().__init__(shape, levels)
        self.table = nn.Parameter(torch.zeros(self.D, levels))

    @torch.no_grad()
    def fit(self, x: Tensor, smoothing: float = 1.0) -> Marginal:
        """The best table for images integer[N,C,H,W], by counting; `smoothing` is added to counts.

        With smoothing 0 this is the maximum of the likelihood, and unseen levels get logit -inf.
        """
        require.real("smoothing", smoothing, 0)
        if not len(self.check(x)):
            raise ValueError("there are no images to count")
        ranked = self.check(x).flatten(1)[:, self.order]
        counts = F.one_hot(ranked, self.levels).sum(0).to(self.dtype) + smoothing  # [D,K]
        self.table.copy_(torch.log(counts / counts.sum(1, keepdim=True)))
        return self

    def by_rank(self, values: Tensor, y: Tensor | None) -> Tensor:
        return self.table.expand(len(values), -1, -1)

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        return self.table[i].expand(len(cache.x), -1)


class MaskedLinear(nn.Linear):
    """A linear map through weight·mask; mask bool[out,in]."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class LinearAR(DenseModel):
    """Logits linear in the earlier values: one matrix, strictly lower triangular in rank.

    order: int[D], rank -> flat position in (C, H, W), any permutation; None is the raster order.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        classes: int | None = None,
        order: Sequence[int] | Tensor | None = None,
    ) -> None:
        arguments = {"classes": classes, "order": order}
        super().__init__(shape, levels, classes, order, arguments)
        rank = torch.arange(self.D)
        self.out = MaskedLinear((rank[:, None] > rank).repeat_interleave(levels, 0))  # [DK,D]
        self.labels = make_labels(classes, self.D * levels)

    def by_rank(self, values: Tensor, y: Tensor | None) -> Tensor:
        return add_labels(self.out(values), self.labels, y).view(-1, self.D, self.levels)

    @torch.no_grad()
    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        offset = add_labels(self.out.bias.expand(n, -1), self.labels, cache.y)
        values = self.out.weight.new_zeros(n, self.D)
        weight = self.out.weight.view(self.D, self.levels, self.D)
        cache.buffers = (values, offset.view(n, self.D, self.levels), weight)
        return cache

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        values, offset, weight = cache.buffers  # [n,D], [n,D,K], [D,K,D]
        if i > 0:
            values[:, i - 1 : i] = self.value(cache, i - 1)
        return torch.addmm(offset[:, i], values[:, :i], weight[i, :, :i].T)


class MADE(DenseModel):
    """Masked autoencoder (Germain et al. 2015): an MLP whose masks keep any order causal.

    order: int[D], rank -> flat position in (C, H, W), any permutation; None is the raster order.

    A unit of degree d sees ranks below d, and units of degree at most d in the layer before. Here
    degrees rise along a layer from 1 to D-1, so that the units of degree i are a slice, and those
    that rank i may read are a prefix: `step` finishes one slice, and D steps cost one forward.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        width: int = 512,
        layers: int = 2,
        order: Sequence[int] | Tensor | None = None,
        classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        arguments: dict[str, Any] = {"width": width, "layers": layers, "order": order}
        arguments |= {"classes": classes, "dropout": dropout}
        super().__init__(shape, levels, classes, order, arguments)
        rank = torch.arange(self.D)
        degree = 1 + torch.arange(width) * (self.D - 1) // width  # [width], rising, 1..D-1
        masks = [degree[:, None] > rank] + [degree[:, None] >= degree] * (layers - 1)
        self.hidden = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.out = MaskedLinear((rank[:, None] >= degree).repeat_interleave(levels, 0))
        self.labels = nn.ModuleList(make_labels(classes, width) for _ in range(layers))
        self.labels_out = make_labels(classes, self.D * levels)
        self.dropout = nn.Dropout(dropout)
        # the units of degree below i are the first starts[i]
        self.starts = [int((degree < i).sum()) for i in range(self.D + 1)]

    def by_rank(self, values: Tensor, y: Tensor | None) -> Tensor:
        h = values
        for layer, labels in zip(self.hidden, self.labels, strict=True):
            h = self.dropout(F.relu(add_labels(layer(h), labels, y)))
        return add_labels(self.out(h), self.labels_out, y).view(-1, self.D, self.levels)

    @torch.no_grad()
    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        sums = [  # of each hidden layer's inputs so far, [n,width]
            add_labels(layer.bias.expand(n, -1), labels, cache.y).clone()  # type: ignore[operator]
            for layer, labels in zip(self.hidden, self.labels, strict=True)
        ]
        weights = [layer.weight for layer in self.hidden]
        h = torch.zeros_like(sums[-1])  # the last hidden layer, as far as it is finished
        offset = add_labels(self.out.bias.expand(n, -1), self.labels_out, cache.y)
        out = self.out.weight.view(self.D, self.levels, -1)
        cache.buffers = (sums, weights, h, offset.view(n, self.D, self.levels), out)
        return cache

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        sums, weights, h, offset, out = cache.buffers
        lo, hi = self.starts[i], self.starts[i + 1]  # the units of degree i
        if i > 0:
            new, source = self.value(cache, i - 1), slice(i - 1, i)
            for total, weight in zip(sums, weights, strict=True):
                total[:, lo:] += new @ weight[lo:, source].T  # units of lower degree are finished
                new, source = F.relu(total[:, lo:hi]), slice(lo, hi)
            h[:, lo:hi] = new
        return torch.addmm(offset[:, i], h[:, :hi], out[i, :, :hi].T)
