"""Is a cheaper U-Net as good after equal training time?

    python experiments/unet_design.py                # MNIST, over three hours on one core; resumes
    python experiments/unet_design.py --designs plain patches --steps 1000   # an hour
    python experiments/unet_design.py --data digits --designs plain patches --steps 1500 \
        --runs runs/unet_design_digits                       # ten minutes: what is committed
    python experiments/unet_design.py --data digits --steps 40 --seeds 1 --n 200 \
        --runs _build/unet_design --results _build/results     # a look at whether it works

The designs have about as many parameters. How many steps each takes in the time that the plain
one needs for ``--steps`` is measured first, all designs taking turns, and kept beside the runs; so
the learning rates decay on time. Three training seeds; an interval redraws the seeds, then the
images. A design is no worse where the interval of (its Fréchet distance minus the plain one's),
seeds and noise paired, ends below ``MARGIN`` times the plain one's, which was written down before.

Needs the ruler DATA-ruler. Writes ``ddpm_lite/results/unet_design.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_lite import checkpoint, cost, files, metrics
from ddpm_lite.data import Images, load
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.evaluate import EvalConfig, generate
from ddpm_lite.fit import fit, validation_loss
from ddpm_lite.record import record
from ddpm_lite.schedules import Cosine
from ddpm_lite.train import Step, TrainConfig, TrainState, diffusion_loss, train
from ddpm_lite.unet import UNet

HERE = Path(__file__).resolve().parents[1]
MARGIN = 0.05
PLAIN = "plain"
DESIGNS: dict[str, dict[str, Any]] = {
    PLAIN: {"width": 16},
    "patches": {"width": 16, "patch": 2},
    "wide": {"width": 32, "patch": 2, "mults": (1, 1), "attention": (False, True)},
}
SCHEDULE = Cosine()


def fresh(name: str, images: Images, seed: int) -> Denoiser:
    torch.manual_seed(seed)
    return Denoiser(UNet(images.shape[0], **DESIGNS[name]), "v", sigma_data=0.5)


def recipe(steps: int, seed: int) -> TrainConfig:
    times = {"steps": steps, "warmup": min(200, steps // 10), "ema": 0.999}
    return TrainConfig(**times, bf16=True, channels_last=True, seed=seed)  # type: ignore[arg-type]


def steps_in_equal_time(images: Images, steps: int, runs: Path) -> dict[str, int]:
    """Measured once: a second look would find another speed, and a resumed run another length."""
    path = runs / "steps.json"
    if not path.exists():
        config, loss_fn = recipe(1000, 0), diffusion_loss(SCHEDULE, images.levels)
        turns: dict[str, Callable[[], Any]] = {}
        for name in DESIGNS:
            model = fresh(name, images, 0)
            run: Iterator[Step] = train(model, images, loss_fn, config, TrainState(model, config))
            turns[name] = partial(next, run)
        seconds = cost.interleaved(turns, repeats=9, clock=time.process_time)
        ratios = {
            name: statistics.median(a / b for a, b in zip(seconds[PLAIN], own, strict=True))
            for name, own in seconds.items()
        }
        table = {name: round(steps * ratio) for name, ratio in ratios.items()}
        files.write(path, json.dumps(table).encode())
    table = json.loads(path.read_text())
    if table[PLAIN] != steps:
        raise SystemExit(f"{path} was made for {table[PLAIN]} steps: remove {runs} to begin again")
    return table


def run_of(name: str, seed: int, runs: Path) -> Path:
    return runs / f"{name}-s{seed}.safetensors"


def train_one(name: str, seed: int, steps: int, images: Images, runs: Path) -> None:
    """Train from where the run's file left off to the end."""
    path, config = run_of(name, seed, runs), recipe(steps, seed)
    if path.exists():
        model, state, _ = checkpoint.load(path)
        assert state is not None and state.config == config, f"{path} is another run: remove it"
    else:
        model = fresh(name, images, seed)
        state = TrainState(model, config)
    loss_fn = diffusion_loss(SCHEDULE, images.levels)
    for check in fit(model, images, loss_fn, config, state, every=200):
        checkpoint.save(path, model, state, data=images, schedule=SCHEDULE, seed=seed)
        print(f"{name:8} seed {seed} step {check.step:6}  loss {check.loss:.4f}", flush=True)


def measure(options: argparse.Namespace, steps: dict[str, int]) -> None:
    """Fréchet distance and validation loss of every design, and the differences from the plain."""
    ruler = checkpoint.pretrained(f"{options.data}-ruler")
    test, valid = load(options.data, "test"), load(options.data, "valid")
    real, loss_fn = metrics.features(ruler, test.x), diffusion_loss(SCHEDULE, valid.levels)
    key = f"unet_design/{options.data}"
    made: dict[str, list[Tensor]] = {}
    for name in options.designs:
        paths = [run_of(name, seed, options.runs) for seed in range(options.seeds)]
        models = [checkpoint.pretrained(path) for path in paths]
        sets = [generate(m, options.n, EvalConfig(seed=s)) for s, m in enumerate(models)]
        made[name] = [metrics.features(ruler, x) for x in sets]
        losses = [validation_loss(m, valid, loss_fn, repeats=4) for m in models]
        net = models[0].net
        about = {
            "parameters": sum(p.numel() for p in net.parameters()),
            "macs": cost.macs(net, torch.zeros(1, *test.shape), torch.zeros(1)),
            "steps": steps[name],
            "loss": losses,
            "reference_n": len(test),
        }
        value, *ends = metrics.nested_bootstrap(lambda a: metrics.frechet(a, real), made[name])
        record(f"{key}_frechet_{name}", value, "", ends, options.n, **about)
    plain = statistics.mean(metrics.frechet(a, real) for a in made[PLAIN])
    for name in options.designs:
        if name != PLAIN:
            pairs = [torch.stack(two, 1) for two in zip(made[name], made[PLAIN], strict=True)]
            value, *ends = metrics.nested_bootstrap(partial(difference, real=real), pairs)
            record(f"{key}_difference_{name}", value, "", ends, options.n)
            no_worse = ends[1] < MARGIN * plain
            verdict = "no worse" if no_worse else "worse" if ends[0] > 0 else "inconclusive"
            record(f"{key}_verdict_{name}", verdict, margin=MARGIN * plain)


def difference(pair: Tensor, real: Tensor) -> float:
    """Of two Fréchet distances; pair: [N, 2, F]."""
    return metrics.frechet(pair[:, 0], real) - metrics.frechet(pair[:, 1], real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--steps", type=int, default=2000, help="of the plain design")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=2000, help="generated images of each run")
    parser.add_argument("--runs", type=Path, default=HERE / "runs" / "unet_design")
    parser.add_argument("--results", type=Path, default=HERE / "ddpm_lite" / "results")
    options = parser.parse_args()
    if PLAIN not in options.designs:
        parser.error(f"the others are compared with {PLAIN}: name it too")
    os.environ["DDPM_LITE_RESULTS"] = str(options.results)
    torch.set_num_threads(1)
    images = load(options.data, "train")
    steps = steps_in_equal_time(images, options.steps, options.runs)
    print(f"steps in equal time: {steps}", flush=True)
    for seed in range(options.seeds):  # seed by seed: an early stop leaves pairs
        for name in options.designs:
            train_one(name, seed, steps[name], images, options.runs)
    measure(options, steps)


if __name__ == "__main__":
    main()
