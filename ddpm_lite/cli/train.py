"""`ddpm-lite train`: one loop for every model, checkpoints on the way, resumable."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import ranks
from .common import DATA, Answer, add_common, add_data, positive, start_from, stated, writable
from .ruler import train_ruler
from .settings import settings

if TYPE_CHECKING:
    from torch import nn

    from ..data import Images
    from ..train import TrainConfig, TrainState

HELP = "train a model and save it; under torchrun on several devices"
EXAMPLE = (
    "ddpm-lite train gated --data digits --steps 1500 --out runs/gated.safetensors "
    "--set width=40 layers=5 dropout=0.25"
)

AR = {
    "gated": "GatedPixelCNN",
    "imagegpt": "ImageGPT",
    "linear": "LinearAR",
    "made": "MADE",
    "marginal": "Marginal",
    "pixelcnn": "PixelCNN",
}
SCHEDULES = {
    "cosine": "Cosine",
    "flow": "Flow",
    "karras": "Karras",
    "linear": "LinearBeta",
    "sigmoid": "Sigmoid",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..train import TrainConfig

    parser.add_argument("kind", metavar="KIND", choices=[*AR, "unet", "ruler"],
                        help=f"one of {', '.join([*AR, 'unet', 'ruler'])}")  # fmt: skip
    parser.add_argument("--data", default="digits", help=DATA)
    add_data(parser)
    parser.add_argument("--size", type=positive, help="average the images down to this size")
    parser.add_argument("--out", required=True, help="checkpoint to write, NAME.safetensors")
    parser.add_argument("--resume", action="store_true", help="go on from --out if it is there")
    parser.add_argument("--init",
                        help="start from its weights; what it lacks must start at 0")  # fmt: skip
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE",
                        help="arguments of the model, such as width=40 classes=10")  # fmt: skip
    parser.add_argument("--schedule", choices=SCHEDULES, help="of a unet (default cosine)")
    parser.add_argument("--predicts", choices=("eps", "x0", "v", "flow"),
                        help="what a unet predicts (default v)")  # fmt: skip
    parser.add_argument("--sigma-data", type=float, help="of a unet (default 1.0)")
    parser.add_argument("--every", type=positive, default=100,
                        help="steps between looks at validation images (default 100)")  # fmt: skip
    parser.add_argument("--patience", type=positive,
                        help="stop when so many steps brought nothing better")  # fmt: skip
    parser.add_argument("--valid-images", type=positive, default=500,
                        help="validate on at most so many (default 500)")  # fmt: skip
    add_common(parser)  # --seed is TrainConfig's, too
    group = parser.add_argument_group("training")
    for field in dataclasses.fields(TrainConfig):
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            group.add_argument(name, action="store_true")
        elif field.name != "seed":
            group.add_argument(name, type=type(field.default), default=field.default,
                               help=f"(default {field.default})")  # fmt: skip


class Job(NamedTuple):
    """What a run begins with."""

    model: nn.Module
    schedule: Any
    images: Images
    valid: Images
    init: dict[str, Any] | None
    state: TrainState
    seconds: float  # that earlier parts of the run took


def run(args: argparse.Namespace) -> Answer:
    if args.kind == "ruler":
        return train_ruler(args, writable(args.out, ".safetensors"), settings(args.set))
    with ranks.joined():
        ranks.together(lambda: _fetch(args))
        job = ranks.together(
            lambda: _begin(args), lambda job: f"step {job.state.step}, images {job.images.hash:.12}"
        )
        return _train(args, job)


def _fetch(args: argparse.Namespace) -> None:
    """Download, if asked to: one process of each machine, before the others look."""
    from .. import data

    if args.download and ranks.local_rank() == 0:
        data.load(args.data, "valid", args.root, download=True)


def _begin(args: argparse.Namespace) -> Job:
    import torch

    from .. import checkpoint, data
    from ..draws import share
    from ..train import TrainState

    out = writable(args.out, ".safetensors")
    where, config = ranks.place(args.device), _config(args)
    share(config.batch, ranks.rank(), ranks.count())  # or it says that it cannot be shared
    if out.exists() and not args.resume:
        raise ValueError(f"{out} is there already: give --resume to go on, or another --out")
    images = data.load(args.data, "train", args.root, size=args.size)
    valid = data.load(args.data, "valid", args.root, size=args.size)[: args.valid_images]
    torch.manual_seed(args.seed)
    model, schedule = _model(args, images)
    init = start_from(args.init, model) if args.init and not out.exists() else None
    model = model.to(where)
    if not out.exists():
        return Job(model, schedule, images, valid, init, TrainState(model, config), 0.0)
    model, found_state, found = checkpoint.load(out, where)
    state = _fits(args, config, found_state, found, images, schedule)
    with stated(args.out):
        seconds = float(found.get("seconds", 0.0))
    return Job(model, schedule, images, valid, found.get("init"), state, seconds)


def _train(args: argparse.Namespace, job: Job) -> Answer:
    from tqdm.auto import tqdm

    from .. import checkpoint
    from ..fit import fit
    from ..train import loss_for

    model, schedule, images, valid, init, state, seconds = job
    out, config, first = Path(args.out), state.config, ranks.rank() == 0
    unit = "bits/dim" if schedule is None else f"(mean squared error of {model.predicts})"
    loss_fn = loss_for(model, images.levels, config, schedule)
    about: dict[str, Any] = {"data": images, "seed": args.seed, "init": init}
    about |= {"command": args.typed, "processes": ranks.count()}
    if schedule is not None:
        about["schedule"] = schedule
    start, checks = time.perf_counter() - seconds, []
    looks = {"valid": valid, "every": args.every, "patience": args.patience}
    looks |= {"repeats": 1 if schedule is None else 8, "progress": None if first else False}
    for check in fit(model, images, loss_fn, config, state, **looks):
        checks.append(check._asdict())
        if first:
            about["seconds"] = round(time.perf_counter() - start, 1)
            checkpoint.save(out, model, state, **about)
            if not args.json:
                tqdm.write("step {:6d}  loss {:.4f}  valid {:.4f} {unit}".format(*check, unit=unit))
    if not first:
        return Answer({}, "")
    summary: dict[str, Any] = {
        "out": str(out),
        "steps": state.step,
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "unit": unit,
        "parameters": sum(p.numel() for p in model.parameters()),
        "checks": checks,
    }
    return Answer(
        summary,
        "{out}: {parameters:,} parameters, {steps} steps; kept the averaged weights of step "
        "{best_step}, validation loss {best_loss:.4f} {unit}".format(**summary),
    )


def _config(args: argparse.Namespace) -> TrainConfig:
    from ..train import TrainConfig

    return TrainConfig(**{f.name: getattr(args, f.name) for f in dataclasses.fields(TrainConfig)})


def _fits(
    args: argparse.Namespace,
    config: TrainConfig,
    state: TrainState | None,
    found: dict[str, Any],
    images: Images,
    schedule: Any,
) -> TrainState:
    """The state to go on from, if this command line is the one that the run was started with."""
    if state is None:
        raise ValueError(f"{args.out} holds weights only: it cannot be resumed")
    wanted = _model(args, images)[0].spec
    pairs = {f.name: (getattr(state.config, f.name), getattr(config, f.name))
             for f in dataclasses.fields(config)}  # fmt: skip
    pairs["model"] = (found["spec"], wanted)
    init = found.get("init")
    with stated(args.out):
        pairs["data"] = (found.get("data", {}).get("hash"), images.hash)
        begun = init.get("model") if isinstance(init, dict) else init
    if args.init is not None:  # left out it stays what it was
        pairs["--init"] = (begun, args.init)
    pairs["schedule"] = (found.get("schedule"), schedule and schedule.spec)
    for name, (then, now) in pairs.items():
        if then != now:
            raise ValueError(
                f"--resume: {name} was {then} when {args.out} was begun, now {now}: "
                "resume with the same, or start anew with --init and another --out"
            )
    return state


def _model(args: argparse.Namespace, images: Images) -> tuple[nn.Module, Any]:
    """The model of the command line, and its schedule or None."""
    from .. import checkpoint

    arguments = settings(args.set)
    if taken := arguments.keys() & {"channels", "class", "levels", "net", "shape"}:
        raise ValueError(f"--set {min(taken)}: that is for --data, --size and KIND to say")
    if args.kind != "unet":
        given = [o for o in ("schedule", "predicts", "sigma_data") if getattr(args, o) is not None]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} is for a unet, not for {args.kind}")
        arguments |= {"shape": list(images.shape), "levels": images.levels}
        return checkpoint.build({"class": AR[args.kind], **arguments}), None
    net = {"class": "UNet", "channels": images.shape[0], **arguments}
    denoiser = {
        "class": "Denoiser",
        "net": net,
        "predicts": args.predicts or "v",
        "sigma_data": 1.0 if args.sigma_data is None else args.sigma_data,
    }
    return checkpoint.build(denoiser), checkpoint.build(
        {"class": SCHEDULES[args.schedule or "cosine"]}
    )
