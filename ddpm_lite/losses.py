"""The losses of both families, as functions (model, x, y, draws) -> scalar."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import diffusion, require
from .data import to_unit
from .draws import Draws
from .schedules import Schedule

__all__ = ["LossFn", "ar_loss", "diffusion_loss"]

# loss_fn(model, x uint8[B, C, H, W], y int64[B], draws) -> scalar
LossFn = Callable[[nn.Module, Tensor, Tensor, Draws], Tensor]


def _labels(model: nn.Module, y: Tensor, draws: Draws, drop: float) -> Tensor | None:
    """Labels [B] with a share `drop` of them −1, the null class; None for a model without."""
    spec: dict[str, Any] = model.spec  # type: ignore[assignment]
    if spec.get("net", spec).get("classes") is None:
        return None
    return torch.where(draws.uniform() < drop, -1, y)


def ar_loss(
    model: nn.Module, x: Tensor, y: Tensor, draws: Draws, label_drop: float = 0.0
) -> Tensor:
    """Mean exact negative log-likelihood in bits/dim, so that a curve reads like the result."""
    label = _labels(model, y, draws, label_drop)
    nats = -model.log_prob(x.long(), label)  # type: ignore[operator]  # [B]
    return nats.mean() / (math.log(2) * x[0].numel())


def diffusion_loss(
    schedule: Schedule,
    levels: int,
    label_drop: float = 0.0,
    weight: diffusion.Weight | None = None,
) -> LossFn:
    """Mean squared error of a Denoiser's raw output, at a random noise level for each image.

    A discrete schedule draws its level uniformly from 1, …, T (Ho et al. 2020, algorithm 1; level
    0 is the data), a continuous one its time from [0, 1). `weight(alpha, sigma) -> [B]` is one of
    `diffusion.weighting`; None weighs all levels alike (Ho et al. 2020, eq. 14).
    """

    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule must be one, such as Cosine(), not {schedule!r:.40}")
    require.whole("levels", levels, 2)
    require.real("label_drop", label_drop, 0, 1)

    def loss_fn(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        alpha, sigma = schedule.draw(draws.uniform())  # [B] float64
        noise, label = draws.normal(*x.shape[1:]), _labels(model, y, draws, label_drop)
        weights = None if weight is None else weight(alpha, sigma).to(noise)
        denoiser = cast(diffusion.Denoiser, model)
        return diffusion.loss(denoiser, to_unit(x, levels), alpha, sigma, noise, label, weights)

    return loss_fn
