"""How much faster is cached sampling than a full forward per value?

    python benchmarks/ar_sampling.py --quick
    python benchmarks/ar_sampling.py --models gated --batches 1 16 --out _build/ar_sampling.json
    python benchmarks/ar_sampling.py --commit   # the table that comes with the package; hours

Everything of a row (forwards, cached runs, bare layers) takes turns in one process on one thread,
so that whatever else the machine does falls on all alike; medians count. Times are seconds of this
process's own processor time, which on an idle machine is the wall clock's.

forward     the full forward of the batch, with the GFLOP/s it reaches; beside it those of its
            convolutions and linear layers alone, run bare: a slow forward would flatter the ratio
naive       the convolutional nets: D forwards. The transformer: a forward of the *prefix* for each
            rank, which is what a careful sampler without a cache runs, and half the work or less
            (integrated over 8 lengths). At batch 1 and 16 one complete naive run checks it
ratio       naive / cached, in seconds and in counted multiply-accumulates (MACs)
forwards    cached / forward: how many full forwards a whole batch of images costs
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lite import files
from ddpm_lite.ar import ARModel, GatedPixelCNN, ImageGPT, PixelCNN
from ddpm_lite.ar.sampling import draw
from ddpm_lite.cost import interleaved, macs
from ddpm_lite.record import COMMITTED, record

MODELS: dict[str, Callable[[tuple[int, int, int], int], ARModel]] = {
    "gated": lambda shape, levels: GatedPixelCNN(shape, levels, width=64, layers=8),
    "pixelcnn": lambda shape, levels: PixelCNN(shape, levels, width=64, layers=8),
    "imagegpt": lambda shape, levels: ImageGPT(shape, levels, width=128, layers=4, heads=4),
}
SHAPES = {"8": (1, 8, 8), "28": (1, 28, 28), "32x3": (3, 32, 32)}
LENGTHS = 8  # prefixes at the middles of so many equal parts of the image
# what is aimed at on 28×28: (model, levels, batch) -> least ratio, most forwards
TARGETS = {
    ("gated", 8, 1): (60, None),
    ("gated", 8, 16): (400, 1.5),
    ("gated", 8, 64): (550, 1.1),
    ("gated", 256, 1): (45, None),
    ("gated", 256, 16): (320, None),
    ("gated", 256, 64): (450, None),
    ("imagegpt", 8, 1): (12, None),
    ("imagegpt", 8, 16): (45, None),
}
Work = Callable[[], object]


@torch.no_grad()
def compare(model: ARModel, batch: int, seconds: float, confirm: float) -> dict[str, Any]:
    """One row of the table; `seconds` for its rounds, `confirm` for a complete naive run."""
    x = torch.randint(model.levels, (batch, *model.shape))
    bare = layers_alone(model, x)
    work: dict[str, Work] = {
        "forward": lambda: model.logits(x),
        "cached": lambda: model.sample(batch),
        "bare": lambda: [layer() for layer in bare],
    }
    parts = dict.fromkeys(["forward"], float(model.D))  # naive = the sum of times × count
    if isinstance(model, ImageGPT):
        values = x.flatten(1)[:, model.order]
        lengths = [model.D * (2 * k + 1) // (2 * LENGTHS) for k in range(LENGTHS)]
        parts = {f"prefix of {t}": model.D / LENGTHS for t in lengths}
        work |= {
            name: lambda t=t: last_logits(model, values[:, :t])  # type: ignore[misc]
            for name, t in zip(parts, lengths, strict=True)
        }
    first = sum(clock(w) for w in work.values())  # warm, and how long a round takes
    rounds = min(15, max(3, int(seconds / first)))
    seen = interleaved(work, rounds, warmup=0, clock=time.process_time)
    median = {name: statistics.median(t) for name, t in seen.items()}
    total = sum(times * median[name] for name, times in parts.items())
    row = {
        "batch": batch,
        "rounds": rounds,
        "forward_s": median["forward"],
        "forward_gflops": 2e-9 * macs(work["forward"]) / median["forward"],
        "bare_gflops": 2e-9 * macs(work["bare"]) / median["bare"],
        "naive_s": total,
        "cached_s": median["cached"],
        "ratio": total / median["cached"],
        "forwards": median["cached"] / median["forward"],
    }
    if batch in (1, 16) and total < confirm:
        row["naive_run_s"] = clock(lambda: naive(model, batch))
    return row


@torch.no_grad()
def count(model: ARModel) -> dict[str, float]:
    """MACs of one image, in full forwards: naive and cached."""
    x = torch.zeros(1, *model.shape, dtype=torch.int64)
    forward, naive = macs(model.logits, x), float(model.D)
    if isinstance(model, ImageGPT):
        values = x.flatten(1)
        lengths = [model.D * (2 * k + 1) // (2 * LENGTHS) for k in range(LENGTHS)]
        mean = statistics.mean(macs(last_logits, model, values[:, :t]) for t in lengths)
        naive = model.D * mean / forward
    cached = macs(model.sample, 1) / forward
    return {"forward_macs": forward, "naive_macs": naive, "cached_macs": cached}


def layers_alone(model: ARModel, x: Tensor) -> list[Work]:
    """The convolutions and linear layers that a forward calls, on inputs of the same shapes."""
    inputs: dict[torch.Size, Tensor] = {}
    calls: list[Work] = []

    def hook(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        given = inputs.setdefault(args[0].shape, torch.randn_like(args[0]))
        if isinstance(layer, nn.Conv2d):
            pad = layer.padding
            calls.append(lambda: F.conv2d(given, layer.weight, layer.bias, padding=pad))
        elif isinstance(layer, nn.Linear):
            calls.append(lambda: F.linear(given, layer.weight, layer.bias))

    kinds = (nn.Conv2d, nn.Linear)
    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
    model.logits(x)
    for handle in handles:
        handle.remove()
    return calls


def last_logits(model: ImageGPT, values: Tensor) -> Tensor:
    """Logits [n,K] of the rank after the values int64[n,i]."""
    return model.out(model.features(values, None)[:, -1])


@torch.no_grad()
def naive(model: ARModel, n: int) -> Tensor:
    """Sampling without a cache; the transformer's on the prefix gives the values by rank."""
    if not isinstance(model, ImageGPT):
        return model.sample(n, cached=False)
    values = torch.zeros(n, 0, dtype=torch.int64)
    for u in torch.rand(model.D, n, dtype=torch.float64):
        values = torch.cat([values, draw(last_logits(model, values), u)[:, None]], 1)
    return values


