"""`ddpm-lite evaluate`: the figures of a checkpoint, measured again."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from .common import Answer, add_common, add_sampling, device, positive, whole, writable

if TYPE_CHECKING:
    from torch import nn

    from ..data import Images

HELP = "measure bits/dim and sample quality of a checkpoint, and compare with what it states"
EXAMPLE = "ddpm-lite evaluate --model digits-gated"
BITS_TOLERANCE = 0.002  # bits/dim between machines: other kernels, other rounding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name (see info) or file of a checkpoint")
    parser.add_argument("--root", help="where the data sets lie (default $DDPM_LITE_DATA)")
    parser.add_argument("--ruler", help="feature net (default DATA-ruler where there is one)")
    parser.add_argument("--images", type=positive, help="images for the likelihood (default all)")
    parser.add_argument("--levels", type=positive, help="length of the chain of a bound")
    parser.add_argument("--first", type=positive, help="level where that chain stops")
    parser.add_argument("--n", type=whole, help="images to generate (default 2000; 0: none)")
    parser.add_argument("--bootstraps", type=positive, help="behind an interval (default 200)")
    add_sampling(parser)
    parser.add_argument("--export", help="write the rounded weights with these figures, "
                        "NAME.safetensors and NAME.json")  # fmt: skip
    add_common(parser)
    parser.set_defaults(seed=None)


def run(args: argparse.Namespace) -> Answer:
    from .. import checkpoint
    from ..evaluate import EvalConfig, evaluate

    model = checkpoint.pretrained(args.model, device(args.device))
    if args.export:
        writable(args.export, ".safetensors")
        checkpoint.rounded(model)  # measure what will be committed
    stored = model.info.get("metrics") or {}
    names = [field.name for field in dataclasses.fields(EvalConfig)]
    given = {k: getattr(args, k) for k in names if getattr(args, k, None) is not None}
    config = EvalConfig(**{**stored.get("config", {}), **given})
    train, test = (_images(model, split, args.root) for split in ("train", "test"))
    name = args.ruler or f"{model.info['data']['name']}-ruler"
    there = args.ruler or name in checkpoint.names()
    ruler = checkpoint.pretrained(name, device(args.device)) if there and config.n else None
    found = evaluate(model, test, train, ruler, config)
    if args.export:
        checkpoint.export(args.export, model, metrics=found)
    same = stored.get("config") == found["config"]
    apart = _apart(stored, found) if same and not args.export else []
    lines = [_bits(found["likelihood"]), *_quality(found["quality"])]
    if args.export:
        lines.append(f"written to {args.export}")
    elif same:
        lines.append("; ".join(apart) or "as stated in the checkpoint")
    return Answer({**found, "disagreements": apart}, "\n".join(lines), 1 if apart else 0)


def _images(model: nn.Module, split: str, root: str | None) -> Images:
    """The split that the model belongs to; the training split is the one it was trained on."""
    from .. import data

    about: dict[str, Any] = model.info  # type: ignore[assignment]
    if "data" not in about:
        raise ValueError("the checkpoint does not say what it was trained on")
    images = data.load(about["data"]["name"], split, root)
    if list(images.shape) != about["shape"]:
        images = data.load(about["data"]["name"], split, root, size=about["shape"][-1])
    if split == "train" and images.hash != about["data"]["hash"]:
        raise ValueError(
            f"these {images.name} images are not those that the model was trained on: "
            f"hash {images.hash[:12]}, not {about['data']['hash'][:12]}"
        )
    return images


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


def _bits(found: dict[str, Any]) -> str:
    error = found["standard_error"]
    text = f"{found['value']:.4f}" + ("" if error is None else f" ± {error:.4f}") + " bits/dim"
    text += f" ({found['kind']}, {found['n']} test images"
    if found["kind"] == "bound":
        terms = ", ".join(f"{k} {v:.4f}" for k, v in found["terms"].items())
        text += f"; {terms}; levels {found['first']} to {found['levels']}"
    return f"{text})"


def _quality(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["samples not judged (no ruler, or --n 0)"]
    return [
        "{}: {value:.4g} [{:.4g}, {:.4g}], real images {floor:.4g} ({} generated)".format(
            name, *found[name]["interval"], found["n"], **found[name]
        )
        for name in ("frechet", "kernel")
    ]
