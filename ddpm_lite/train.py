"""One training loop for both families: the loss is a function, the loop an iterator.

Batches and draws are functions of (seed, step), dropout of (seed, step, rank). So a resumed run is
the run that was interrupted, bit for bit on one machine, and two processes train the model that one
process trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from . import require
from .data import Images
from .diffusion import WEIGHTS, Denoiser, weighting
from .draws import Draws, batch_indices, seeded, share
from .losses import LossFn, ar_loss, diffusion_loss
from .schedules import Schedule

__all__ = [
    "LossFn",
    "Step",
    "TrainConfig",
    "TrainState",
    "ar_loss",
    "diffusion_loss",
    "loss_for",
    "train",
]


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Everything a run depends on, beside the model, the images and the loss.

    Attributes:
        steps: length of the run in optimiser steps; the learning rate's decay ends there.
        batch: images per step over all processes.
        lr: highest learning rate of AdamW, reached after `warmup` steps of linear growth.
        decay: "cosine" (to zero at `steps`) or "none".
        weight_decay: AdamW's, on parameters of two or more axes only.
        clip: largest norm of the gradient; longer ones are scaled down to it.
        ema: decay of the averaged weights; after s steps min(ema, (1 + s) / (10 + s)) is used, so
            that a short run's average is not dominated by the first weights.
        label_drop: probability with which a label is replaced by the null class.
        weight: of a diffusion loss: "uniform", "min-snr" or "elbo" (`diffusion.weighting`).
        bf16: run the forward pass under bfloat16 autocast.
        channels_last: keep convolution weights in channels-last layout (faster with bf16 on CPU).
        seed: of batch order, draws and dropout (not of the initial weights).
    """

    steps: int = 1500
    batch: int = 64
    lr: float = 2e-3
    warmup: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.995
    label_drop: float = 0.1
    weight: str = "uniform"
    bf16: bool = False
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 1), ("warmup", 0)):
            require.whole(name, getattr(self, name), low)
        require.seed(self.seed)
        require.choice("weight", self.weight, WEIGHTS)
        require.choice("decay", self.decay, ("cosine", "none"))
        for name in ("lr", "clip"):
            require.real(name, getattr(self, name), 0, open_low=True)
        require.real("weight_decay", self.weight_decay, 0)
        for name in ("ema", "label_drop"):
            require.real(name, getattr(self, name), 0, 1, open_high=True)
        for name in ("bf16", "channels_last"):
            require.flag(name, getattr(self, name))

    def lr_at(self, step: int) -> float:
        """The learning rate of step `step` = 0, 1, …, steps − 1."""
        rate = self.lr * min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return rate


class TrainState:
    """What a run carries from step to step beside the model's own weights.

    `step` counts the finished steps; `optimizer` is AdamW; `ema` holds a name -> tensor table of
    averaged weights (buffers of integers are copied: their average means nothing); `best`,
    `best_loss`, `best_step` hold the averaged weights that did best on the validation images, where
    somebody watches them (`fit`).
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
        )
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.best: dict[str, Tensor] | None = None
        self.best_loss, self.best_step = math.inf, 0

    @torch.no_grad()
    def advance(self, model: nn.Module) -> None:
        """One step of the optimiser has been taken: average the weights and count it."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)
        self.step += 1

    def weights(self) -> dict[str, Tensor]:
        """The weights to use the model with: the best average that was seen, else the latest."""
        return self.ema if self.best is None else self.best


class Step(NamedTuple):
    """What `train` yields: the count of finished steps, the loss, the gradient's norm unclipped."""

    step: int
    loss: float
    grad_norm: float


class _Loss(nn.Module):
    """What DDP wraps. Around the model itself it would hide `log_prob` and miss its gradients."""

    def __init__(self, model: nn.Module, loss_fn: LossFn) -> None:
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return self.loss_fn(self.model, x, y, draws)


