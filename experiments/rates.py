"""Is one family's training touchier than the other's? Seven rates, five seeds, both.

    python experiments/rates.py        # 84 short runs, some six minutes of one core
    python experiments/rates.py unet   # one part: gated, unet, bare, compare

Two small nets on the digits with equally many parameters, as many updates, and, by the size of the
batch, as much arithmetic; the same optimiser, warm-up, decay, clipping and averaging. Writes
``ddpm_lite/results/rates.json``.

Written down before the run, with the rates, which a pilot of another seed had bracketed for the
U-Net and, for the PixelCNN, from below only. The rule of the ledger: the share of runs within 5 %
of the family's best validation loss, and the families count as alike where the shares differ by at
most ``ALIKE``, interval included. But 5 % of bits/dim
and 5 % of a squared error are two things: below either lies a floor that no net can pass, and the
floors differ. Hence a second rule without a unit: how far on the way from the untrained net to the
best run. A run is good if it went at least 95 % of that way; ``width`` is how many octaves of
learning rate are good, ``lost`` the share of runs that went less than half of it or were not
finite, ``spread`` how much seeds differ at the best rate.

Added when the PixelCNNs' losses were in: the U-Net normalises its layers and the PixelCNN does not,
which is no property of a family. ``bare`` is the same U-Net without, with fewer seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from _parts import run_parts
from torch import Tensor, nn

from ddpm_lite import cost, metrics
from ddpm_lite.ar import ARModel, GatedPixelCNN
from ddpm_lite.data import load
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.fit import averaged, fit, validation_loss
from ddpm_lite.record import record, results
from ddpm_lite.schedules import Cosine
from ddpm_lite.train import LossFn, TrainConfig, TrainState, ar_loss, diffusion_loss
from ddpm_lite.unet import UNet

SEEDS, STEPS = {"gated": 5, "unet": 5, "bare": 2}, 200
RATES = tuple(10 ** (k / 2) for k in range(-6, 1))  # 0.001 to 1, by half decades
OCTAVES = np.log2(10) / 2  # from one rate to the next
BATCH = {"gated": 16, "unet": 35, "bare": 35}  # a pass of the PixelCNN is dearer
LOSS: dict[str, LossFn] = {"gated": ar_loss}
LOSS["unet"] = LOSS["bare"] = diffusion_loss(Cosine(), 17)
REPEATS = {"gated": 1, "unet": 10, "bare": 10}  # a likelihood is exact, a diffusion loss draws
NEAR, WAY, NOTHING, ALIKE = 0.05, 0.95, 0.5, 0.15


def small(family: str, seed: int) -> nn.Module:
    """A net of some 18,000 parameters, without dropout; "bare" has its normalisations taken out."""
    torch.manual_seed(seed)
    if family == "gated":
        return GatedPixelCNN((1, 8, 8), 17, width=16, layers=3)
    net = UNet(1, 8, (1, 1), 1, (False, True))
    for module in list(net.modules()) if family == "bare" else ():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return Denoiser(net, "v", 0.8)


def valid_loss(family: str, model: nn.Module) -> float:
    """On the validation digits, with draws that never change."""
    images = load("digits", "valid")
    return validation_loss(model, images, LOSS[family], repeats=REPEATS[family])


def run(family: str, rate: float, seed: int) -> float:
    """Validation loss of the averaged weights; infinite if training was not finite."""
    model = small(family, seed)
    config = TrainConfig(STEPS, BATCH[family], lr=rate, warmup=20, ema=0.98, seed=seed)
    state = TrainState(model, config)
    try:
        list(fit(model, load("digits"), LOSS[family], config, state, every=STEPS, progress=False))
        after = valid_loss(family, averaged(model, state.ema))
    except FloatingPointError:
        return float("inf")
    return after if np.isfinite(after) else float("inf")


def near(runs: Tensor) -> float:
    """Share of runs [seeds,1+rates] within 5 % of the best loss; the first column is untrained."""
    after = runs[:, 1:]
    return (after <= (1 + NEAR) * after.min()).double().mean().item()


def way(runs: Tensor) -> Tensor:
    """Runs [seeds,1+rates], the first column untrained: the share of the way to the best run."""
    before, after = runs[:, :1], runs[:, 1:]
    return ((before - after) / (before - after.min())).clamp(min=0)


def good(runs: Tensor) -> float:
    """Share of runs that went 95 % of the way."""
    return (way(runs) >= WAY).double().mean().item()


def lost(runs: Tensor) -> float:
    """Share of runs that came to nothing."""
    return (way(runs) < NOTHING).double().mean().item()


def width(runs: Tensor) -> float:
    """Octaves of learning rate over which the mean of the seeds goes 95 % of the way."""
    fine = np.linspace(0, len(RATES) - 1, 601)
    mean = np.interp(fine, np.arange(len(RATES)), way(runs).mean(0).numpy())
    return float((mean >= WAY).mean() * fine[-1] * OCTAVES)


def spread(runs: Tensor) -> float:
    """Standard deviation of the seeds at the best rate, as a share of the way."""
    went = way(runs)
    return went[:, went.mean(0).argmax()].std(correction=0).item()


def measure(family: str) -> None:
    """All runs of one family."""
    rows = []
    for seed in range(SEEDS[family]):
        untrained = valid_loss(family, small(family, seed).eval())
        rows.append([untrained, *(run(family, rate, seed) for rate in RATES)])
        print(family, seed, *(f"{v:.4f}" for v in rows[-1]), flush=True)
    runs = torch.tensor(rows, dtype=torch.float64)
    finite = torch.where(runs.isfinite(), runs, -1.0)  # JSON knows no infinity
    model = small(family, 0)
    x, flat = torch.zeros(1, 1, 8, 8, dtype=torch.long), torch.zeros(1, 1, 8, 8)
    if isinstance(model, ARModel):
        unit, macs = "bits/dim", cost.macs(model.logits, x)
    else:
        unit, macs = "squared error", cost.macs(model, flat, 0.6, 0.8)
    record(
        f"rates/runs_{family}",
        {"untrained": runs[:, 0], "trained": finite[:, 1:], "way": way(runs).mean(0)},
        unit,
        rates=RATES,
        parameters=sum(p.numel() for p in model.parameters()),
        training_macs=3 * macs * BATCH[family] * STEPS,
        batch=BATCH[family],
        steps=STEPS,
    )


def compare() -> None:
    """Every figure for each family, and for the differences from the PixelCNN (AR less other)."""
    table = results("rates", os.environ["DDPM_LITE_RESULTS"])
    found = {}
    for family in BATCH:
        kept = table[f"runs_{family}"]["value"]
        trained = torch.tensor(kept["trained"], dtype=torch.float64)
        trained[trained < 0] = torch.inf
        untrained = torch.tensor(kept["untrained"], dtype=torch.float64)
        found[family] = torch.cat([untrained[:, None], trained], 1)  # [seeds,1+rates]
        record(f"rates/best_{family}", RATES[int(way(found[family]).mean(0).argmax())])
    for name, (fn, unit) in FIGURES.items():
        for family, runs in found.items():
            value, *ends = metrics.bootstrap(fn, runs)
            n = runs[:, 1:].numel()
            record(f"rates/{name}_{family}", value, unit, ends, n, seeds=len(runs))
            if family == "gated":
                continue
            value, *ends = metrics.bootstrap(
                lambda a, b, fn=fn: fn(a) - fn(b),
                found["gated"],
                runs,
            )
            more = {"alike": max(map(abs, ends)) <= ALIKE} if name in ("near", "good") else {}
            record(f"rates/{name}_gated_{family}", value, unit, ends, **more)


FIGURES: dict[str, tuple[Callable[[Tensor], float], str]] = {
    "near": (near, ""),
    "good": (good, ""),
    "lost": (lost, ""),
    "width": (width, "octaves"),
    "spread": (spread, ""),
}
PARTS = {name: partial(measure, name) for name in BATCH} | {"compare": compare}

if __name__ == "__main__":
    run_parts(PARTS)
