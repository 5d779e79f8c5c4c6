"""How much faster is cached sampling than a full forward per pixel?

    python benchmarks/ar_sampling.py --out _build/ar_sampling.json

Forwards and cached runs take turns in one process on one thread, so that whatever else the machine
does falls on both alike; the median of each counts. Naive sampling is D full forwards of the same
batch; at batch 1 one complete naive run checks that product. Times are seconds of this process's
own processor time, which on an idle machine is the wall clock's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ddpm_lite import files
from ddpm_lite.ar import GatedPixelCNN
from ddpm_lite.cost import macs


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.no_grad()
def compare(model: GatedPixelCNN, batch: int, repeats: int) -> dict[str, Any]:
    x = torch.randint(model.levels, (batch, *model.shape))
    model.sample(batch)  # warm
    forwards, runs = [], []
    for seed in range(repeats):
        forwards += [seconds(lambda: model.logits(x)) for _ in range(5)]
        runs.append(seconds(lambda seed=seed: model.sample(batch, seed=seed)))  # type: ignore[misc]
    forward, cached = statistics.median(forwards), statistics.median(runs)
    row = {
        "size": model.shape[1],
        "levels": model.levels,
        "batch": batch,
        "forward_s": forward,
        "forward_gflops": 2 * macs(model.logits, x) / forward / 1e9,
        "naive_s": model.D * forward,
        "cached_s": cached,
        "ratio": model.D * forward / cached,
        "in_forwards": cached / forward,
    }
    if batch == 1:
        row["naive_run_s"] = seconds(lambda: model.sample(1, cached=False))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 28])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 256])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"GatedPixelCNN, width {args.width}, {args.layers} layers, one thread, float32")
    print(f"{'size':>4} {'K':>4} {'batch':>5} {'forward':>9} {'GFLOP/s':>8} {'naive':>9}", end="")
    print(f" {'(one run)':>9} {'cached':>9} {'ratio':>6} {'in forwards':>11}")
    rows = []
    for size in args.sizes:
        for levels in args.levels:
            shape = (1, size, size)
            model = GatedPixelCNN(shape, levels, args.width, args.layers).eval()
            for batch in args.batches:
                row = compare(model, batch, args.repeats)
                rows.append(row)
                run = f"{row['naive_run_s']:8.2f}s" if "naive_run_s" in row else ""
                print(f"{size:4} {levels:4} {batch:5} {row['forward_s'] * 1e3:7.1f}ms", end="")
                print(f" {row['forward_gflops']:8.0f} {row['naive_s']:8.2f}s {run:>9}", end="")
                print(f" {row['cached_s']:8.3f}s {row['ratio']:6.0f} {row['in_forwards']:11.2f}")
    if args.out:
        report = {
            "model": {"class": "GatedPixelCNN", "width": args.width, "layers": args.layers},
            "torch": torch.__version__,
            "machine": platform.machine(),
            "rows": rows,
        }
        files.write(args.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
