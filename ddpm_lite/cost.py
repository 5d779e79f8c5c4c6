"""What a call costs: multiply-accumulates, and seconds measured so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Timing", "interleaved", "interleaved_medians", "macs"]


def macs(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Multiply-accumulates that one call of `fn(*args, **kwargs)` executes.

    Counts matrix products, convolutions and attention as torch runs them (`FlopCounterMode`, two
    FLOPs each); element-wise work is not counted. A masked convolution counts as the dense one that
    is executed; causal attention as the pairs of tokens that may attend.
    """
    also = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=also) as counter, torch.no_grad():
        fn(*args, **kwargs)
    return int(counter.get_total_flops()) // 2


def _attention_flops(
    q: Sequence[int],
    k: Sequence[int],
    v: Sequence[int],
    dropout: float = 0.0,
    causal: bool = False,
    **_: object,
) -> int:
    """Of the processor's fused attention, missing in torch's table: shapes [B,heads,T,size]."""
    B, heads, T, size = q
    pairs = T * (T + 1) // 2 if causal else T * k[2]
    return 2 * B * heads * pairs * (size + v[3])


class Timing(NamedTuple):
    """Seconds of one call: median and quartiles over the repeats."""

    median: float
    low: float
    high: float


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time callables against one another in this process: {name: seconds of each round}.

    Each round calls every candidate once, so that a drift of the machine (heat, neighbours) falls
    on all alike; odd rounds go backwards. Ratios are taken within a round. On an accelerator a
    candidate must end with a synchronisation. `time.process_time` as `clock` leaves out the time
    that other processes had; it adds up the seconds of this process's threads, so use it with one.
    """
    if not candidates or repeats < 1 or warmup < 0:
        raise ValueError("timing needs at least one candidate, one repeat and no negative warmup")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for k in range(-warmup, repeats):
        for name in list(candidates) if k % 2 == 0 else list(candidates)[::-1]:
            start = clock()
            candidates[name]()
            if k >= 0:
                seconds[name].append(clock() - start)
    return seconds


def interleaved_medians(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """What `interleaved` measured, in short: {name: Timing in seconds}.

    Medians, because the noise of a clock has one long tail.
    """
    seconds = interleaved(candidates, repeats, warmup, clock)
    return {name: _timing(values) for name, values in seconds.items()}


def _timing(values: list[float]) -> Timing:
    quartiles = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
    )
    return Timing(*quartiles.tolist())
