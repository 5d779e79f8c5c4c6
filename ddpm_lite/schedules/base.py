"""What every schedule has: a path, levels (alpha, sigma) at each time, and grids for sampling."""

from typing import Any

import torch
from torch import Tensor

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
    spec: dict[str, Any]  # JSON: {"class": name, **arguments}; ``from_spec`` reads it back

    def __call__(self, t: Time) -> Levels:
        """Time t in [0, 1] (any shape) -> (alpha, sigma), float64, of the same shape."""
        raise NotImplementedError

    def grid(self, n: int) -> Tensor:
        """n sampling steps -> float64[n+1, 2]: rows (alpha, sigma), noisiest first, last (1, 0)."""
        raise NotImplementedError

    def draw(self, u: Tensor) -> Levels:
        """Uniforms u[B] in [0, 1) -> the levels (alpha[B], sigma[B]) of a training batch."""
        return self(u)

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
    t = torch.as_tensor(t, dtype=torch.float64)
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError("time must lie in [0, 1]: 0 is data, 1 is noise")
    return t


def check_steps(n: int) -> None:
    """ValueError unless there is at least one step."""
    if n < 1:
        raise ValueError(f"the number of steps must be at least 1, got {n}")
