"""Autoregressive image models: one seam, `step(cache, i) -> logits`, beside `logits(x)`.

The chain rule cuts one impossible draw into D easy ones, log p(x) = sum_i log p(x_i | x_<i).
A model supplies every conditional at once through `logits`; everything else here (likelihood,
sampling, completion) follows from that, and a model that can compute one conditional more cheaply
than a full forward says so by overriding `begin` and `step`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Label = int | Tensor | None
Known = tuple[Tensor, Tensor]


class State(NamedTuple):
    """One step of sampling: rank `i` has just been written.

    `x` int64[n,C,H,W] is the live canvas (clone it to keep it); ranks above `i` still hold 0.
    `logits` [n,K] are those of rank `i` as the model gave them, before the temperature.
    """

    i: int
    x: Tensor
    logits: Tensor


class Cache:
    """What lives between steps: the canvas `x` int64[n,C,H,W], the label (as given, and as the
    `rows` of an embedding), and `buffers`, what the model remembers of the pixels it has seen."""

    def __init__(self, model: ARModel, n: int, label: Label = None) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        self.x = torch.zeros(n, *model.shape, dtype=torch.int64, device=model.device)
        self.label, self.rows = label, model.label_rows(n, label)
        self.buffers: Any = None
        self.pixel: Any = None  # the head's state of the pixel being drawn
        self._flat = self.x.view(n, -1)  # shares memory with x
        self._order = model.order.tolist()
        self._stepped = self._filled = 0

    def advance(self, i: int) -> None:
        """Claim rank `i`: ranks come in order, once each, and each is filled before the next."""
        if i != self._stepped or self._stepped != self._filled or i >= len(self._order):
            expected = (
                f"put({self._filled}, value)"
                if self._stepped > self._filled
                else f"step({self._stepped})"
                if self._stepped < len(self._order)
                else "a new cache: every rank is filled"
            )
            raise ValueError(f"step({i}) is out of order: next comes {expected}")
        self._stepped += 1

    def put(self, i: int, value: int | Tensor) -> None:
        """Write the value (an int or int64[n], levels 0..K-1) of rank `i`, just stepped."""
        if i != self._filled or self._stepped != self._filled + 1:
            raise ValueError(f"put({i}) without step({i}) just before it")
        self._flat[:, self._order[i]] = value
        self._filled += 1


class ARModel(nn.Module):
    """p(x) = prod_i p(x_i | x_<i) over images of `levels` grey levels.

    shape: (C, H, W).  levels: K.  D = C·H·W.
    order: int64[D], rank -> flat position in `x.view(n, -1)` (layout C, H, W); by default raster
    order with the channel innermost.  classes: the number of class labels, or None.
    spec: the class name and the constructor's arguments, as JSON values.

    A subclass defines `logits`, where logits at a position depend on positions of lower rank only.
    """

    order: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        classes: int | None = None,
        order: Sequence[int] | Tensor | None = None,
        arguments: dict[str, Any] | None = None,  # what else goes into the spec
    ) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (C, H, W) with positive sizes, not {tuple(shape)}")
        if levels < 2:
            raise ValueError(f"levels must be at least 2, not {levels}")
        if classes is not None and classes < 1:
            raise ValueError(f"classes must be None or at least 1, not {classes}")
        C, H, W = (int(s) for s in shape)
        self.shape, self.levels, self.classes, self.D = (C, H, W), levels, classes, C * H * W
        # every pixel's channels one after another: rank = pixel·C + channel
        raster = torch.arange(self.D).view(C, H * W).T.reshape(-1)
        ranks = raster if order is None else torch.as_tensor(order, dtype=torch.int64).cpu()
        if not torch.equal(ranks.flatten().sort().values, torch.arange(self.D)):
            raise ValueError(f"order must be a permutation of 0..{self.D - 1}")
        self.register_buffer("order", ranks.flatten().clone(), persistent=False)
        shape_and_levels = {"class": type(self).__name__, "shape": [C, H, W], "levels": levels}
        self.spec: dict[str, Any] = shape_and_levels | (arguments or {})

    @property
    def device(self) -> torch.device:
        return self.order.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    # ---- likelihood

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        """x integer[B,C,H,W] in 0..K-1 -> [B,C,H,W,K], every conditional at once."""
        raise NotImplementedError

    def forward(self, x: Tensor, label: Label = None) -> Tensor:
        return self.logits(x, label)

    def log_prob(self, x: Tensor, label: Label = None) -> Tensor:
        """log p(x) in nats, [B], exact."""
        return self._log_probs(x, label).flatten(1).sum(1)

    def bits_per_dim(self, x: Tensor, label: Label = None) -> Tensor:
        """-log2 p(x) / D, [B]; a uniform model gives log2 K."""
        return -self.log_prob(x, label) / (self.D * math.log(2))

    def log_weight(
        self, x: Tensor, mask: Tensor, label: Label = None, temperature: float = 1.0
    ) -> Tensor:
        """Log importance weights [B] (nats) of completions `x` drawn with `known=(mask, ...)`.

        Such an `x` was drawn from q(x) = prod of p(x_i | x_<i) over the *unknown* ranks; p(x)/q(x)
        is the product over the known ones. Softmax of these over many samples (of one completion
        task) weights them so that averages tend to those under p(unknown | known). Give the
        temperature that the samples were drawn with: the target is then the tempered model.
        """
        log_p = self._log_probs(x, label, temperature)  # [B,C,H,W]
        return torch.where(mask.to(log_p.device), log_p, 0.0).flatten(1).sum(1)

    def _log_probs(self, x: Tensor, label: Label, temperature: float = 1.0) -> Tensor:
        x = self.check(x)
        log_p = F.log_softmax(self.logits(x, label) / temperature, -1)  # [B,C,H,W,K]
        return log_p.gather(-1, x[..., None])[..., 0]  # [B,C,H,W]

    # ---- sampling

    def begin(self, n: int, label: Label = None) -> Cache:
        """An empty canvas for `n` images."""
        return Cache(self, n, label)

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        """Logits [n,K] of rank `i` given the canvas; call `cache.put(i, value)` before the next.

        Ranks come in order, once each (else ValueError). This naive way runs the full forward,
        without dropout, and keeps one position of it.
        """
        cache.advance(i)
        training = self.training
        self.eval()
        try:
            logits = self.logits(cache.x, cache.label)  # [n,C,H,W,K]
        finally:
            self.train(training)
        return logits.flatten(1, 3)[:, self.order[i]]  # [n,K]

    def sample_steps(
        self,
        n: int,
        label: Label = None,
        u: Tensor | None = None,
        known: Known | None = None,
        temperature: float = 1.0,
        cached: bool = True,
        seed: int = 0,
    ) -> Iterator[State]:
        """Draw `n` images rank by rank: D states, arguments as for `sample`."""
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        if u is None:
            u = torch.rand(
                n, self.D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
            )
        elif u.shape != (n, self.D) or u.dtype != torch.float64:
            raise ValueError(f"u must be float64[{n},{self.D}], not {u.dtype}{list(u.shape)}")
        elif not bool(((u >= 0) & (u < 1)).all()):
            raise ValueError("u must lie in [0, 1)")
        model = self if cached else naive(self)
        cache = model.begin(n, label)
        return _steps(model, cache, u.to(self.device), self._known(n, known), temperature)

    def sample(
        self,
        n: int,
        label: Label = None,
        u: Tensor | None = None,
        known: Known | None = None,
        temperature: float = 1.0,
        cached: bool = True,
        seed: int = 0,
    ) -> Tensor:
        """Draw images int64[n,C,H,W].

        label: int or int64[n]; None or -1 = the null class.
        u: float64[n,D] uniforms in [0,1), indexed by rank (default: from `seed`); image j depends
        on row j only, and naive and cached sampling share them.
        known: (mask bool[C,H,W], values [C,H,W] or [n,C,H,W]): pixels that are given. The rest is
        drawn from the model *exactly* where the known ranks come first in the order (the upper
        half of an image); elsewhere this is a heuristic, since a pixel drawn before a known one
        cannot take it into account: weight the samples by `log_weight`.
        temperature: above 0, divides the logits.  cached=False: a full forward per rank.
        """
        *_, last = self.sample_steps(n, label, u, known, temperature, cached, seed)
        return last.x

    def _known(self, n: int, known: Known | None) -> tuple[list[bool], Tensor] | None:
        """known, by rank: (is rank i given?, its values int64[D,n])."""
        if known is None:
            return None
        mask, values = known
        if mask.shape != self.shape or mask.dtype != torch.bool:
            raise ValueError(f"known: mask must be bool{list(self.shape)}")
        if values.shape not in (self.shape, (n, *self.shape)):
            raise ValueError(f"known: values must have shape {self.shape} or {(n, *self.shape)}")
        values = values.to(self.device, torch.int64).expand(n, *self.shape)
        mask = mask.to(self.device)
        _check_range(values[:, mask], self.levels, "known: values")
        return mask.flatten()[self.order].tolist(), values.flatten(1)[:, self.order].T.contiguous()

    # ---- checking input

    def check(self, x: Tensor) -> Tensor:
        """x as int64, or a ValueError if it is no batch of this model's images."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape [B, {str(self.shape)[1:-1]}], not {list(x.shape)}")
        if x.is_floating_point() or x.dtype == torch.bool:
            raise ValueError(f"x holds integer levels 0..{self.levels - 1}, not {x.dtype}")
        x = x.to(self.device, torch.int64)
        _check_range(x, self.levels, "x")
        return x

    def label_rows(self, n: int, label: Label) -> Tensor | None:
        """Embedding rows int64[n] of a label: None and -1 give the null class, the last row."""
        if self.classes is None:
            if label is not None:
                raise ValueError("this model has no classes: leave label out")
            return None
        rows = torch.as_tensor(-1 if label is None else label, device=self.device)
        if rows.is_floating_point() or rows.shape not in ((), (n,)):
            raise ValueError(f"label must be an int or int64[{n}]")
        rows = rows.to(torch.int64).expand(n)
        _check_range(rows + 1, self.classes + 1, "label + 1 (None or -1 is the null class)")
        return torch.where(rows < 0, self.classes, rows)


