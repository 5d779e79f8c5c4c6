"""Quality of a diffusion model's samples against network calls, for every sampler.

    python benchmarks/samplers.py           # one training seed, n = 500, a minute
    python benchmarks/samplers.py --full    # three training seeds, n = 5,000: most of an hour

Fréchet distance in the features of the data set's ruler from all its test images. Each training
seed is sampled with a seed of its own, the same for all samplers; an interval redraws the training
seeds, then the images (with one training seed the images only). Times are this process's processor
time per image, one thread, batches of 500. The distance of the same images falls with n: compare at
one n. The floor has training images in place of generated ones. Where the bout committed a figure,
it stands beside, at its own n.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_lite import files, metrics
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.evaluate import EvalConfig, generate
from ddpm_lite.record import committed
from ddpm_lite.samplers import SAMPLERS

QUICK, FULL = (5, 10, 20), (5, 10, 20, 50, 100, 250)
ONE_SEED = 250  # from so many calls on one training seed is sampled: it takes long enough


def steps_for(sampler: str, calls: int) -> int:
    """How many steps a sampler takes with at most so many calls."""
    return (calls + 1) // 2 if sampler == "heun" else calls


def measure(
    models: list[Denoiser], sampler: str, steps: int, n: int, ruler: Any, real: Tensor
) -> dict[str, Any]:
    """Mean Fréchet distance over training seeds, with its interval and the time per image."""
    start = time.process_time()
    made = [
        generate(model, n, EvalConfig(sampler=sampler, steps=steps, seed=seed))
        for seed, model in enumerate(models)
    ]
    seconds = (time.process_time() - start) / (n * len(models))
    sets = [metrics.features(ruler, x) for x in made]
    value, *ends = metrics.nested_bootstrap(lambda a: metrics.frechet(a, real), sets)
    return {
        "sampler": sampler,
        "steps": steps,
        "calls": 2 * steps - 1 if sampler == "heun" else steps,
        "frechet": value,
        "interval": ends,
        "seeds": [metrics.frechet(a, real) for a in sets],
        "n": n,
        "seconds_per_image": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="3 training seeds, n = 5,000")
    parser.add_argument("--model", default="digits-unet", help="further seeds are NAME-s1, NAME-s2")
    parser.add_argument("--seeds", type=int, help="training seeds")
    parser.add_argument("--n", type=int, help="images of each training seed")
    parser.add_argument("--calls", type=int, nargs="+")
    parser.add_argument("--samplers", nargs="+", choices=sorted(SAMPLERS), default=sorted(SAMPLERS))
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    args = parser.parse_args()
    n = args.n or (5000 if args.full else 500)
    seeds = args.seeds or (3 if args.full else 1)

    torch.set_num_threads(1)
    names = [args.model + (f"-s{s}" if s else "") for s in range(seeds)]
    models = [pretrained(name) for name in names]
    data = models[0].info["data"]["name"]
    ruler, test = pretrained(f"{data}-ruler"), load(data, "test")
    real = metrics.features(ruler, test.x)
    seen = metrics.features(ruler, load(data, "train").x[:n])
    floor = metrics.frechet(seen, real)
    bout = committed("bout/curve") if args.model == "digits-unet" else {}
    print(f"{', '.join(names)}; {n:,} images each against {len(test)} {data} test images,", end=" ")
    print(f"{real.shape[1]} features")
    print(f"floor, {len(seen):,} training images: {floor:.2f}")
    print(f"{'sampler':>9} {'steps':>5} {'calls':>5} {'ms/image':>8} {'Fréchet':>7}", end="")
    print(f" {'95 % interval':>15}  committed")
    rows = []
    for sampler in args.samplers:
        for calls in args.calls or (FULL if args.full else QUICK):
            if calls >= ONE_SEED and sampler != "ddpm":
                continue  # the others are long at their best
            some = models[:1] if calls >= ONE_SEED else models
            row = measure(some, sampler, steps_for(sampler, calls), n, ruler, real)
            rows.append(row)
            low, high = row["interval"]
            print(f"{sampler:>9} {row['steps']:5} {row['calls']:5}", end="")
            print(f" {1000 * row['seconds_per_image']:8.2f} {row['frechet']:7.2f}", end="")
            other = bout.get(sampler, {}).get(str(row["calls"]))
            print(f" {f'[{low:.2f}, {high:.2f}]':>15}", end="  ")
            beside = "{:.2f} [{:.2f}, {:.2f}]"
            print(beside.format(other["value"], *other["interval"]) if other else "", flush=True)
    if args.out:
        report = {
            "models": {name: model.info["hash"] for name, model in zip(names, models, strict=True)},
            "floor": floor,
            "reference_n": len(test),
            "features": real.shape[1],
            "torch": torch.__version__,
            "machine": platform.machine(),
            "rows": rows,
        }
        files.write(args.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
