"""The student report's grey cats: one fault at a time, first with a perfect denoiser, then trained.

    python experiments/cats.py exact        # minutes: no network at all
    python experiments/cats.py ruler        # a feature net for 16x16 colour images, minutes
    python experiments/cats.py train        # four runs, over an hour on one core; resumes
    python experiments/cats.py measure      # minutes; README's figures: ddpm-lite evaluate --export

Needs CIFAR-10 (see ddpm_lite.data.load), averaged down to 16x16. Writes
``ddpm_lite/results/cats.json`` and, by ``train``, the checkpoints ``cats16-*`` of the ladder:

    reported   beta 1e-4 -> 0.05 in 100 steps, weights as the last step left them
    schedule   beta 1e-3 -> 0.2 instead: the last level is noise
    ema        the same run's averaged weights
    longer     four times the steps
    classes    the same, on all ten classes, told which is which

Beside the ladder, the longer run is measured by its last weights, too (`no-ema`), for what a repair
is worth higher up need not be what it was worth on its rung; and sampled with DPM-Solver++ in a
fifth of the calls (`solver`).
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _parts import run_parts
from torch import Tensor

from ddpm_lite import checkpoint, metrics, samplers
from ddpm_lite.data import Images, load, to_levels, to_unit
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.exact import KernelDenoiser
from ddpm_lite.fit import fit
from ddpm_lite.provenance import hardware
from ddpm_lite.record import record
from ddpm_lite.ruler import fit_ruler
from ddpm_lite.schedules import LinearBeta, zero_terminal_snr
from ddpm_lite.train import TrainConfig, TrainState, diffusion_loss
from ddpm_lite.unet import UNet

HERE = Path(__file__).resolve().parents[1]
RUNS = HERE / "runs"
SIZE, CAT, N = 16, 3, 1000
REPORTED, REPAIRED = LinearBeta(100, 1e-4, 0.05), LinearBeta(100, 1e-3, 0.2)
SHORT = 6250  # 50 epochs of the 4,000 cats in batches of 32


class Run(NamedTuple):
    """One training run."""

    schedule: LinearBeta
    steps: int
    data: str = "cifar10-cats"


class Rung(NamedTuple):
    """What is sampled: a run, by its averaged weights or by its last ones."""

    run: str
    ema: bool


TRAINED = {
    "reported": Run(REPORTED, SHORT),
    "repaired": Run(REPAIRED, SHORT),
    "repaired-long": Run(REPAIRED, 4 * SHORT),
    "classes": Run(REPAIRED, 4 * SHORT, "cifar10"),
}
LADDER = {
    "reported": Rung("reported", ema=False),
    "schedule": Rung("repaired", ema=False),
    "ema": Rung("repaired", ema=True),
    "longer": Rung("repaired-long", ema=True),
    "classes": Rung("classes", ema=True),
}
LAST = Rung("repaired-long", ema=False)


def spread(x: Tensor) -> float:
    """Standard deviation over images of their brightness, the mean of all their values.

    x: [N, C, H, W] in [-1, 1].
    """
    return float(x.double().flatten(1).mean(1).std())


def exact() -> None:
    """What a perfect denoiser paints on each schedule: no training is to blame here.

    At both sizes: averaging pixels down takes noise away from no mean, so that the fault shows the
    more, the more pixels an image has.
    """
    a, s = REPORTED.grid(100)[0].tolist()
    record("cats/amplitude_left", a)
    for size in (SIZE, 32):
        images, n = load("cifar10-cats", "train", size=size), 400
        real = to_unit(images.x, images.levels).double()
        denoise = KernelDenoiser(real).denoise
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(n, *images.shape, generator=draw, dtype=torch.float64)
        rows = torch.randint(len(real), (n,), generator=draw)
        record(f"cats/exact{size}_real", spread(real), n=len(real))
        starts = {
            "reported": (REPORTED, noise),
            "true_start": (REPORTED, (a * real[rows] + s * noise) / s),
            "repaired": (REPAIRED, noise),
            "zero_terminal": (zero_terminal_snr(REPORTED), noise),
            "longer_chain": (LinearBeta(1000), noise),
        }
        for name, (schedule, start) in starts.items():
            torch.manual_seed(1)  # the noise of the steps
            made = samplers.last(samplers.ddpm(denoise, start, schedule.grid(100))).x
            ratio = spread(made) / spread(real)
            record(f"cats/exact{size}_{name}", spread(made), n=n, ratio=ratio)


def ruler() -> None:
    """The feature net, trained on the ruler split of all ten classes."""
    seen, test = load("cifar10", "ruler", size=SIZE), load("cifar10", "test", size=SIZE)
    recipe = {"width": 48, "features": 32, "steps": 4000, "smoothing": 0.0}
    start = time.perf_counter()
    net = checkpoint.rounded(fit_ruler(seen, **recipe))  # type: ignore[arg-type]
    seconds = round(time.perf_counter() - start, 1)
    about: dict[str, Any] = {"command": "python experiments/cats.py ruler", "seconds": seconds}
    about |= {"hardware": hardware(torch.device("cpu"))}
    with torch.no_grad():
        right = torch.cat([net(x).argmax(1) for x in test.x.split(500)]) == test.y
    figures = {"test_accuracy": float(right.double().mean()), "n_test": len(test)}
    out = checkpoint.COMMITTED / "cifar16-ruler.safetensors"
    checkpoint.export(
        out, net, data=seen, seed=0, step=4000, config=recipe, metrics=figures, **about
    )
    print(figures)


def train() -> None:
    """All runs of TRAINED, each resumed where it was, then the ladder's rungs as checkpoints."""
    RUNS.mkdir(exist_ok=True)
    for name in TRAINED:
        _train(name)
    for name, rung in LADDER.items():
        model = _model(rung)
        kept = ("schedule", "data", "config", "seed", "step", "seconds", "levels", "shape")
        about = {k: model.info[k] for k in kept if k in model.info}
        about |= {"command": "python experiments/cats.py train", "run": rung._asdict()}
        checkpoint.export(checkpoint.COMMITTED / f"cats16-{name}.safetensors", model, **about)