def _check(model: nn.Module, images: Images, state: TrainState) -> None:
    """ValueError for images that are none, or whose size, levels or labels the model is not for."""
    if not isinstance(images, Images):
        raise ValueError(f"images must be data.Images, not {type(images).__name__}")
    if len(images) == 0:
        raise ValueError("there are no images to train on")
    spec: dict[str, Any] = getattr(model, "spec", {})
    net = spec.get("net", spec)
    for name, has in (("shape", list(images.shape)), ("levels", images.levels)):
        if net.get(name, has) != has:
            raise ValueError(f"the model is for {name} {net[name]}, {images.name} has {has}")
    if net.get("channels", images.shape[0]) != images.shape[0]:
        raise ValueError(
            f"the network is for {net['channels']} channels, {images.name} has {images.shape[0]}"
        )
    classes, top = net.get("classes"), int(images.y.max())
    if classes is not None and top >= classes:
        raise ValueError(
            f"{images.name} has labels up to {top}, the model classes={classes}: "
            f"give it {top + 1} or none"
        )
    own = {id(p) for p in model.parameters()}
    stepped = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    if state.ema.keys() != model.state_dict().keys() or not stepped <= own:
        raise ValueError("this state belongs to another model: make it with TrainState(model, ...)")


def train(
    model: nn.Module, images: Images, loss_fn: LossFn, config: TrainConfig, state: TrainState
) -> Iterator[Step]:
    """Train `model` in place from `state.step` to `config.steps`, yielding after every step.

    `state` is advanced before each yield, so that it can be saved there. Under torchrun (an
    initialised process group) every process calls this with the same arguments.

    Raises ValueError for images that do not fit the model and for a batch that the processes cannot
    share evenly, FloatingPointError where the loss or the gradient is not finite (model and state
    are then those of the step before).
    """
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    _check(model, images, state)
    device = next(model.parameters()).device
    x, y = images.x.to(device), images.y.to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss_of: nn.Module = _Loss(model, loss_fn)
    if ranks > 1:
        loss_of = DistributedDataParallel(loss_of)
    while state.step < config.steps:
        model.train()  # whoever consumed the last step may have evaluated
        at = batch_indices(len(images), config.batch, config.seed, state.step)
        rows = torch.from_numpy(at[share(config.batch, rank, ranks)]).to(device)
        draws = Draws(config.seed, state.step, config.batch, rank, ranks, device)
        with seeded(device, config.seed, state.step, rank):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                loss = loss_of(x[rows], y[rows], draws)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        loss = loss.detach() / ranks
        if ranks > 1:
            dist.all_reduce(loss)
        if not (loss.isfinite() and norm.isfinite()):
            raise FloatingPointError(
                f"loss {loss:.4g}, gradient norm {norm:.4g} in step {state.step + 1}: lower the lr"
            )
        for group in state.optimizer.param_groups:
            group["lr"] = config.lr_at(state.step)
        state.optimizer.step()
        state.advance(model)
        yield Step(state.step, loss.item(), norm.item())


def loss_for(
    model: nn.Module, levels: int, config: TrainConfig, schedule: Schedule | None = None
) -> LossFn:
    """The loss that goes with a model and a config.

    ValueError for a denoiser without a schedule, and for a weight where there are no noise levels.
    """
    if isinstance(model, Denoiser):
        if schedule is None:
            raise ValueError("a denoiser is trained on a schedule: give one, such as Cosine()")
        weight = weighting(config.weight, model, schedule)
        return diffusion_loss(schedule, levels, config.label_drop, weight)
    if config.weight != "uniform":
        raise ValueError(
            f"weight={config.weight!r} weighs noise levels: a {type(model).__name__} has none"
        )
    if not hasattr(model, "log_prob"):
        raise ValueError(f"a {type(model).__name__} is neither autoregressive nor a Denoiser")
    return partial(ar_loss, label_drop=config.label_drop)
