"""The bout: both families on the same digits, with equal parameters and equal training arithmetic.

    python experiments/bout.py            # everything, about half an hour on two cores
    python experiments/bout.py likelihood # one part: likelihood, levels, quality, curve, cost

Writes ``ddpm_lite/results/bout.json``. Three training seeds a family; sampling seeds are nested in
them. An interval redraws the training seeds first, then the images (``nested_bootstrap``).
The margins that decide a verdict were written down before the run, in ``MARGIN``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _parts import run_parts
from torch import Tensor

from ddpm_lite import cost, metrics, samplers
from ddpm_lite.ar import ARModel
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load, to_levels
from ddpm_lite.diffusion import Denoiser, choose_first, clipped, elbo, elbo_by_level
from ddpm_lite.record import record
from ddpm_lite.schedules import from_spec

SEEDS = (0, 1, 2)
Distance = Callable[[Tensor], float]
MARGIN = {"bits": 0.01, "frechet": 0.05}  # a difference below this settles nothing
N, N_CURVE = 5000, 2000
CURVE = {
    "ddim": (5, 10, 20, 50),
    "ddpm": (5, 10, 20, 50, 100, 250),
    "dpmpp_2m": (5, 10, 20, 50),
    "heun": (3, 5, 10, 25),  # 2n - 1 calls
}
ONE_SEED = {("ddpm", 250)}


def name_of(family: str, seed: int) -> str:
    """The committed checkpoint of a family and a training seed."""
    return f"digits-{family}" + (f"-s{seed}" if seed else "")


def mean(a: Tensor) -> float:
    """Of all its entries."""
    return a.mean().item()


def distance_to(real: Tensor, metric: Callable[..., float] = metrics.frechet) -> Distance:
    """The distance of a set of features from the real ones."""
    return lambda made: metric(made, real)


def verdict(ends: list[float], margin: float) -> str:
    """Which side a difference (AR minus diffusion) falls on; what touches the margin is open."""
    if ends[1] < -margin:
        return "autoregressive lower"
    return "diffusion lower" if ends[0] > margin else "inconclusive"


def likelihood() -> None:
    """Held-out bits/dim: exact for AR, the bound with all its terms for diffusion; paired."""
    train, test = load("digits", "train"), load("digits", "test")
    bits: dict[str, list[Tensor]] = {"gated": [], "unet": []}
    firsts = []
    for seed in SEEDS:
        ar = _ar(seed)
        with torch.no_grad():
            bits["gated"].append(ar.bits_per_dim(test.x.long()).double())
        model = _denoiser(seed)
        grid = from_spec(model.info["schedule"]).grid(1000)
        firsts.append(choose_first(model, train[:200], grid))
        bits["unet"].append(elbo(model, test.x, grid, test.levels, firsts[-1]).total)
    for family, rows in bits.items():
        value, *ends = metrics.nested_bootstrap(mean, rows)
        record(
            f"bout/bits_{family}",
            value,
            "bits/dim",
            ends,
            len(test),
            seeds=[mean(r) for r in rows],
            kind="exact" if family == "gated" else "upper bound",
            first=None if family == "gated" else firsts,
            by_image=rows[0][:32].round(decimals=4).tolist(),  # of seed 0, for a quick check
        )
    pairs = [a - b for a, b in zip(bits["gated"], bits["unet"], strict=True)]
    value, *ends = metrics.nested_bootstrap(mean, pairs)
    record("bout/bits_difference", value, "bits/dim", ends, len(test))
    record("bout/bits_verdict", verdict(ends, MARGIN["bits"]), margin=MARGIN["bits"])


def levels() -> None:
    """Where along the chain the bits of the bound are paid: seed 0, in bins of log-SNR."""
    model, test, bins = _denoiser(0), load("digits", "test"), 40
    grid = from_spec(model.info["schedule"]).grid(1000)
    first = choose_first(model, load("digits", "train")[:200], grid)
    terms = elbo_by_level(model, test.x, grid, test.levels, first)
    visited = 2 * (grid[: len(grid) - first, 0].log() - grid[: len(grid) - first, 1].log())
    edges = np.linspace(-10.0, float(visited[-1]), bins + 1)  # the first bin takes what lies below
    where = np.searchsorted(edges, visited[1:].numpy()).clip(1, bins) - 1
    paid = terms.diffusion.mean(0).flip(0).numpy() * math.prod(test.shape)  # noisiest step first
    table = {
        "log_snr": edges.tolist(),
        "bits": np.bincount(where, paid, bins).tolist(),
        "reconstruction": float(terms.reconstruction[:, 0].mean()) * math.prod(test.shape),
        "prior": float(terms.prior.mean()) * math.prod(test.shape),
    }
    record("bout/bits_by_level", table, "bits/image", n=len(test), first=first)


def quality() -> None:
    """Fréchet and kernel distance, precision, recall and the ruler's confidence at n = 5,000."""
    ruler, real = pretrained("digits-ruler"), _real_features()
    floor = metrics.features(ruler, load("digits", "train").x)
    record("bout/frechet_floor", metrics.frechet(floor, real), n=len(floor), reference_n=len(real))
    record("bout/kernel_floor", metrics.kernel_distance(floor, real), n=len(floor))
    noise = torch.randint(0, 17, (N, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    record("bout/frechet_noise", metrics.frechet(metrics.features(ruler, noise), real), n=N)
    made: dict[str, list[Tensor]] = {
        "gated": [_ar(s).sample(N, seed=s).byte() for s in SEEDS],
        "unet": [_images(_denoiser(s), "ddpm", 100, N, s) for s in SEEDS],
    }
    features = {k: [metrics.features(ruler, x) for x in v] for k, v in made.items()}
    measures = (("frechet", metrics.frechet, N), ("kernel", metrics.kernel_distance, N_CURVE))
    for metric, fn, n in measures:  # the kernel's cost grows as n²
        for family, sets in features.items():
            rows, distance = [f[:n] for f in sets], distance_to(real, fn)
            values = [distance(r) for r in rows]
            value, *ends = metrics.nested_bootstrap(distance, rows)
            record(f"bout/{metric}_{family}", value, "", ends, n, seeds=values)
    for family, images in made.items():
        pr = [metrics.precision_recall(f[: len(real)], real) for f in features[family]]
        with torch.no_grad():
            sure = [ruler(x[:2000]).softmax(1).amax(1).gt(0.9).double().mean() for x in images]
        near = [_nearest(x[:1000]) for x in images]
        record(f"bout/precision_{family}", float(np.mean([p.precision for p in pr])), n=len(real))
        record(f"bout/recall_{family}", float(np.mean([p.recall for p in pr])), n=len(real))
        record(f"bout/confident_{family}", float(np.mean(sure)), n=2000)
        record(f"bout/nearest_train_{family}", float(np.mean(near)), "levels (rms)", n=1000)
    record("bout/nearest_train_real", _nearest(load("digits", "test").x), "levels (rms)", n=397)


def curve() -> None:
    """Fréchet distance against network calls, for every sampler; one clipped denoiser for all."""
    ruler, real = pretrained("digits-ruler"), _real_features()
    distance = distance_to(real)
    table: dict[str, dict[str, Any]] = {}
    for sampler, steps in CURVE.items():
        table[sampler] = {}
        for n in steps:
            seeds = SEEDS[:1] if (sampler, n) in ONE_SEED else SEEDS
            rows = [
                metrics.features(ruler, _images(_denoiser(s), sampler, n, N_CURVE, s))
                for s in seeds
            ]
            value, *ends = metrics.nested_bootstrap(distance, rows)
            calls = 2 * n - 1 if sampler == "heun" else n
            values = [distance(r) for r in rows]
            table[sampler][str(calls)] = {"value": value, "interval": ends, "seeds": values}
            print(f"{sampler:9} {calls:4} calls: {value:.3f}", flush=True)
    record("bout/curve", table, n=N_CURVE)
    # the autoregressive level of the same figure, at the same n
    drawn = [metrics.features(ruler, _ar(s).sample(N_CURVE, seed=s).byte()) for s in SEEDS]
    value, *ends = metrics.nested_bootstrap(distance, drawn)
    values = [distance(r) for r in drawn]
    record("bout/curve_gated", value, "", ends, N_CURVE, seeds=values)


def cost_() -> None:
    """Parameters, training arithmetic, and seconds per image at batch 1 and 256, one thread."""
    torch.set_num_threads(1)
    ar, model = _ar(0), _denoiser(0)
    x, flat = torch.zeros(1, 1, 8, 8, dtype=torch.long), torch.zeros(1, 1, 8, 8)
    forward = {"gated": cost.macs(ar.logits, x), "unet": cost.macs(model, flat, 0.6, 0.8)}
    for family, net in (("gated", ar), ("unet", model)):
        config: dict[str, Any] = net.info["config"]  # type: ignore[index, assignment]
        seen = config["steps"] * config["batch"]
        record(f"bout/parameters_{family}", sum(p.numel() for p in net.parameters()))
        record(f"bout/forward_macs_{family}", forward[family], "MACs/image")
        # a backward pass costs two forward ones: a product each for inputs and for weights
        record(f"bout/training_macs_{family}", 3 * forward[family] * seen, "MACs", images=seen)
    schedule = from_spec(model.info["schedule"])

    def chain(sampler: str, n: int, batch: int) -> Callable[[], Any]:
        noise, grid = torch.randn(batch, 1, 8, 8), schedule.grid(n)
        return lambda: samplers.last(samplers.SAMPLERS[sampler](clipped(model), noise, grid))

    for batch in (1, 256):
        forwards = cost.interleaved_medians(
            {"forward": lambda b=batch: _no_grad(ar.logits, x.expand(b, -1, -1, -1))}  # type: ignore[misc]
        )
        candidates = {
            "cached": lambda b=batch: ar.sample(b, seed=0),  # type: ignore[misc]
            "dpmpp_2m-20": chain("dpmpp_2m", 20, batch),
            "ddim-50": chain("ddim", 50, batch),
            "ddpm-100": chain("ddpm", 100, batch),
        }
        if batch == 1:
            candidates["naive"] = lambda: ar.sample(1, seed=0, cached=False)
        timings = cost.interleaved_medians(candidates, repeats=5, warmup=1)
        table = {k: [t / batch for t in timing] for k, timing in timings.items()}
        estimate = forwards["forward"].median * math.prod((1, 8, 8)) / batch
        table.setdefault("naive", [estimate] * 3)
        for name, (median, low, high) in table.items():
            record(f"bout/ms_{name}_{batch}", 1000 * median, "ms/image", [1000 * low, 1000 * high])
        record(
            f"bout/seconds_batch_{batch}",
            table,
            "s/image (median, quartiles)",
            naive_from_forwards=estimate,
            threads=1,
        )


def _no_grad(fn: Callable[..., Any], *arguments: Any) -> Any:
    with torch.no_grad():
        return fn(*arguments)


def _ar(seed: int) -> ARModel:
    model = pretrained(name_of("gated", seed))
    assert isinstance(model, ARModel)
    return model


def _denoiser(seed: int) -> Denoiser:
    model = pretrained(name_of("unet", seed))
    assert isinstance(model, Denoiser)
    return model


def _images(model: Denoiser, sampler: str, steps: int, n: int, seed: int) -> Tensor:
    x = samplers.sample(model, n, sampler, steps, seed=seed)
    return to_levels(x, 17)


def _real_features() -> Tensor:
    return metrics.features(pretrained("digits-ruler"), load("digits", "test").x)


def _nearest(x: Tensor) -> float:
    return float(metrics.nearest(x, load("digits", "train").x)[0].mean())


PARTS = {
    "likelihood": likelihood,
    "levels": levels,
    "quality": quality,
    "curve": curve,
    "cost": cost_,
}

if __name__ == "__main__":
    run_parts(PARTS)