def _check_range(x: Tensor, size: int, what: str) -> None:
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= size):
        raise ValueError(f"{what} must lie in 0..{size - 1}")


def make_labels(classes: int | None, size: int) -> nn.Module:
    """A bias per class and one for "no class" (the last row), all starting at zero."""
    if classes is None:
        return nn.Identity()
    labels = nn.Embedding(classes + 1, size)
    nn.init.zeros_(labels.weight)
    return labels


def add_labels(x: Tensor, labels: nn.Module, rows: Tensor | None) -> Tensor:
    """x [B,size] or [B,size,H,W] plus the bias of each image's class."""
    if rows is None:
        return x
    return x + labels(rows).view(-1, x.shape[1], *[1] * (x.ndim - 2))


class _Naive(ARModel):
    """A model seen through its `logits` alone."""

    def __init__(self, model: ARModel) -> None:
        super().__init__(model.shape, model.levels, model.classes, model.order)
        self.model, self.spec = model, model.spec
        self.training = model.training
        self.to(model.device)

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        return self.model.logits(x, label)

    def log_prob(self, x: Tensor, label: Label = None) -> Tensor:
        return self.model.log_prob(x, label)


def naive(model: ARModel) -> ARModel:
    """The same model with `begin` and `step` as the full forward: what caching is held against."""
    return _Naive(model)


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """Inverse CDF: logits [n,K], u float64[n] in [0,1) -> int64[n].

    The first k with cdf_k > u·cdf_K, in float64: never a level of probability 0, whatever the
    rounding, because there cdf_k = cdf_(k-1).
    """
    cdf = F.softmax(logits.double(), -1).cumsum(-1)  # [n,K]
    return (cdf <= u[:, None] * cdf[:, -1:]).sum(-1)


@torch.no_grad()  # decorated: a `with` around a yield would switch off the consumer's gradients
def _steps(
    model: ARModel,
    cache: Cache,
    u: Tensor,
    known: tuple[list[bool], Tensor] | None,
    temperature: float,
) -> Iterator[State]:
    for i in range(model.D):
        logits = model.step(cache, i)  # [n,K]
        given = known is not None and known[0][i]
        cache.put(i, known[1][i] if known and given else draw(logits / temperature, u[:, i]))
        yield State(i, cache.x, logits)
