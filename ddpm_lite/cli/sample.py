"""`ddpm-lite sample`: images from a trained model, as one picture."""

from __future__ import annotations

import argparse
import io
import json
import math
from typing import TYPE_CHECKING, Any

from .common import Answer, add_common, add_sampling, device, positive, refuse_foreign, writable

if TYPE_CHECKING:
    from torch import Tensor

HELP = "draw images from a trained model of either family"
EXAMPLE = "ddpm-lite sample --model digits-unet --n 16 --sampler ddim --steps 50 --out grid.png"

MOST = 1_000_000  # images on a picture, steps of a chain, classes: more is a slip of the hand


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name (see info) or file of a checkpoint")
    parser.add_argument("--n", type=positive, default=16, help="how many images (default 16)")
    parser.add_argument("--out", required=True, help="picture to write, NAME.png")
    parser.add_argument("--label", type=int, help="class to draw, for a model trained with classes")
    parser.add_argument("--guidance", type=float, help="of a diffusion model, needs --label")
    add_sampling(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> Answer:
    from .. import checkpoint
    from ..diffusion import Denoiser
    from ..evaluate import EvalConfig, generate

    for option in ("n", "steps", "label"):
        if abs(number := getattr(args, option) or 0) > MOST:
            raise ValueError(f"--{option} {number} is out of bounds: at most {MOST:,}")
    out = writable(args.out, ".png")
    if args.guidance is not None and args.label is None:
        raise ValueError("--guidance needs a label to guide towards: give --label")
    model = checkpoint.pretrained(args.model, device(args.device))
    diffusion = isinstance(model, Denoiser)
    if not diffusion and not hasattr(model, "sample"):
        raise ValueError(f"{args.model} is a {type(model).__name__}: it makes no images")
    refuse_foreign(args, diffusion)
    chosen = {k: getattr(args, k) for k in ("sampler", "steps", "temperature")}
    config = EvalConfig(seed=args.seed, **{k: v for k, v in chosen.items() if v is not None})
    images = generate(model, args.n, config, args.label, args.guidance)
    about = {"model": args.model, "hash": model.info["hash"], "n": args.n, "seed": args.seed}
    about |= {k: v for k, v in chosen.items() if v is not None}
    about |= {k: v for k in ("label", "guidance") if (v := getattr(args, k)) is not None}
    write_grid(out, images, model.info["levels"], about)
    return Answer(
        {"out": str(out), **about}, f"{out}: {args.n} image{'s' * (args.n > 1)} from {args.model}"
    )


def write_grid(path: Any, images: Tensor, levels: int, about: dict[str, Any]) -> None:
    """Levels uint8[n, C, H, W] as a PNG: rows of images, small ones enlarged pixel by pixel."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from .. import files

    n, channels, height, width = images.shape
    if channels not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, these images have {channels}")
    columns, gap = math.ceil(math.sqrt(n)), 1
    rows = math.ceil(n / columns)
    size = (rows * (height + gap) + gap, columns * (width + gap) + gap)
    sheet = images.new_full((channels, *size), 128)
    grey = (images.long() * 255 // (levels - 1)).to(images.dtype)
    for j, image in enumerate(grey):
        top, left = gap + (j // columns) * (height + gap), gap + (j % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    scale = max(1, 64 // height)
    sheet = sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    pixels = sheet.permute(1, 2, 0).numpy()  # [H, W, C]
    note, buffer = PngInfo(), io.BytesIO()
    note.add_text("ddpm_lite", json.dumps(about))
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(
        buffer, format="PNG", pnginfo=note
    )
    files.write(path, buffer.getvalue())
