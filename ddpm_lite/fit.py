"""Training with an eye on the validation split: averaged weights, the best of them kept.

A thousand digits overfit within minutes; what is kept is the averaged weights that did best on
images which no gradient saw. Both families are treated alike.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import require
from .data import Images
from .draws import Draws
from .train import LossFn, TrainConfig, TrainState, train

__all__ = ["Check", "averaged", "fit", "validation_loss"]


class Check(NamedTuple):
    """A look at the run: finished steps, mean training loss since the last look, validation loss.

    `valid` is the averaged weights' loss, None without validation images; units are the loss's.
    """

    step: int
    loss: float
    valid: float | None


def fit(
    model: nn.Module,
    images: Images,
    loss_fn: LossFn,
    config: TrainConfig,
    state: TrainState,
    *,
    valid: Images | None = None,
    every: int = 100,
    patience: int | None = None,
    repeats: int = 1,
    progress: bool | None = None,
) -> Iterator[Check]:
    """Train from `state.step`, yielding a `Check` every `every` steps and at the end.

    With `valid`, the best averaged weights are kept in `state.best`, and training ends when
    `patience` steps have brought nothing better (None: never). `averaged(model, state.weights())`
    is then the model to use; `model` itself stays as training left it, so a saved run can go on.
    `repeats` is `validation_loss`'s. `progress` shows a bar with loss and time left; None shows it
    on a terminal only.

    Raises as `train` does, and ValueError for `every` < 1.
    """
    from tqdm.auto import tqdm

    require.whole("every", every)
    require.whole("repeats", repeats)
    if patience is not None:
        require.whole("patience", patience)
    if valid is not None and len(valid) == 0:
        raise ValueError("there are no images to validate on")
    disable = None if progress is None else not progress  # None: tqdm looks for a terminal
    losses: list[float] = []

    def exhausted() -> bool:
        waited = state.step - state.best_step
        return valid is not None and patience is not None and waited >= patience

    if exhausted():  # a run that had stopped before it was saved
        return
    with tqdm(total=config.steps, initial=state.step, disable=disable, unit="step") as bar:
        for step in train(model, images, loss_fn, config, state):
            losses.append(step.loss)
            bar.update()
            bar.set_postfix(loss=f"{step.loss:.4f}", best=f"{state.best_loss:.4f}", refresh=False)
            if step.step % every and step.step < config.steps:
                continue
            check = Check(step.step, sum(losses) / len(losses), None)
            losses.clear()
            if valid is not None:
                now = validation_loss(averaged(model, state.ema), valid, loss_fn, repeats=repeats)
                now = _of_first_process(now, next(model.parameters()).device)
                if not math.isfinite(now):
                    raise FloatingPointError(
                        f"the validation loss is {now} at step {step.step}: lower lr, raise warmup"
                    )
                check = check._replace(valid=now)
                if now < state.best_loss:
                    state.best_loss, state.best_step = now, step.step
                    state.best = {k: v.clone() for k, v in state.ema.items()}
            yield check
            if exhausted():
                return


def averaged(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A copy of `model` in eval mode that holds `weights`."""
    twin = copy.deepcopy(model).eval()
    twin.load_state_dict(weights)
    return twin


def _of_first_process(value: float, device: torch.device) -> float:
    """GPUs may round apart, but all processes must find the same best step, and stop there."""
    if not dist.is_initialized():
        return value
    told = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(told, 0)
    return told.item()


@torch.no_grad()
def validation_loss(
    model: nn.Module, images: Images, loss_fn: LossFn, batch: int = 250, repeats: int = 1
) -> float:
    """The mean loss over `images`, `repeats` times with draws that never change.

    The same draws each time make two looks comparable. A diffusion loss, noisy in its levels, wants
    several repeats; an exact likelihood needs one.
    """
    require.whole("batch", batch)
    require.whole("repeats", repeats)
    if len(images) == 0:
        raise ValueError("there are no images to validate on")
    device = next(model.parameters()).device
    total = 0.0
    for repeat in range(repeats):
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            draws = Draws(_SEED, repeat * len(images) + start, len(part), device=device)
            loss = loss_fn(model, part.x.to(device), part.y.to(device), draws)
            total += loss.item() * len(part)
    return total / (repeats * len(images))


_SEED = 2**32  # no training seed that anybody types: its draws are not those of a training step
