"""Models that read the whole image as one vector: `Marginal`, `LinearAR` and `MADE`.

All of them are one masked matrix product after another. Values enter as numbers in [-1, 1], not as
one-hot vectors. Inside, positions are sorted by rank, so "earlier" is "to the left".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import ARModel, Cache, Label


def unit(k: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Levels 0..K-1 -> [-1, 1]."""
    return 2 * k.to(dtype) / (levels - 1) - 1


class DenseModel(ARModel):
    """What the dense models share: values by rank going in, logits by rank coming out."""

    def by_rank(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """Values [B,D] in [-1,1], by rank -> logits [B,D,K], by rank."""
        raise NotImplementedError

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        x = self.check(x)
        values = unit(x.flatten(1)[:, self.order], self.levels, self.dtype)
        logits = self.by_rank(values, self.label_rows(len(x), label))
        return logits[:, self.order.argsort()].view(*x.shape, self.levels)  # rank -> position

    def value(self, cache: Cache, i: int) -> Tensor:
        """The value [n,1] in [-1,1] that rank i was given."""
        return unit(cache.x.flatten(1)[:, self.order[i], None], self.levels, self.dtype)


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
        if smoothing < 0:
            raise ValueError(f"smoothing must not be negative, not {smoothing}")
        ranked = self.check(x).flatten(1)[:, self.order]
        counts = F.one_hot(ranked, self.levels).sum(0).to(self.dtype) + smoothing  # [D,K]
        self.table.copy_(torch.log(counts / counts.sum(1, keepdim=True)))
        return self

    def by_rank(self, values: Tensor, rows: Tensor | None) -> Tensor:
        return self.table.expand(len(values), -1, -1)

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        return self.table[i].expand(len(cache.x), -1)


class LinearAR(DenseModel):
    """Logits linear in the earlier values: one matrix, strictly lower triangular in rank."""

    def __init__(self, shape: Sequence[int], levels: int, classes: int | None = None) -> None:
        super().__init__(shape, levels, classes, **{"classes": classes})
        self.weight = nn.Parameter(torch.zeros(self.D, levels, self.D))  # convex: start anywhere
        self.bias = nn.Parameter(torch.zeros(self.D, levels))
        self.label = _labels(classes, self.D * levels)

    def by_rank(self, values: Tensor, rows: Tensor | None) -> Tensor:
        rank = torch.arange(self.D, device=values.device)
        earlier = (rank[:, None] > rank).to(values.dtype)  # [D,D]: column j is seen by row i > j
        logits = F.linear(values, (self.weight * earlier[:, None]).flatten(0, 1))
        return _add(logits, self.label, rows).view(-1, self.D, self.levels) + self.bias

    @torch.no_grad()
    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        zero = self.bias.new_zeros(n, self.D * self.levels)
        offset = _add(zero, self.label, cache.rows).view(n, self.D, self.levels) + self.bias
        cache.buffers = (self.bias.new_zeros(n, self.D), offset)
        return cache

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        values, offset = cache.buffers  # [n,D], [n,D,K]
        if i > 0:
            values[:, i - 1 : i] = self.value(cache, i - 1)
        return torch.addmm(offset[:, i], values[:, :i], self.weight[i, :, :i].T)


class MADE(DenseModel):
    """Masked autoencoder (Germain et al. 2015): an MLP whose masks keep any order causal.

    A unit of degree d sees ranks below d, and only units of degree at most its own. Degrees rise
    along a layer, from 1 to D-1, so the units that rank i may read are a prefix of the layer; that
    makes `step` cheap, D of them together costing one forward.
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
        listed = None if order is None else [int(p) for p in order]
        super().__init__(
            shape,
            levels,
            classes,
            order,
            width=width,
            layers=layers,
            order_=listed,
            classes_=classes,
            dropout=dropout,
        )
