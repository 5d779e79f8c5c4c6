"""Autoregressive image models: one seam, `step(cache, i) -> logits`, beside `logits(x)`.

The chain rule cuts one impossible draw into D easy ones, log p(x) = sum_i log p(x_i | x_<i).
A model supplies every conditional at once through `logits`; everything else here (likelihood,
sampling, completion) follows from that, and a model that can compute one conditional more cheaply
than a full forward says so by overriding `begin` and `step`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import require
from .sampling import Cache, Known, State, known_by_rank, steps, uniforms

Label = int | Tensor | None


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
        C, H, W = require.shape(shape)
        require.whole("levels", levels, 2)
        arguments = arguments or {}
        require.whole("classes", 1 if classes is None else classes)
        for name in ("width", "layers"):
            require.whole(name, arguments.get(name, 1))
        require.real("dropout", arguments.get("dropout", 0.0), 0, 1)
        self.shape, self.levels, self.classes, self.D = (C, H, W), levels, classes, C * H * W
        # every pixel's channels one after another: rank = pixel·C + channel
        raster = torch.arange(self.D).view(C, H * W).T.reshape(-1)
        given = [] if isinstance(order, str) else order
        ranks = raster if given is None else torch.as_tensor(given, dtype=torch.int64).cpu()
        if not torch.equal(ranks.flatten().sort().values, torch.arange(self.D)):
            raise ValueError(f"order must be a permutation of 0..{self.D - 1}")
        if "order" in arguments:
            arguments["order"] = None if order is None else ranks.flatten().tolist()
        self.register_buffer("order", ranks.flatten().clone(), persistent=False)
        shape_and_levels = {"class": type(self).__name__, "shape": [C, H, W], "levels": levels}
        self.spec: dict[str, Any] = shape_and_levels | arguments

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
        require.real("temperature", temperature, 0, open_low=True)
        if require.tensor("mask", mask, *self.shape).dtype != torch.bool:
            raise ValueError(f"mask must be bool, not {mask.dtype}")
        log_p = self._log_probs(x, label, temperature)  # [B,C,H,W]
        return torch.where(mask.to(log_p.device), log_p, 0.0).flatten(1).sum(1)

    def _log_probs(self, x: Tensor, label: Label, temperature: float = 1.0) -> Tensor:
        x = self.check(x)
        logits = self.logits(x, label) / temperature  # [B,C,H,W,K]
        # never in autocast's bfloat16, which knows a probability near 1 only to 1/256
        log_p = F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return log_p.gather(-1, x[..., None])[..., 0]  # [B,C,H,W]

    # ---- sampling

    def begin(self, n: int, label: Label = None) -> Cache:
        """An empty canvas for `n` images."""
        return Cache(n, self.shape, self.order, label, self.label_rows(n, label))

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        """Logits [n,K] of rank `i` given the canvas; call `cache.put(i, value)` before the next.

        Ranks come in order, once each (else ValueError). This naive way runs the full forward,
        without dropout, and keeps one position of it.
        """
        cache.advance(i)
        with _evaluating(self):
            logits = self.logits(cache.x, cache.label)  # [n,C,H,W,K]
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
        require.real("temperature", temperature, 0, open_low=True)
        require.whole("n", n)
        u = uniforms(n, self.D, u, seed).to(self.device)
        given = known_by_rank(known, n, self.shape, self.levels, self.order)
        model = self if cached else naive(self)
        return steps(model.step, model.begin(n, label), u, given, temperature)

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

    # ---- checking input

    def check(self, x: Tensor) -> Tensor:
        """x as int64, or a ValueError if it is no batch of this model's images."""
        require.tensor("x", x, None, *self.shape)
        if not len(x) or x.is_floating_point() or x.dtype == torch.bool:
            raise ValueError(f"x holds integer levels 0..{self.levels - 1}, not {x.dtype}")
        x = x.to(self.device, torch.int64)
        if int(x.min()) < 0 or int(x.max()) >= self.levels:
            raise ValueError(f"x must lie in 0..{self.levels - 1}")
        return x

    def label_rows(self, n: int, label: Label) -> Tensor | None:
        """Embedding rows int64[n] of a label: None and -1 give the null class, the last row."""
        if self.classes is None:
            if label is not None:
                raise ValueError("this model has no classes: leave label out")
            return None
        if not isinstance(label, int | Tensor | None):
            raise ValueError(f"label must be an int or int64[{n}], not {label!r}")
        y = torch.as_tensor(-1 if label is None else label, device=self.device)
        if y.is_floating_point() or y.shape not in ((), (n,)):
            raise ValueError(f"label must be an int or int64[{n}]")
        y = y.to(torch.int64).expand(n)
        if n and (int(y.min()) < -1 or int(y.max()) >= self.classes):
            raise ValueError(f"label must lie in 0..{self.classes - 1}, or be None or -1")
        return torch.where(y < 0, self.classes, y)


def make_labels(classes: int | None, size: int) -> nn.Module:
    """A bias per class and one for "no class" (the last row), all starting at zero."""
    if classes is None:
        return nn.Identity()
    labels = nn.Embedding(classes + 1, size)
    nn.init.zeros_(labels.weight)
    return labels


def add_labels(x: Tensor, labels: nn.Module, y: Tensor | None) -> Tensor:
    """x [B,size] or [B,size,H,W] plus the bias of each image's class."""
    if y is None:
        return x
    return x + labels(y).view(-1, x.shape[1], *[1] * (x.ndim - 2))


class _Naive(ARModel):
    """A model seen through its `logits` alone."""

    def __init__(self, model: ARModel) -> None:
        super().__init__(model.shape, model.levels, model.classes, model.order)
        self.model, self.spec = model, model.spec
        self.to(model.device)

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        return self.model.logits(x, label)

    def log_prob(self, x: Tensor, label: Label = None) -> Tensor:
        return self.model.log_prob(x, label)


def naive(model: ARModel) -> ARModel:
    """The same model with `begin` and `step` as the full forward: what caching is held against."""
    return _Naive(model)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off, and back on afterwards exactly where it was on."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True
