"""`ddpm-lite evaluate`: the figures of a checkpoint, measured again."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    Answer,
    add_common,
    add_data,
    add_sampling,
    device,
    positive,
    refuse_foreign,
    stated,
    whole,
    writable,
)

if TYPE_CHECKING:
    from torch import nn

    from ..data import Images

HELP = "measure bits/dim and sample quality of a checkpoint, and compare with what it states"
EXAMPLE = "ddpm-lite evaluate --model digits-gated"
BITS_TOLERANCE = 0.002  # bits/dim between machines: other kernels, other rounding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name (see info) or file of a checkpoint")
    add_data(parser)
    parser.add_argument("--ruler", help="feature net (default the one stated, or DATA-ruler "
                        "where there is one)")  # fmt: skip
    parser.add_argument("--images", type=positive, help="images for the likelihood (default all)")
    parser.add_argument("--levels", type=positive, help="length of the chain of a bound")
    parser.add_argument("--first", type=positive, help="level where that chain stops")
    parser.add_argument("--n", type=whole, help="images to generate (default 2000; 0: none)")
    parser.add_argument("--bootstraps", type=positive, help="behind an interval (default 200)")
    parser.add_argument("--ode", type=positive, metavar="N", help="also the likelihood of N test "
                        "images by the probability flow, of a diffusion model")  # fmt: skip
    add_sampling(parser)
    parser.add_argument("--labels", action="store_true", default=None,
                        help="tell the model a class for each sample, all in turn")  # fmt: skip
    parser.add_argument("--guidance", type=float, help="weight of that label, of a diffusion model")
    parser.add_argument("--export", help="write the rounded weights with these figures, "
                        "NAME.safetensors and NAME.json")  # fmt: skip
    add_common(parser)
    parser.set_defaults(seed=None)


def run(args: argparse.Namespace) -> Answer:
    from .. import checkpoint
    from ..diffusion import Denoiser
    from ..evaluate import EvalConfig, evaluate
    from ..ruler import Ruler

    model = checkpoint.pretrained(args.model, device(args.device))
    if not hasattr(model, "bits_per_dim") and not hasattr(model, "predicts"):
        kind = type(model).__name__
        raise ValueError(f"{args.model} is a {kind}: it has no likelihood, give it as --ruler")
    if args.ode and (args.ode < 2 or not isinstance(model, Denoiser)):
        raise ValueError("--ode N is for a diffusion model and two or more images")
    refuse_foreign(args, isinstance(model, Denoiser))
    if args.export is not None:
        target = writable(args.export, ".safetensors", "--export")
        if target.resolve() == Path(args.model).resolve():
            raise ValueError(f"--export {target} is the model itself: give another name")
        checkpoint.rounded(model)  # measure what will be committed
    names = [field.name for field in dataclasses.fields(EvalConfig)]
    given = {k: getattr(args, k) for k in names if getattr(args, k, None) is not None}
    with stated(args.model):
        stored = dict(model.info.get("metrics") or {})
        usual = {k: v for k, v in stored.get("config", {}).items() if k in names}
        stated_ruler = (stored.get("quality") or {}).get("ruler")
    config = EvalConfig(**{**usual, **given})
    train, test = (_images(model, split, args) for split in ("train", "test"))
    name = args.ruler or stated_ruler or f"{model.info['data']['name']}-ruler"
    there = args.ruler or name in checkpoint.names()
    ruler = checkpoint.pretrained(name, device(args.device)) if there and config.n else None
    if ruler is not None and not isinstance(ruler, Ruler):
        raise ValueError(f"--ruler {name} is a {type(ruler).__name__}: give a classifier of ours")
    found = evaluate(model, test, train, ruler, config)
    if found["quality"] and name in checkpoint.names():  # a file's path means nothing elsewhere
        found["quality"]["ruler"] = name
    if args.export:
        checkpoint.export(args.export, model, metrics=found)
    same = "config" in stored and dataclasses.asdict(EvalConfig(**usual)) == found["config"]
    same = same and stated_ruler in (None, name)  # other features, other distances
    with stated(args.model):
        apart = _apart(stored, found) if same and not args.export else []
    lines = [bits(found["likelihood"]), *quality(found["quality"])]
    if args.ode:
        found["ode"] = ode(model, test[: args.ode], found["likelihood"], config.seed)
        told = (
            "{value:.4f} ± {standard_error:.4f} bits/dim ({kind}, {n} test images; {calls} calls)"
        )
        lines.insert(1, told.format(**found["ode"]))
    if args.export:
        lines.append(f"written to {args.export}")
    elif same:
        lines.append("; ".join(apart) or "as stated in the checkpoint")
    return Answer({**found, "disagreements": apart}, "\n".join(lines), 1 if apart else 0)


def _images(model: nn.Module, split: str, args: argparse.Namespace) -> Images:
    """The split that the model belongs to; the training split is the one it was trained on."""
    from .. import data

    about: dict[str, Any] = model.info  # type: ignore[assignment]
    if "data" not in about:
        raise ValueError(
            f"{args.model} does not say what it was trained on: `ddpm-lite train` writes that "
            "into a checkpoint, and so does checkpoint.save(..., data=images)"
        )
    with stated(args.model):
        name, made_of, shape = about["data"]["name"], str(about["data"]["hash"]), about["shape"]
    images = data.load(name, split, args.root, args.download)
    if list(images.shape) != shape:
        images = data.load(name, split, args.root, size=shape[-1])
    if split == "train" and images.hash != made_of:
        raise ValueError(
            f"these {images.name} images are not those that the model was trained on (hash "
            f"{images.hash[:12]}, not {made_of[:12]}): give --root of the same copy"
        )
    return images


def ode(model: nn.Module, test: Images, bound: dict[str, Any], seed: int) -> dict[str, Any]:
    """Bits/dim by the probability flow, down to the level where the bound's chain stops."""
    from ..diffusion import ode_bits
    from ..schedules import from_spec

    about: dict[str, Any] = model.info  # type: ignore[assignment]
    grid, first = from_spec(about["schedule"]).grid(bound["levels"]), bound["first"]
    x = test.x.to(next(model.parameters()).device)
    found = ode_bits(model, x, grid, test.levels, first, seed=seed)
    value, spread = found.bits.mean().item(), found.bits.std().item()
    about = {"value": value, "standard_error": spread / len(x) ** 0.5, "unit": "bits/dim"}
    return about | {"kind": "probability flow, uniform dequantisation", "n": len(x),
                    "first": first, "calls": found.calls}  # fmt: skip


