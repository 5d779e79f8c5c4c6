"""What an argument must be, said once: each of these raises a ValueError of one line, or passes.

The line says which argument it was, what it must be, what it was, and, where that helps, what to
do. Comparisons are written so that NaN fails them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "choice",
    "device",
    "finite",
    "flag",
    "images",
    "real",
    "seed",
    "shape",
    "tensor",
    "whole",
]


def whole(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """A whole number from `low` to `high` (None: no end), as int. Booleans are no numbers."""
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    if not fits or value < low or (high is not None and value > high):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {span}, not {value!r}")
    return int(value)


def real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A finite number in [low, high], as float; `open_low`, `open_high` leave that end out."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    fits = fits and (low < value if open_low else low <= value)
    if not fits or not (value < high if open_high else value <= high):
        left = f"{'(' if open_low or low == -math.inf else '['}{low:g}"
        right = f"{high:g}{')' if open_high or high == math.inf else ']'}"
        raise ValueError(f"{name} must be a number in {left}, {right}, not {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False; "false", 0 and 1 are neither."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return value


def seed(value: Any) -> int:
    """A seed that both numpy and torch take: a whole number from 0 to 2^63 - 1."""
    return whole("seed", value, 0, 2**63 - 1)


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """One of the known names; the message lists them."""
    names = sorted(known)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"unknown {name} {value!r}: known are {', '.join(names)}")
    return value


def tensor(name: str, value: Any, *shape: int | None) -> Tensor:
    """A tensor; with `shape`, of that shape, None standing for any size."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ValueError(f"{name} must be a tensor, not {kind}: torch.as_tensor makes one")
    sizes = list(value.shape)
    if shape and (
        len(sizes) != len(shape)
        or any(w not in (None, s) for w, s in zip(shape, sizes, strict=True))
    ):
        wanted = ", ".join("any" if w is None else str(w) for w in shape)
        raise ValueError(f"{name} must have shape [{wanted}], not {sizes}")
    return value


def shape(value: Any) -> tuple[int, int, int]:
    """The shape (C, H, W) of an image: three whole numbers, none of them 0."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise ValueError(f"shape must be (C, H, W) with positive sizes, not {value!r}")
    channels, height, width = (whole("each size in shape (C, H, W)", size) for size in value)
    return channels, height, width


def finite(name: str, value: Tensor) -> Tensor:
    """No NaN and no infinity in it."""
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity: look at where it was made")
    return value


def images(name: str, value: Any) -> Tensor:
    """Finite floats [B, C, H, W] with B > 0: what a network is given. Whole levels are not."""
    value = tensor(name, value)
    if not value.is_floating_point():
        raise ValueError(f"{name} must be floats in about [-1, 1], not {value.dtype}: use to_unit")
    if value.ndim != 4 or not len(value):
        raise ValueError(f"{name} must be [B, C, H, W] with B > 0, not {list(value.shape)}")
    return finite(name, value)


def device(name: str | torch.device) -> torch.device:
    """A device that is here; "auto" is the accelerator where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)  # whoever is not here says so now, in many ways
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"there is no device {str(name)!r} here: use 'cpu' or 'auto'") from error
    return found
