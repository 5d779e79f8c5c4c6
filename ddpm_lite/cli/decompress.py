"""`ddpm-lite decompress`: the images of a compressed file, bit for bit."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from .common import Answer, device
from .compress import autoregressive, progress

if TYPE_CHECKING:
    from ..codec import Header

HELP = "unpack what compress packed"
EXAMPLE = "ddpm-lite decompress digits.dlc --out digits.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="what compress wrote, NAME.dlc")
    parser.add_argument("--model", help="name or file of the checkpoint that it was packed with "
                        "(default: found among those of the package)")  # fmt: skip
    parser.add_argument("--out", required=True,
                        help="NAME.npy (levels), NAME.png (a sheet), or a new folder")  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: argparse.Namespace) -> Answer:
    from .. import checkpoint, codec
    from . import pictures

    data = Path(args.file).read_bytes()
    head = codec.read(data)
    out = pictures.target(args.out, head.shape[0])
    name = args.model or _model_of(head)
    model = autoregressive(checkpoint.pretrained(name, device(args.device)), name)
    with progress(head.n * math.prod(head.shape), args.json) as tick:
        x = codec.decompress(model, data, tick)
    pictures.write(out, x, model.levels)
    found = {"out": str(out), "model": name, "n": head.n, "shape": list(head.shape)}
    plural = "s" * (head.n > 1)
    return Answer(found, f"{out}: {head.n} image{plural} from {name}, bit for bit")


def _model_of(head: Header) -> str:
    """The committed checkpoint that a file was packed with."""
    from .. import checkpoint, codec
    from ..ar.base import ARModel

    for name in checkpoint.names():
        info = checkpoint.read_info(name)
        if (info.get("shape"), info.get("levels")) == (list(head.shape), head.levels):
            model = checkpoint.pretrained(name)
            if isinstance(model, ARModel) and codec.fingerprint(model) == head.weights:
                return name
    raise ValueError(
        f"none of the package's checkpoints has the hash {head.weights.hex()}: give --model, the "
        "file of the checkpoint that packed these images"
    )