def clock(work: Work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


HEAD = (
    f"{'model':8} {'shape':>7} {'K':>3} {'batch':>5} | {'forward':>9} {'GFLOP/s':>7} {'bare':>4} |"
    f" {'naive':>9} {'(one run)':>9} {'cached':>8} | {'ratio':>5} {'MACs':>5} {'forwards':>8}"
)


def line(row: dict[str, Any]) -> str:
    run = f"{row['naive_run_s']:8.1f}s" if "naive_run_s" in row else ""
    text = f"{row['model']:8} {row['shape']:>7} {row['levels']:3} {row['batch']:5} | "
    text += (
        f"{row['forward_s'] * 1e3:7.1f}ms {row['forward_gflops']:7.0f} {row['bare_gflops']:4.0f}"
    )
    text += f" | {row['naive_s']:8.1f}s {run:>9} {row['cached_s']:7.2f}s | {row['ratio']:5.0f} "
    text += f"{row['naive_macs'] / row['cached_macs']:5.0f} {row['forwards']:8.2f}"
    if row["shape"] == "28" and (row["model"], row["levels"], row["batch"]) in TARGETS:
        least, most = TARGETS[row["model"], row["levels"], row["batch"]]
        met = row["ratio"] >= least and (most is None or row["forwards"] <= most)
        text += f"  {'meets' if met else 'MISSES'} {least}" + (f", {most}" if most else "")
    return text


def entry(row: dict[str, Any]) -> dict[str, Any]:
    """What `record` keeps of a row: the ratio, and how it came about."""
    kept = ("forwards", "forward_s", "cached_s", "naive_s", "naive_macs", "cached_macs")
    about = {name: row[name] for name in kept}
    return {"value": row["ratio"], "unit": "naive / cached", "rounds": row["rounds"], **about}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    parser.add_argument("--commit", action="store_true",
                        help="write every ratio into the package's ar_sampling.json")  # fmt: skip
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 256])
    parser.add_argument("--seconds", type=float, default=20, help="rounds of a row (least: 3)")
    parser.add_argument("--largest", type=float, default=100,
                        help="leave out rows whose forward exceeds so many GMACs")  # fmt: skip
    parser.add_argument("--confirm", type=float, default=400,
                        help="run naive sampling as a whole where it takes no longer")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="28×28, 8 levels, batch 1 and 16, no long naive run")  # fmt: skip
    args = parser.parse_args()
    if args.quick:
        args.shapes, args.levels, args.batches = ["28"], [8], [1, 16]
        args.seconds, args.confirm = 5, 30

    if args.commit:
        os.environ["DDPM_LITE_RESULTS"] = str(COMMITTED)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one thread, float32, torch {torch.__version__}\n{HEAD}")
    rows = []
    for name in args.models:
        for shape in args.shapes:
            for levels in args.levels:
                model = MODELS[name](SHAPES[shape], levels).eval()
                about = {"model": name, "shape": shape, "levels": levels, **count(model)}
                for batch in args.batches:
                    if batch * about["forward_macs"] > args.largest * 1e9:
                        print(f"{name:8} {shape:>7} {levels:3} {batch:5} | left out: too large")
                        continue
                    rows.append(about | compare(model, batch, args.seconds, args.confirm))
                    print(line(rows[-1]), flush=True)
                    if args.commit:
                        record(f"ar_sampling/{name}_{shape}_{levels}_{batch}", **entry(rows[-1]))
    if args.out:
        about = {"torch": torch.__version__, "machine": platform.machine(), "rows": rows}
        files.write(args.out, (json.dumps(about, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
