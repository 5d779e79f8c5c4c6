"""`ddpm-lite compress`: images into few bytes, without loss, by what a model expects of them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .common import Answer, add_data, device, positive, writable

if TYPE_CHECKING:
    from torch import Tensor

    from ..ar.base import ARModel

HELP = "pack images without loss, by an autoregressive model's probabilities"
EXAMPLE = "ddpm-lite compress --model digits-gated --n 64 --out digits.dlc --compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name (see info) or file of a checkpoint")
    parser.add_argument("--images", nargs="+", metavar="PATH",
                        help="pictures, sheets of images, folders of pictures, or .npy arrays of "
                        "levels (default: the data set that the model belongs to)")  # fmt: skip
    parser.add_argument("--data", help="data set (default the model's)")
    parser.add_argument("--split", default="test", help="of the data set (default test)")
    parser.add_argument("--n", type=positive, help="the first so many images (default all)")
    parser.add_argument("--out", required=True, help="file to write, NAME.dlc")
    parser.add_argument("--compare", action="store_true",
                        help="say what PNG, WebP, xz and bzip2 need for them")  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_data(parser)


def run(args: argparse.Namespace) -> Answer:
    from .. import baselines, checkpoint, codec, files

    out = writable(args.out, ".dlc")
    if args.images and args.data:
        raise ValueError("give --images or --data, not both")
    model = autoregressive(checkpoint.pretrained(args.model, device(args.device)), args.model)
    x = _images(args, model)[: args.n]
    if not len(x):
        raise ValueError("there are no images to compress")
    with progress(x.numel(), args.json) as tick:
        data = codec.compress(model, x, tick)
    files.write(out, data)
    found = measured(model, x, data)
    found |= {"out": str(out), "model": args.model, "shape": list(x.shape[1:])}
    lines = [
        f"{out}: {len(x)} image{'s' * (len(x) > 1)} of {'x'.join(map(str, x.shape[1:]))} in "
        f"{len(data):,} bytes, {found['bits_per_dim']:.4f} bits/dim (levels as they are: "
        f"{math.log2(model.levels):.4f})",
        f"-log2 p is {found['ideal_bits_per_dim']:.4f} bits/dim; above it the stream has "
        f"{found['overhead']:.3%}, and the file {codec.HEADER} bytes of header",
    ]
    if args.compare:
        found["baselines"] = baselines.sizes(x, model.levels)
        lines += ["", *_table(found["baselines"], x.numel(), found["bits_per_dim"])]
    return Answer(found, "\n".join(lines))


def autoregressive(model: Any, name: str) -> ARModel:
    """The model, if it is of the family that can code images."""
    from ..ar.base import ARModel

    if not isinstance(model, ARModel):
        kind = type(model).__name__
        raise ValueError(f"{name} is a {kind}: only an autoregressive model compresses")
    return model


def measured(model: ARModel, x: Tensor, data: bytes) -> dict[str, Any]:
    """What compressing cost, and what it must cost."""
    from .. import codec

    ideal, payload = float(codec.ideal_bits(model, x).sum()), 8 * (len(data) - codec.HEADER)
    return {
        "n": len(x),
        "bytes": len(data),
        "header_bytes": codec.HEADER,
        "bits_per_dim": 8 * len(data) / x.numel(),
        "ideal_bits_per_dim": ideal / x.numel(),
        "overhead": payload / ideal - 1,  # of the stream alone
    }


@contextmanager
def progress(total: int, silent: bool) -> Iterator[Callable[[int], object]]:
    """A bar over so many values, on a terminal only; gives what moves it."""
    from tqdm.auto import tqdm

    hidden = True if silent else None  # None: tqdm looks for a terminal
    with tqdm(total=total, unit="value", unit_scale=True, leave=False, disable=hidden) as bar:
        yield bar.update


def _images(args: argparse.Namespace, model: ARModel) -> Tensor:
    from .. import data
    from . import pictures

    if args.images:
        return pictures.read(args.images, model.shape, model.levels)
    about: Any = getattr(model, "info", {})
    name = args.data or about.get("data", {}).get("name")
    if not name:
        raise ValueError("the checkpoint does not say what it was trained on: give --data")
    images = data.load(name, args.split, args.root, args.download)
    if images.shape != model.shape and images.shape[0] == model.shape[0]:
        images = data.load(name, args.split, args.root, size=model.shape[-1])
    if (images.shape, images.levels) != (model.shape, model.levels):
        raise ValueError(f"{name} has images of {images.shape} and {images.levels} levels, "
                         f"{args.model} wants {model.shape} and {model.levels}")  # fmt: skip
    return images.x


def _table(found: dict[str, dict[str, int]], values: int, own: float) -> list[str]:
    lines = [f"{'bits/dim':12}{'a file each':>12}{'one sheet':>12}"]
    for name, size in found.items():
        single, sheet = (8 * size[way] / values for way in ("single", "sheet"))
        lines.append(f"{name:12}{single:12.3f}{sheet:12.3f}")
    return [*lines, f"{'this file':12}{'':12}{own:12.3f}   (the model's weights not counted)"]
