"""The codec against PNG, WebP, xz and bzip2, on test images that the model never saw.

    python experiments/compression.py                          # digits-gated, two minutes
    python experiments/compression.py mnist-gated --n 1000     # another checkpoint, by name or file

Writes ``ddpm_lite/results/compression.json``; the entries of a checkpoint end in its name. Every
file is decompressed again and held against the images, bit for bit. Seconds are the processor's,
with one thread. The model's weights are not counted in any size: they are what the receiver has.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_lite import baselines, codec
from ddpm_lite.ar import ARModel
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load
from ddpm_lite.record import record

HERE = Path(__file__).resolve().parents[1]


def measure(name: str, model: ARModel, x: Tensor, singles: int, note: str) -> None:
    """Sizes in bits/dim: what the model asks for, one file for all, a file each, and the rivals."""
    values, start = x.numel(), time.process_time()
    data = codec.compress(model, x)
    packed = time.process_time()
    back = codec.decompress(model, data)
    unpacked = time.process_time()
    if not torch.equal(back, x):
        raise SystemExit(f"{name}: the pixels did not come back")
    by_image = codec.ideal_bits(model, x)
    ideal, payload = float(by_image.sum()), 8 * (len(data) - codec.HEADER)
    error = 1.96 * float(by_image.std()) / len(x) ** 0.5 * len(x) / values
    bits, n, unit = ideal / values, len(x), "bits/dim"
    record(f"compression/ideal_{name}", bits, unit, [bits - error, bits + error], n, note=note)
    record(f"compression/file_{name}", 8 * len(data) / values, unit, n=n, bytes=len(data),
           header_bytes=codec.HEADER)  # fmt: skip
    record(f"compression/overhead_{name}", 100 * (payload / ideal - 1), "%", n=n, bits=payload)
    record(f"compression/compress_{name}", 1000 * (packed - start) / n, "CPU ms/image", n=n)
    record(f"compression/decompress_{name}", 1000 * (unpacked - packed) / n, "CPU ms/image", n=n)

    if singles:
        few = x[:singles]
        sizes = np.array([len(codec.compress(model, image[None])) for image in few])
        alone = 8 * float((sizes - codec.HEADER).sum()) / few.numel()
        asked = float(by_image[:singles].sum()) / few.numel()
        record(f"compression/single_{name}", 8 * float(sizes.sum()) / few.numel(), unit,
               n=len(few), without_headers=alone, ideal=asked)  # fmt: skip

    found = baselines.sizes(x, model.levels)
    table = {k: {way: 8 * v / values for way, v in way_of.items()} for k, way_of in found.items()}
    record(f"compression/baselines_{name}", table, unit, n=n)
    best = min(way["sheet"] for way in table.values())
    record(f"compression/gain_{name}", best / (8 * len(data) / values), "times", n=n)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="digits-gated")
    parser.add_argument("--name", help="of the entries (default the model's, without its folder)")
    parser.add_argument("--n", type=int, default=1000, help="at most so many test images")
    parser.add_argument("--singles", type=int, default=397, help="files of one image each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = pretrained(args.model)
    if not isinstance(model, ARModel):
        raise SystemExit(f"{args.model} is a {type(model).__name__}: it has no codec")
    about: dict[str, Any] = model.info["data"]  # type: ignore[index, assignment]
    name, C = args.name or Path(args.model).stem, model.shape[0]
    size = None if about["name"] == "digits" else model.shape[-1]
    test = load(about["name"], "test", size=size)
    if (test.shape, test.levels) != (model.shape, model.levels) or C not in (1, 3):
        raise SystemExit(f"{about['name']} is not what {args.model} was trained on")
    os.environ["DDPM_LITE_RESULTS"] = str(HERE / "ddpm_lite" / "results")
    measure(name, model, test.x[: args.n], args.singles, test.note)
    if about["name"] == "digits":  # 500 held-out images: the test split and 103 of the ruler's
        more = torch.cat([test.x, load("digits", "ruler").x])[:500]
        measure(f"{name}_500", model, more, 0, "the test split and 103 of the ruler's")


if __name__ == "__main__":
    main()
