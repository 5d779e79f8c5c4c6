"""What a call costs: multiply-accumulates, and seconds measured so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Timing", "interleaved_medians", "macs"]


def macs(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Multiply-accumulates that one call of `fn(*args, **kwargs)` executes.

    Counts matrix products, convolutions and attention as torch runs them (`FlopCounterMode`, two
    FLOPs each); element-wise work is not counted. A masked convolution counts as the dense one that
    is executed.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fn(*args, **kwargs)
    return int(counter.get_total_flops()) // 2


class Timing(NamedTuple):
    """Seconds of one call: median and quartiles over the repeats."""

    median: float
    low: float
    high: float


def interleaved_medians(
    candidates: Mapping[str, Callable[[], Any]], repeats: int = 7, warmup: int = 2
) -> dict[str, Timing]:
    """Time callables against one another in this process: {name: Timing in seconds}.

    Each round calls every candidate once, so that a drift of the machine (heat, neighbours) falls
    on all alike; odd rounds go backwards. Medians, because the noise of a clock has one long tail.
    On an accelerator a candidate must end with a synchronisation.
    """
    if not candidates or repeats < 1 or warmup < 0:
        raise ValueError("timing needs at least one candidate, one repeat and no negative warmup")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for k in range(-warmup, repeats):
        for name in list(candidates) if k % 2 == 0 else list(candidates)[::-1]:
            start = time.perf_counter()
            candidates[name]()
            if k >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: _timing(values) for name, values in seconds.items()}


def _timing(values: list[float]) -> Timing:
    quartiles = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
    )
    return Timing(*quartiles.tolist())
