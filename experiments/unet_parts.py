"""What each part of a U-Net, each target, each weight and each training image is worth.

    python experiments/unet_parts.py            # all parts, some eight minutes of one core
    python experiments/unet_parts.py ablation   # one: ablation, curve, targets, size, experts

One small net on the digits, trained again and again with one thing changed. ``ablation`` takes a
part out without taking a parameter away; ``targets`` changes what is asked and what counts;
``curve`` follows one run's loss and its samples; ``size`` trains on fewer images, on two disjoint
sets of each size, and asks whether the samples are copies; ``experts`` gives each quarter of the
noise levels a net of its own, all together as large as the shared one, trained with as much
arithmetic. Writes ``ddpm_lite/results/parts.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from _parts import run_parts
from torch import Tensor, nn

from ddpm_lite import metrics, samplers
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import Images, load, to_levels, to_unit
from ddpm_lite.diffusion import Denoise, Denoiser, clipped, diffuse, elbo, loss, weighting
from ddpm_lite.draws import Draws
from ddpm_lite.fit import averaged, fit, validation_loss
from ddpm_lite.record import record
from ddpm_lite.schedules import Cosine
from ddpm_lite.train import TrainConfig, TrainState, diffusion_loss
from ddpm_lite.unet import Attention, Block, UNet

SEEDS, STEPS, N = (0, 1, 2), 300, 1000
LOOKS, LATE = (50, 100, 200, 400, 800, 1200), 4  # at these steps; late is from the fifth on
LEVELS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)  # times
COSINE, SIGMA_DATA = Cosine(), 0.8
SIZES = (10, 30, 100, 500)


def small(seed: int, predicts: str = "v", width: int = 16, dropout: float = 0.0) -> Denoiser:
    torch.manual_seed(seed)
    net = UNet(1, width, (1, 1), 1, (False, True), dropout=dropout)
    return Denoiser(net, predicts, SIGMA_DATA)


def without(model: Denoiser, part: str) -> Denoiser:
    """The model with one part of no effect; its parameters are all still there."""
    net = cast(UNet, model.net)
    if part == "skips":  # the way up reads its own input twice
        for block in net.up:
            if isinstance(block, Block):
                block.register_forward_pre_hook(_twice)
    if part == "noise level":  # the same number whatever the level
        net.embed.register_forward_pre_hook(lambda module, args: (0 * args[0],))
    if part == "attention":  # every position reads its own value only
        for module in model.modules():
            if isinstance(module, Attention):
                module.register_forward_hook(_own_value)
    return model


def _twice(block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    own = args[0][:, : args[0].shape[1] // 2]
    return torch.cat([own, own], 1), *args[1:]


def _own_value(attention: Attention, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    value = attention.qkv(attention.norm(args[0])).chunk(3, 1)[2]
    return args[0] + attention.out(value)


def trained(
    model: Denoiser,
    seed: int,
    images: Images | None = None,
    loss_fn: Callable[..., Tensor] | None = None,
    steps: int = STEPS,
) -> Denoiser:
    """The averaged weights after ``steps``: the same recipe for all."""
    images = load("digits") if images is None else images
    loss_fn = diffusion_loss(COSINE, images.levels) if loss_fn is None else loss_fn
    config = TrainConfig(steps, 32, lr=3e-3, warmup=20, decay="cosine", ema=0.98, seed=seed)
    state = TrainState(model, config)
    list(fit(model, images, loss_fn, config, state, every=steps, progress=False))
    return averaged(model, state.ema)  # type: ignore[return-value]


@cache
def complete(seed: int) -> Denoiser:
    return trained(small(seed), seed)


@torch.no_grad()
def by_level(denoise: Denoise) -> Tensor:
    """Squared error of the expected image per pixel: [test images, levels]."""
    x = to_unit(load("digits", "test").x, 17)
    errors = []
    for a, s in torch.stack(COSINE(torch.tensor(LEVELS)), 1).tolist():
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
        errors.append((denoise(diffuse(x, a, s, noise), a, s).x0 - x).square().flatten(1).mean(1))
    return torch.stack(errors, 1)


@torch.no_grad()
def made(model: Denoise, n: int = N, seed: int = 0, calls: int = 10) -> Tensor:
    noise = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return samplers.last(samplers.dpmpp_2m(clipped(model), noise, COSINE.grid(calls))).x


def features(x: Tensor) -> Tensor:
    return metrics.features(pretrained("digits-ruler"), x)


def frechet(model: Denoise) -> float:
    return metrics.frechet(features(to_levels(made(model), 17)), features(load("digits", "test").x))


def changes(runs: list[Tensor], base: list[Tensor]) -> dict[str, list[float]]:
    """Change of the error in percent at each level, paired, with its interval."""
    table: dict[str, list[float]] = {"value": [], "low": [], "high": []}
    for j in range(len(LEVELS)):
        pairs = [torch.stack([a[:, j], b[:, j]], 1) for a, b in zip(runs, base, strict=True)]

        def change(p: Tensor) -> float:
            return 100 * float(p[:, 0].mean() / p[:, 1].mean() - 1)

        for name, v in zip(table, metrics.nested_bootstrap(change, pairs), strict=True):
            table[name].append(v)
    return table


def _seeds(values: list[float]) -> dict[str, object]:
    return {"value": sum(values) / len(values), "seeds": values}


def ablation() -> None:
    """The same net without skips, without its noise level, without attention."""
    base = [by_level(complete(seed)) for seed in SEEDS]
    distance = {"complete": _seeds([frechet(complete(seed)) for seed in SEEDS])}
    table, size = {}, sum(p.numel() for p in complete(0).parameters())
    for part in ("skips", "noise level", "attention"):
        runs = [trained(without(small(seed), part), seed) for seed in SEEDS]
        assert all(sum(p.numel() for p in run.parameters()) == size for run in runs)
        table[part] = changes([by_level(run) for run in runs], base)
        distance[part] = _seeds([frechet(run) for run in runs])
        worst = max(range(len(LEVELS)), key=lambda j: table[part]["value"][j])
        for name, j in (("worst", worst), ("clean", 0), ("noisy", len(LEVELS) - 1)):
            value, low, high = (table[part][end][j] for end in ("value", "low", "high"))
            key = f"parts/no_{part.replace(' ', '_')}_{name}"
            record(key, value, "%", (low, high), len(base[0]), time=LEVELS[j])
    about = {"unit": "%", "n": len(base[0]), "seeds": len(SEEDS), "steps": STEPS}
    record("parts/ablation", table, times=LEVELS, parameters=size, **about)  # type: ignore[arg-type]
    record("parts/ablation_frechet", distance, n=N, seeds=len(SEEDS))


def curve() -> None:
    """Loss and samples of one run, three training seeds; constant learning rate."""
    valid, loss_fn = load("digits", "valid"), diffusion_loss(COSINE, 17)
    rows: dict[str, list[list[float]]] = {"loss": [], "raw": [], "frechet": []}
    for seed in SEEDS:
        model = small(seed, dropout=0.1)
        config = TrainConfig(LOOKS[-1], 32, lr=2e-3, warmup=20, decay="none", ema=0.98, seed=seed)
        state = TrainState(model, config)
        found: dict[str, list[float]] = {name: [] for name in rows}
        for look in fit(model, load("digits"), loss_fn, config, state, every=50, progress=False):
            if look.step in LOOKS:
                ema, raw = (averaged(model, w) for w in (state.ema, model.state_dict()))
                found["loss"].append(validation_loss(ema, valid, loss_fn, repeats=5))
                found["raw"].append(validation_loss(raw, valid, loss_fn, repeats=5))
                found["frechet"].append(frechet(ema))
        for name, values in found.items():
            rows[name].append(values)
    record("parts/curve", {"steps": LOOKS, **rows}, n=N, seeds=len(SEEDS))
    table = {name: torch.tensor(values) for name, values in rows.items()}  # [seeds, looks]
    falls = {f"{k}_fall": 1 - table[k][:, -1] / table[k][:, LATE] for k in ("loss", "frechet")}
    falls["ema_gain"] = 1 - table["loss"][:, -1] / table["raw"][:, -1]
    for name, fall in falls.items():
        value, *ends = metrics.bootstrap(lambda f: f.mean().item(), 100 * fall[:, None])
        record(f"parts/{name}", value, "%", ends, seeds=(100 * fall).tolist(), since=LOOKS[LATE])


def targets() -> None:
    """What is asked, and which levels count: error by level, bound and Fréchet distance."""
    test, uniform = load("digits", "test")[:200], list[Tensor]()
    for predicts in ("v", "eps", "x0"):
        for weight in ("uniform", "elbo", "min-snr") if predicts == "v" else ("uniform", "elbo"):
            errors, distances, bounds = [], [], []
            for seed in SEEDS:
                model = small(seed, predicts)
                loss_fn = diffusion_loss(COSINE, 17, weight=weighting(weight, model, COSINE))
                plain = predicts == "v" and weight == "uniform"
                model = complete(seed) if plain else trained(model, seed, loss_fn=loss_fn)
                errors.append(by_level(model))
                distances.append(frechet(model))
                stops = [elbo(model, test.x, COSINE.grid(100), 17, k).total for k in (2, 4)]
                bounds.append(min(float(stop.mean()) for stop in stops))
            uniform = errors if predicts == "v" and weight == "uniform" else uniform
            key = f"parts/{predicts}_{weight.replace('-', '_')}"
            record(f"{key}_errors", changes(errors, uniform), "%", times=LEVELS)
            for name, values in (("frechet", distances), ("bound", bounds)):
                value, *ends = metrics.bootstrap(
                    lambda v: v.mean().item(), torch.tensor(values)[:, None]
                )
                record(f"{key}_{name}", value, "", ends, seeds=values)


def size() -> None:
    """Two nets on disjoint sets of M images: from the same noise, copies or the same picture?"""
    table = {}
    everything = load("digits")
    unit = to_unit(everything.x, 17)
    for m in SIZES:
        halves = [everything[:m], everything[500 : 500 + m]]
        nets = [trained(small(0), 0, half, steps=2 * STEPS) for half in halves]
        one, two = (made(net, 300, calls=20) for net in nets)
        own = [
            metrics.nearest(x, to_unit(h.x, 17))[0] for x, h in zip((one, two), halves, strict=True)
        ]
        other = metrics.nearest(one, to_unit(halves[1].x, 17))[0]
        twins = (one - two).square().flatten(1).mean(1).sqrt()  # from the same noise
        strangers = (one - two.roll(1, 0)).square().flatten(1).mean(1).sqrt()
        table[str(m)] = {
            "own": torch.cat(own).median().item(),
            "other": other.median().item(),
            "twins": twins.median().item(),
            "strangers": strangers.median().item(),
            "copies": (torch.cat(own) < COPY).double().mean().item(),
        }
    held = metrics.nearest(to_unit(load("digits", "test").x, 17), unit[:500])[0]
    record("parts/size_held_out", held.median().item(), n=len(held))
    record("parts/size", table, n=300, copy=COPY, steps=2 * STEPS)


COPY = 0.1  # rms a pixel, white less black being 2: nearer than this is a copy


def experts() -> None:
    """Four nets of half the width, one for each quarter of the times, against the shared one."""

    def quarter(e: int) -> Callable[..., Tensor]:
        def loss_fn(model: Denoiser, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
            alpha, sigma = COSINE.draw((e + draws.uniform()) / 4)
            return loss(model, to_unit(x, 17), alpha, sigma, draws.normal(*x.shape[1:]))

        return loss_fn

    runs = []
    for seed in SEEDS:
        nets = [trained(small(seed, width=8), seed, loss_fn=quarter(e)) for e in range(4)]
        errors = torch.stack([by_level(net) for net in nets])  # [4, images, levels]
        runs.append(torch.stack([errors[int(4 * t), :, j] for j, t in enumerate(LEVELS)], 1))
    parameters = 4 * sum(p.numel() for p in small(0, width=8).parameters())
    table = changes(runs, [by_level(complete(seed)) for seed in SEEDS])
    record("parts/experts", table, "%", times=LEVELS, parameters=parameters)


PARTS = {
    "ablation": ablation,
    "curve": curve,
    "targets": targets,
    "size": size,
    "experts": experts,
}

if __name__ == "__main__":
    run_parts(PARTS)
