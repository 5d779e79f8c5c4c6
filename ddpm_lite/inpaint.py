"""Filling a hole with a diffusion model that was never trained to: two ways, both approximate.

``replacement`` is a hook for any sampler's ``after``; ``repaint`` is an iterator of the same states
around one. Known pixels are exact at the end in both. The rest would have to be drawn from
p(unknown | known), and is not quite: see each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

from . import require
from .diffusion import Denoise, Label
from .samplers import After, Fresh, State, ddpm, last
from .schedules import check_grid

__all__ = ["Known", "repaint", "replacement"]

Known = tuple[Tensor, Tensor]  # (mask bool[C, H, W], values [C, H, W] or [B, C, H, W] in [-1, 1])


def replacement(known: Known, fresh: Fresh | None = None) -> After:
    """An ``after`` that puts the known pixels, noised to the new level, into every state.

    Song et al. 2021b, app. I.2. The noise is that of the *next* level, where the state has just
    arrived; at sigma = 0 there is none, and known pixels come out exactly. It is biased: a step
    looks at known pixels, but what it settled before cannot be taken back, so that the two parts
    agree less than they should, however many steps there are.

    Args:
        known: mask (True where a pixel is known) and values, as autoregressive models take them.
        fresh: draw number i = 1, 2, … of unit noise, of the state's shape; default randn_like.
    """
    mask, values = known
    require.tensor("mask", mask, None, None, None)
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool[C, H, W], True where known, not {mask.dtype}")
    if not values.is_floating_point() or values.shape[-3:] != mask.shape:
        raise ValueError(f"values must be floats [(B,) C, H, W] like the mask {[*mask.shape]}")
    numbers = count(1)

    def after(x: Tensor, alpha: float, sigma: float) -> Tensor:
        there = alpha * values.to(x)
        if sigma > 0:
            there = there + sigma * (torch.randn_like(x) if fresh is None else fresh(next(numbers)))
        return torch.where(mask.to(x.device), there, x)

    return after


@torch.no_grad()
def repaint(
    denoise: Denoise,
    noise: Tensor,
    grid: Tensor,
    known: Known,
    *,
    resample: int = 10,
    jump: int = 1,
    sampler: Callable[..., Iterator[State]] = ddpm,
    label: Label = None,
    fresh: Fresh | None = None,
) -> Iterator[State]:
    """``replacement``, with every ``jump`` steps taken ``resample`` times (Lugmayr et al. 2022).

    After each but the last time the state is noised back to where the steps began: a Gibbs sampler
    between the two levels, in which the unknown pixels get used to the known ones. The bias falls
    with ``resample``; resample = 1 is plain replacement. The steps must be small: what a coarse one
    loses in variance it loses ``resample`` times (``ddpm`` the most). Unlike in their algorithm 1,
    the last steps, which end at clean images, are repeated too.

    Yields the n + 1 states of a sampler, those of the last time; costs ``resample`` times the
    calls. ``fresh(i)`` gives draw number i = 1, 2, … of unit noise, of whatever use.
    """
    require.whole("resample", resample)
    require.whole("jump", jump)
    grid, numbers = check_grid(grid), count(1)

    def draw(_: int = 0) -> Tensor:
        return torch.randn_like(noise) if fresh is None else fresh(next(numbers))

    after = replacement(known, draw)
    x = noise * grid[0, 1].item()
    yield State(0, x, None)
    for start in range(0, len(grid) - 1, jump):
        part = grid[start : start + jump + 1]
        (alpha, sigma), (alpha_end, sigma_end) = part[0].tolist(), part[-1].tolist()
        kept = alpha / alpha_end
        spread = (sigma**2 - (kept * sigma_end) ** 2) ** 0.5  # of q(x at start | x at end)
        for _ in range(resample - 1):
            end = last(sampler(denoise, x / sigma, part, label=label, fresh=draw, after=after)).x
            x = kept * end + spread * draw()
        for state in sampler(denoise, x / sigma, part, label=label, fresh=draw, after=after):
            if state.i:
                yield State(start + state.i, state.x, state.x0)
        x = state.x
