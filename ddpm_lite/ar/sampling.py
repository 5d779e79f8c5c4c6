"""Drawing images rank by rank: the canvas, the draw, and the loop that joins them to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import require

Known = tuple[Tensor, Tensor]  # (mask bool[C,H,W], values [C,H,W] or [n,C,H,W])


class State(NamedTuple):
    """One step of sampling: rank `i` has just been written.

    `x` int64[n,C,H,W] is the live canvas (clone it to keep it); ranks above `i` still hold 0.
    `logits` [n,K] are those of rank `i` as the model gave them, before the temperature.
    """

    i: int
    x: Tensor
    logits: Tensor


class Cache:
    """What lives between steps: the canvas, the labels, and what the model remembers.

    x: int64[n,C,H,W].  label: as given.  y: its embedding rows int64[n], or None.
    buffers: the model's own; pixel: the head's state of the pixel being drawn.
    """

    def __init__(
        self,
        n: int,
        shape: tuple[int, int, int],
        order: Tensor,
        label: int | Tensor | None,
        y: Tensor | None,
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        self.x = torch.zeros(n, *shape, dtype=torch.int64, device=order.device)
        self.label, self.y = label, y
        self.buffers: Any = None
        self.pixel: Any = None
        self._flat = self.x.view(n, -1)  # shares memory with x
        self._order = order.tolist()
        self._stepped = self._filled = 0

    def advance(self, i: int) -> None:
        """Claim rank `i`: ranks come in order, once each, and each is filled before the next."""
        if self._stepped > self._filled:
            raise ValueError(f"step({i}) before put({self._filled}, value)")
        if self._stepped == len(self._order):
            raise ValueError(f"step({i}), but every rank is filled: begin a new cache")
        if i != self._stepped:
            raise ValueError(f"step({i}) is out of order: next comes step({self._stepped})")
        self._stepped += 1

    def put(self, i: int, value: int | Tensor) -> None:
        """Write the value (an int or int64[n], levels 0..K-1) of rank `i`, just stepped."""
        if i != self._filled or self._stepped != self._filled + 1:
            raise ValueError(f"put({i}) without step({i}) just before it")
        value = torch.as_tensor(value)
        if value.is_floating_point() or value.shape not in ((), (len(self.x),)):
            raise ValueError(f"put({i}) takes a level, an int or int64[{len(self.x)}]")
        self._flat[:, self._order[i]] = value
        self._filled += 1


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """Inverse CDF: logits [n,K], u float64[n] in [0,1) -> int64[n].

    The first k with cdf_k > u·cdf_K, in float64: never a level of probability 0, whatever the
    rounding, because there cdf_k = cdf_(k-1). ValueError for logits that are not numbers.
    """
    cdf = F.softmax(logits, -1, dtype=torch.float64).cumsum(-1)  # [n,K]
    total = cdf[:, -1:]
    if bool(total.isnan().any()):
        raise ValueError("logits are not finite: is the temperature too small, or a weight NaN?")
    return torch.searchsorted(cdf, u[:, None] * total, right=True)[:, 0]


def uniforms(n: int, D: int, u: Tensor | None, seed: int) -> Tensor:
    """`u` itself if it is float64[n,D] in [0,1); drawn from `seed` if it is None."""
    if u is None:
        require.seed(seed)
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(n, D, dtype=torch.float64, generator=generator)
    require.tensor("u", u)
    if u.shape != (n, D) or u.dtype != torch.float64:
        raise ValueError(f"u must be float64[{n},{D}], not {u.dtype}{list(u.shape)}")
    if not bool(((u >= 0) & (u < 1)).all()):
        raise ValueError("u must lie in [0, 1)")
    return u


def known_by_rank(
    known: Known | None, n: int, shape: tuple[int, int, int], levels: int, order: Tensor
) -> dict[int, Tensor]:
    """The given ranks and their values int64[n]."""
    if known is None:
        return {}
    if not isinstance(known, tuple) or len(known) != 2:
        raise ValueError("known must be a pair (mask, values)")
    mask, values = (require.tensor("known: mask and values", part) for part in known)
    if mask.shape != shape or mask.dtype != torch.bool:
        raise ValueError(f"known: mask must be bool{list(shape)}, not {mask.dtype}{[*mask.shape]}")
    if values.shape not in (shape, (n, *shape)) or values.is_floating_point():
        raise ValueError(f"known: values must be integers of shape {shape} or {(n, *shape)}")
    values = values.to(order.device, torch.int64).expand(n, *shape).flatten(1)[:, order]  # [n,D]
    ranks = mask.to(order.device).flatten()[order].nonzero()[:, 0].tolist()
    if ranks and not 0 <= int(values[:, ranks].min()) <= int(values[:, ranks].max()) < levels:
        raise ValueError(f"known: values must lie in 0..{levels - 1}")
    return {i: values[:, i] for i in ranks}


@torch.no_grad()  # decorated: a `with` around a yield would switch off the consumer's gradients
def steps(
    step: Callable[[Cache, int], Tensor],
    cache: Cache,
    u: Tensor,
    known: dict[int, Tensor],
    temperature: float,
) -> Iterator[State]:
    """Step, draw (or take what is known), put: once for each rank."""
    for i in range(u.shape[1]):
        logits = step(cache, i)  # [n,K]
        cache.put(i, known[i] if i in known else draw(logits / temperature, u[:, i]))
        yield State(i, cache.x, logits)