def _train(name: str) -> None:
    run, path = TRAINED[name], RUNS / f"cats16-{name}.safetensors"
    images = load(run.data, "train", size=SIZE)
    config = TrainConfig(
        steps=run.steps, batch=32, lr=5e-4, decay="none", ema=0.999, bf16=True, channels_last=True
    )
    seconds = 0.0
    if path.exists():
        model, state, info = checkpoint.load(path)
        assert state is not None and state.config == config, f"{path} is another run: remove it"
        seconds = info["seconds"]
    else:
        torch.manual_seed(0)
        classes = 10 if run.data == "cifar10" else None
        net = UNet(3, 20, (1, 1, 2), 1, (False, False, True), classes)
        model = Denoiser(net, "eps", sigma_data=0.5)
        state = TrainState(model, config)
    loss_fn = diffusion_loss(run.schedule, images.levels, config.label_drop)
    start = time.perf_counter() - seconds
    for check in fit(model, images, loss_fn, config, state, every=500):
        about = {"data": images, "schedule": run.schedule, "seed": 0}
        about["seconds"] = round(time.perf_counter() - start, 1)
        checkpoint.save(path, model, state, **about)
        print(f"{name:14} step {check.step:6}  loss {check.loss:.4f}", flush=True)


def _model(rung: Rung) -> Any:
    """The run's Denoiser, by its averaged weights or the last ones, with the file's header."""
    model, state, info = checkpoint.load(RUNS / f"cats16-{rung.run}.safetensors")
    assert state is not None, "a finished run holds its training state"
    if rung.ema:
        model.load_state_dict(state.ema)
    model.info = info
    return model.eval()


def measure() -> None:
    """Every rung, as committed, by one ruler: brightness, distances, and whether it copies.

    `copies`: the share nearer to a thousand training cats than to a thousand test cats, beside the
    same of cats that nobody trained on. The floor of the distances: training against test cats.
    """
    net, unit = checkpoint.pretrained("cifar16-ruler"), partial(to_unit, levels=256)
    test, seen = _cats("test"), _cats("train")
    real, bright = metrics.features(net, test.x), unit(test.x).mean((1, 2, 3))
    record("cats/real", spread(unit(test.x)), n=len(test))
    rungs: dict[str, Any] = {n: checkpoint.pretrained(f"cats16-{n}") for n in LADDER}
    rungs |= {"no-ema": _model(LAST), "solver": rungs["longer"], "floor": None}
    for name, model in rungs.items():
        x = seen.x[:N] if model is None else _made(model, name == "solver")
        made = metrics.features(net, x)
        figures = {
            "frechet": metrics.bootstrap(metrics.frechet, made, real, n=200),
            "kernel": metrics.bootstrap(metrics.kernel_distance, made, real, n=200),
            "ratio": metrics.bootstrap(
                lambda a, b: float(a.std() / b.std()), unit(x).mean((1, 2, 3)), bright, n=1000
            ),
        }
        if model is not None:
            figures["copies"] = _copies(x, seen.x, test.x)
        for figure, (value, *ends) in figures.items():
            record(f"cats/{name}_{figure}", value, "", ends, N)
    unseen = _cats("ruler").x
    value, *ends = _copies(unseen, seen.x, test.x)
    record("cats/unseen_copies", value, "", ends, len(unseen))


def _made(model: Any, solver: bool) -> Tensor:
    """N cats as levels [N, 3, 16, 16]: by the report's sampler with all hundred steps, or not."""
    how = ("dpmpp_2m", 20) if solver else ("ddpm", 100)
    label = CAT if model.info["data"]["name"] == "cifar10" else None
    model = model.to(memory_format=torch.channels_last)  # a fifth less time
    return to_levels(samplers.sample(model, N, *how, label=label, seed=0), 256)


def _copies(x: Tensor, seen: Tensor, test: Tensor) -> metrics.Interval:
    """Share of x nearer to one of N training images, thrice N of them in turn, than to the test."""
    x, seen, test = (to_unit(levels, 256) for levels in (x, seen, test))
    free = metrics.nearest(x, test)[0]
    closer = [metrics.nearest(x, block)[0] < free for block in seen[: 3 * N].split(N)]
    share = torch.stack(closer, 1).double().mean(1)
    return metrics.bootstrap(lambda v: float(v.mean()), share)


def _cats(split: str) -> Images:
    return load("cifar10-cats", split, size=SIZE)


PARTS = {"exact": exact, "ruler": ruler, "train": train, "measure": measure}

if __name__ == "__main__":
    run_parts(PARTS)
