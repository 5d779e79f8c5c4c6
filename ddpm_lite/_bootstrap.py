"""Bootstrap intervals: how far a figure would move, had other rows been drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import require

__all__ = ["Interval", "bootstrap", "nested_bootstrap"]


class Interval(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


def bootstrap(
    fn: Callable[..., float],
    *arrays: Tensor,
    n: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of `fn(*arrays)`: rows of each array are redrawn independently.

    Percentiles of n redrawn values (Efron and Tibshirani 1993, chapter 13), shifted so that their
    mean is the value: a redrawn row appears twice, which inflates `frechet` and `kernel_distance`
    and would leave the value outside of its interval. What the value's own bias is, the floor
    tells. Arrays that belong together row by row go in as one (`torch.stack(..., 1)`).
    """
    _check_bootstrap(arrays, n, level, seed)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        redrawn = [a[torch.from_numpy(rng.integers(0, len(a), len(a)))] for a in arrays]
        values.append(float(fn(*redrawn)))
    value = float(fn(*arrays))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) - np.mean(values) + value
    return Interval(value, float(low), float(high))


def nested_bootstrap(
    fn: Callable[[Tensor], float],
    groups: Sequence[Tensor],
    n: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of `fn` over groups: groups are redrawn, then rows in each.

    A group is one training seed's array [N, ...]: the interval covers that another training would
    come out differently, and that other images would have been drawn. Shifted as `bootstrap` is.
    Few groups make it too narrow: of g equally good ones it sees (g - 1)/g of their variance.
    """
    _check_bootstrap(groups, n, level, seed)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        drawn = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        redrawn = [a[torch.from_numpy(rng.integers(len(a), size=len(a)))] for a in drawn]
        values.append(np.mean([fn(a) for a in redrawn]))
    value = float(np.mean([fn(a) for a in groups]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) - np.mean(values) + value
    return Interval(value, float(low), float(high))


def _check_bootstrap(arrays: Sequence[Tensor], n: int, level: float, seed: int) -> None:
    require.whole("n", n)
    require.seed(seed)
    require.real("level", level, 0, 1, open_low=True, open_high=True)
    if not arrays or any(len(require.tensor("each array", a)) == 0 for a in arrays):
        raise ValueError("a bootstrap needs non-empty arrays")
