"""Samplers: iterators from noise to an image, each a few lines over one contract.

All take ``(denoise, noise[B, C, H, W], grid, *, label, fresh, after)`` and yield n+1 states for a
grid of n+1 levels. State 0 is the noise scaled by the first sigma.

* ``fresh(i)`` gives the unit noise of the step that makes state i, so that a caller can let image
  j depend on its own noise only. Default: ``torch.randn_like``. Not called where no noise is added.
* ``after(x, alpha, sigma) -> x`` is applied to each new state at its new level (inpainting).

What is wrong with noise, grid or label is a ValueError when the first state is asked for.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from . import require
from .diffusion import Denoise, Denoiser, Label, clipped
from .guidance import guided
from .schedules import check_grid, from_spec

Fresh = Callable[[int], Tensor]
After = Callable[[Tensor, float, float], Tensor]


class State(NamedTuple):
    """One state of a chain: its index, the noisy image, and the clean image expected on the way."""

    i: int
    x: Tensor  # [B, C, H, W]
    x0: Tensor | None  # the step's first prediction; None for state 0


def _begin(denoise: Denoise, noise: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """State 0 and the grid, once a ValueError has said what of them cannot be sampled from."""
    if not callable(denoise):
        raise ValueError(f"denoise must be a function, such as a Denoiser, not {denoise!r:.40}")
    grid = check_grid(grid)
    return require.images("noise", noise) * grid[0, 1].item(), grid


def _steps(grid: Tensor) -> Iterator[tuple[int, float, float, float, float]]:
    """(i, alpha, sigma, next alpha, next sigma) of each step; i numbers the state it makes."""
    levels = enumerate(pairwise(grid.tolist()), 1)
    for i, ((alpha, sigma), (alpha_next, sigma_next)) in levels:
        yield i, alpha, sigma, alpha_next, sigma_next


@torch.no_grad()
def ddim(
    denoise: Denoise,
    noise: Tensor,
    grid: Tensor,
    *,
    label: Label = None,
    fresh: Fresh | None = None,
    after: After | None = None,
    eta: float = 0.0,
) -> Iterator[State]:
    """Song et al. 2021 (DDIM), eq. 12 and 16, for any Gaussian path. eta = 0 is deterministic."""
    require.real("eta", eta, 0)
    x, grid = _begin(denoise, noise, grid)
    yield State(0, x, None)
    for i, alpha, sigma, alpha_next, sigma_next in _steps(grid):
        x0, eps = denoise(x, alpha, sigma, label)
        # variance of q(x_next | x, x0) (Ho et al. 2020, eq. 7), written without division by 0
        variance = eta**2 * max(
            0.0, sigma_next**2 - (alpha / alpha_next * sigma_next**2 / sigma) ** 2
        )
        x = alpha_next * x0 + max(0.0, sigma_next**2 - variance) ** 0.5 * eps
        if variance > 0:
            unit = torch.randn_like(x) if fresh is None else fresh(i)
            x = x + variance**0.5 * require.tensor("fresh(i)", unit, *x.shape)
        if after is not None:
            x = after(x, alpha_next, sigma_next)
        yield State(i, x, x0)


def ddpm(
    denoise: Denoise,
    noise: Tensor,
    grid: Tensor,
    *,
    label: Label = None,
    fresh: Fresh | None = None,
    after: After | None = None,
) -> Iterator[State]:
    """Ancestral sampling with the posterior variance β̃ (Ho et al. 2020, alg. 2): ddim, eta = 1."""
    return ddim(denoise, noise, grid, label=label, fresh=fresh, after=after, eta=1.0)


@torch.no_grad()
def heun(
    denoise: Denoise,
    noise: Tensor,
    grid: Tensor,
    *,
    label: Label = None,
    fresh: Fresh | None = None,
    after: After | None = None,
) -> Iterator[State]:
    """The trapezoid rule on dx = x0·dα + eps·dσ: 2n - 1 calls (Karras et al. 2022, alg. 1).

    On alpha = 1 this is EDM's sampler without churn. Integrating in alpha and sigma, rather than
    x/alpha over sigma/alpha, stays accurate where alpha is nearly 0. ``fresh`` is never called.
    """
    x, grid = _begin(denoise, noise, grid)
    yield State(0, x, None)
    for i, alpha, sigma, alpha_next, sigma_next in _steps(grid):
        x0, eps = denoise(x, alpha, sigma, label)
        first = x0
        if sigma_next > 0:  # else the last step is ddim: there is no noise left to look at
            there = denoise(alpha_next * x0 + sigma_next * eps, alpha_next, sigma_next, label)
            x0, eps = (x0 + there.x0) / 2, (eps + there.eps) / 2
        x = x + (alpha_next - alpha) * x0 + (sigma_next - sigma) * eps
        if after is not None:
            x = after(x, alpha_next, sigma_next)
        yield State(i, x, first)


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoise,
    noise: Tensor,
    grid: Tensor,
    *,
    label: Label = None,
    fresh: Fresh | None = None,
    after: After | None = None,
) -> Iterator[State]:
    """DPM-Solver++(2M) (Lu et al. 2022, alg. 2): two orders for one call a step.

    x0 is extrapolated over half the step in log(alpha/sigma) from the last two predictions;
    first order where one of the three levels has alpha = 0 or sigma = 0. ``fresh`` is never called.
    """
    x, grid = _begin(denoise, noise, grid)
    log_ratio = grid[:, 0].log() - grid[:, 1].log()  # ±inf at the ends
    yield State(0, x, None)
    before = x  # replaced by the first prediction before it is used
    for i, alpha, sigma, alpha_next, sigma_next in _steps(grid):
        x0 = expected = denoise(x, alpha, sigma, label).x0
        if i > 1 and bool(log_ratio[i - 2 : i + 1].isfinite().all()):
            last_step, step = log_ratio.diff()[i - 2 : i].tolist()
            expected = x0 + step / (2 * last_step) * (x0 - before)
        shrink = sigma_next / sigma
        x = shrink * x + (alpha_next - alpha * shrink) * expected
        before = x0
        if after is not None:
            x = after(x, alpha_next, sigma_next)
        yield State(i, x, x0)


SAMPLERS: dict[str, Callable[..., Iterator[State]]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpmpp_2m": dpmpp_2m,
    "heun": heun,
}

S = TypeVar("S")


def last(states: Iterator[S]) -> S:
    """Run an iterator to its end and return its last item. ValueError if it has none."""
    tail = deque(states, maxlen=1)
    if not tail:
        raise ValueError("the iterator yielded nothing")
    return tail[0]


def sample(
    model: Denoiser,
    n: int,
    sampler: str = "dpmpp_2m",
    steps: int = 20,
    label: Label = None,
    guidance: float | None = None,
    seed: int = 0,
) -> Tensor:
    """n images from a pretrained ``Denoiser``, for people in a hurry: float, in [-1, 1].

    Returns [n, C, H, W]. Image shape and schedule come from ``model.info``. The seed fixes all
    noise; ``to_levels`` makes pixels. ValueError for an unknown sampler, n < 1, steps that the
    schedule does not have, or a model that is no ``Denoiser`` or whose ``info`` lacks shape or
    schedule.
    """
    require.choice("sampler", sampler, SAMPLERS)
    require.whole("the number of images", n)
    require.seed(seed)
    check_info(model, "schedule", "shape")
    grid = from_spec(model.info["schedule"]).grid(steps)
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device

    def unit(_: int = 0) -> Tensor:  # drawn on the CPU: the same images on every device
        return torch.randn(n, *model.info["shape"], generator=generator).to(device)

    denoise: Denoise = model if guidance is None else guided(model, guidance)
    states = SAMPLERS[sampler](clipped(denoise), unit(), grid, label=label, fresh=unit)
    return require.finite("the sampled images", last(states).x).clamp(-1, 1)


def check_info(model: Denoiser, *needed: str) -> None:
    """ValueError unless `model.info` has what is needed, and its shape fits the network."""
    if not isinstance(model, Denoiser):
        raise ValueError(
            "sample() is for diffusion models; an autoregressive one draws for itself, "
            "whole levels: model.sample(n)"
        )
    if missing := set(needed) - model.info.keys():
        raise ValueError(
            f"model.info lacks {', '.join(sorted(missing))}: `pretrained` fills it from what "
            "checkpoint.save(..., data=images, schedule=schedule) wrote"
        )
    shape = model.info["shape"]
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise ValueError(f"model.info['shape'] must be [C, H, W], not {shape!r}")
    if shape[0] != getattr(model.net, "channels", shape[0]):
        raise ValueError(f"the network is for {model.net.channels} channels, info says {shape[0]}")


__all__ = [
    "SAMPLERS",
    "After",
    "Fresh",
    "State",
    "check_info",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "heun",
    "last",
    "sample",
]
