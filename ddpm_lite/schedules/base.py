"""What every schedule has: a path, levels (alpha, sigma) at each time, and grids for sampling."""

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .. import require

Time = float | Tensor
Levels = tuple[Tensor, Tensor]  # (alpha, sigma), float64, of one shape


def on_path(alpha: Tensor, sigma: Tensor, path: str) -> Levels:
    """The point of ``path`` with the same ratio sigma/alpha. ValueError for an unknown path."""
    if path == "vp":
        scale = torch.hypot(alpha, sigma)
    elif path == "flow":
        scale = alpha + sigma
    elif path == "ve":
        scale = alpha
    else:
        raise ValueError(f"unknown path {path!r}: choose 'vp', 'flow' or 've'")
    return alpha / scale, sigma / scale


class Schedule:
    """A path and a ratio on it. Subclasses give ``__call__``, ``grid`` and ``draw``."""

    path: str
    steps: int | None = None  # T of a table of levels; None where time is continuous
    spec: dict[str, Any]  # JSON: {"class": name, **arguments}; ``from_spec`` reads it back

    def __call__(self, t: Time) -> Levels:
        """Time t in [0, 1] (any shape) -> (alpha, sigma), float64, of the same shape."""
        raise NotImplementedError

    def grid(self, n: int) -> Tensor:
        """n sampling steps -> float64[n+1, 2]: rows (alpha, sigma), noisiest first, last (1, 0)."""
        raise NotImplementedError

    def draw(self, u: Tensor) -> Levels:
        """Uniforms u[B] in [0, 1) -> the levels (alpha[B], sigma[B]) of a training batch."""
        return self(as_unit(u))

    def snr(self, t: Time) -> Tensor:
        """Signal-to-noise ratio alpha² / sigma²; inf where sigma is 0."""
        alpha, sigma = self(t)
        return (alpha / sigma) ** 2

    def log_snr(self, t: Time) -> Tensor:
        """log(alpha² / sigma²) in nats; ±inf at the ends that carry no noise or no signal."""
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())


def as_time(t: Time) -> Tensor:
    """t as float64; ValueError outside [0, 1], NaN included."""
    if not isinstance(t, Real | Tensor):
        raise ValueError(f"time must be a number or a tensor of them, not {t!r}")
    t = torch.as_tensor(t, dtype=torch.float64)
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError("time must lie in [0, 1]: 0 is data, 1 is noise")
    return t


def check_steps(n: int) -> None:
    """ValueError unless there is at least one step."""
    require.whole("the number of steps", n)


def check_grid(grid: Tensor) -> Tensor:
    """A grid, as float64 on the CPU; ValueError unless it is one that can be walked down.

    Rows (alpha, sigma), two at least, finite and not negative, the noisiest first and each less
    noisy than the one before; sigma may be 0 in the last row only.
    """
    rows = require.finite("grid", require.tensor("grid", grid, None, 2)).double().cpu()
    alpha, sigma = rows.unbind(1)
    falling = sigma[:-1] * alpha[1:] > sigma[1:] * alpha[:-1]  # sigma/alpha, where alpha may be 0
    if len(rows) < 2 or not bool((rows >= 0).all() and (sigma[:-1] > 0).all() and falling.all()):
        raise ValueError(
            "grid must have two rows (alpha, sigma) or more, the noisiest first: schedule.grid(n)"
        )
    return rows


def as_unit(u: Tensor) -> Tensor:
    """u as float64; ValueError outside [0, 1), NaN included."""
    u = require.tensor("u", u).double()
    if not bool(((u >= 0) & (u < 1)).all()):
        raise ValueError("u must lie in [0, 1)")
    return u