def _apart(stored: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Where the figures differ by more than another machine's rounding may explain."""
    told = []
    then, now = stored["likelihood"]["value"], found["likelihood"]["value"]
    if abs(then - now) > BITS_TOLERANCE:
        told.append(f"the checkpoint states {then:.4f} bits/dim, measured {now:.4f}")
    if stored.get("quality") and found["quality"]:
        for name in ("frechet", "kernel"):
            low, high = stored["quality"][name]["interval"]
            now = found["quality"][name]["value"]
            if not low <= now <= high:
                told.append(f"{name} is {now:.4g}, the checkpoint states {low:.4g} to {high:.4g}")
    return told


def bits(found: dict[str, Any]) -> str:
    error = found["standard_error"]
    text = f"{found['value']:.4f}" + ("" if error is None else f" ± {error:.4f}") + " bits/dim"
    text += f" ({found['kind']}, {found['n']} test images"
    if found["kind"] == "bound":
        terms = ", ".join(f"{k} {v:.4f}" for k, v in found["terms"].items())
        text += f"; {terms}; levels {found['first']} to {found['levels']}"
    return f"{text})"


def quality(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["samples not judged (no ruler, or --n 0)"]
    return [
        "{}: {value:.4g} [{:.4g}, {:.4g}], real images {floor:.4g} ({} generated)".format(
            name, *found[name]["interval"], found["n"], **found[name]
        )
        for name in ("frechet", "kernel", "confident")
        if name in found
    ]
