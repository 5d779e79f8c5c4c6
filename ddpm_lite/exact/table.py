"""Images so small that every one of them can be listed: K levels at D positions, K^D images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import require
from ..ar.base import ARModel, Cache, Label
from ..data import to_unit
from .kernel import KernelDenoiser

LARGEST = 2**20  # images in a table


def table_size(shape: Sequence[int], levels: int) -> tuple[int, int]:
    """(D, K^D); ValueError where that is more than a table lists."""
    channels, height, width = require.shape(shape)
    positions = channels * height * width
    if require.whole("levels", levels, 2) ** positions > LARGEST:
        raise ValueError(f"{levels} levels at {positions} positions: a table lists 2 to 2^20")
    return positions, levels**positions


class Table:
    """A distribution over all images of `shape` with `levels` grey levels, as one array.

    p: [K^D], not negative, normalised here (float64). Image number j has the digits of j in base K
    as its pixels, the first position (layout C, H, W) being the leading digit.
    """

    def __init__(self, p: Tensor | Sequence[float], shape: Sequence[int], levels: int = 2) -> None:
        self.shape, self.levels = require.shape(shape), levels
        self.D = table_size(shape, levels)[0]
        p = torch.as_tensor(p, dtype=torch.float64)
        if p.shape != (levels**self.D,) or not (p >= 0).all() or not 0 < p.sum() < torch.inf:
            raise ValueError(f"p must be {levels**self.D} numbers >= 0, not all 0")
        self.p = p / p.sum()
        self._place = levels ** torch.arange(self.D - 1, -1, -1)  # [D]

    @classmethod
    def potts(cls, shape: Sequence[int], levels: int = 2, coupling: float = 1.0) -> Table:
        """p ∝ exp(coupling · number of equal neighbours), right and below: smooth little images."""
        table = cls(torch.ones(table_size(shape, levels)[1]), shape, levels)
        x = table.images()
        equal = (x[..., 1:] == x[..., :-1]).flatten(1).sum(1)
        equal += (x[..., 1:, :] == x[..., :-1, :]).flatten(1).sum(1)
        return cls((coupling * equal.double()).exp(), shape, levels)

    @classmethod
    def counted(cls, x: Tensor, levels: int, pseudocount: float = 0.0) -> Table:
        """The frequencies of images x[N,C,H,W] (whole levels), each image given `pseudocount`."""
        shape = tuple(require.tensor("x", x, None, None, None, None).shape[1:])
        empty = cls(torch.ones(table_size(shape, levels)[1]), shape, levels)
        return cls(empty.counts(x) + pseudocount, empty.shape, levels)

    def images(self) -> Tensor:
        """All images in the order of `p`, int64 [K^D,C,H,W]."""
        digits = torch.arange(self.levels**self.D)[:, None] // self._place % self.levels
        return digits.view(-1, *self.shape)

    def index(self, x: Tensor) -> Tensor:
        """The numbers of images x[B,C,H,W], int64 [B]."""
        if tuple(x.shape[1:]) != self.shape or x.is_floating_point():
            raise ValueError(f"x must be whole levels [B, {str(self.shape)[1:-1]}]")
        if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < self.levels:
            raise ValueError(f"x must lie in 0..{self.levels - 1}")
        return (x.long().flatten(1) * self._place).sum(1)

    def counts(self, x: Tensor) -> Tensor:
        """How often each image occurs in x[B,C,H,W], float64 [K^D]."""
        return self.index(x).bincount(minlength=self.levels**self.D).double()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, [B]."""
        return self.p[self.index(x)].log()

    def entropy(self) -> float:
        """-sum p log p in nats per image: no model's mean code is shorter."""
        return float(-torch.special.xlogy(self.p, self.p).sum())

    def given(self, mask: Tensor, values: Tensor) -> Table:
        """The exact conditional: pixels under mask bool[C,H,W] are `values` [C,H,W]."""
        if require.tensor("mask", mask, *self.shape).dtype != torch.bool:
            raise ValueError(f"mask must be bool, not {mask.dtype}")
        fits = (self.images() == values)[:, mask].all(1)  # [K^D]
        if not self.p[fits].sum() > 0:
            raise ValueError("these known pixels have probability 0")
        return Table(self.p * fits, self.shape, self.levels)

    def marginal(self, positions: Sequence[int]) -> Tensor:
        """p of the pixels at flat `positions`, in that order: float64 [K]*len(positions)."""
        axes = list(positions)
        rest = [i for i in range(self.D) if i not in axes]
        if len(axes) + len(rest) != self.D:
            raise ValueError(f"positions must be different numbers in 0..{self.D - 1}")
        joint = self.p.view([self.levels] * self.D).permute(axes + rest)
        return joint.flatten(len(axes)).sum(-1) if rest else joint

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n draws, int64 [n,C,H,W]."""
        require.whole("n", n)
        rng = torch.Generator().manual_seed(seed)
        u = torch.rand(n, dtype=torch.float64, generator=rng)
        cdf = self.p.cumsum(0)
        return self.images()[torch.searchsorted(cdf, u * cdf[-1], right=True)]

    def denoiser(self) -> KernelDenoiser:
        """The exact denoiser of these images scaled to [-1, 1]."""
        return KernelDenoiser(to_unit(self.images(), self.levels, torch.float64), weights=self.p)


class TableAR(ARModel):
    """A table read one pixel at a time: the exact conditionals, in any order (rank -> position).

    Where a prefix has probability 0 its conditional is undefined; it is given as uniform.
    """

    def __init__(self, table: Table, order: Sequence[int] | Tensor | None = None) -> None:
        super().__init__(table.shape, table.levels, order=order)
        self.spec |= {"p": table.p.tolist(), "order": self.order.tolist()}
        self._conditionals: list[Tensor] = []  # of rank i: log p(x_i | x_<i), [K^i,K]
        ranks = self.order.tolist()
        for i in range(self.D):
            joint = table.marginal(ranks[: i + 1]).reshape(-1, self.levels)  # [K^i,K]
            total = joint.sum(1, keepdim=True)
            conditional = torch.where(total > 0, joint / total, 1 / self.levels)
            self._conditionals.append(conditional.log())

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        """x [B,C,H,W] -> normalised log-probabilities float64 [B,C,H,W,K]."""
        self.label_rows(len(x), label)
        flat = self.check(x).flatten(1)[:, self.order]  # [B,D] by rank
        out = torch.empty(len(x), self.D, self.levels, dtype=torch.float64)
        prefix = torch.zeros(len(x), dtype=torch.int64)  # x_<i as a number in base K
        for i, conditional in enumerate(self._conditionals):
            out[:, self.order[i]] = conditional[prefix]
            prefix = prefix * self.levels + flat[:, i]
        return out.view(*x.shape, self.levels)

    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        cache.buffers = torch.zeros(n, dtype=torch.int64)  # the prefix so far
        return cache

    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        if i > 0:
            last = cache.x.flatten(1)[:, self.order[i - 1]]
            cache.buffers = cache.buffers * self.levels + last
        return self._conditionals[i][cache.buffers]  # [n,K]
