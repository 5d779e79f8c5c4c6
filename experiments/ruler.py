"""Train the committed ruler of a data set, and what real images score on it.

    python experiments/ruler.py                   # digits: seconds on one thread
    python experiments/ruler.py --data mnist --features 32 --steps 3000 --smoothing 0
                                                  # needs the files, see ddpm_lite.data.load

Only the ruler split is trained on. The recipe was chosen by the accuracy on the digits' training
split, which no ruler sees; the accuracy on the test split is stored in the checkpoint with the
real-against-real floors.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import torch

from ddpm_lite import metrics
from ddpm_lite.checkpoint import COMMITTED, export, rounded
from ddpm_lite.data import Images, load
from ddpm_lite.provenance import hardware
from ddpm_lite.ruler import Ruler, fit_ruler


@torch.no_grad()
def accuracy(net: Ruler, images: Images) -> float:
    """Share of images whose class is recognised."""
    right = [net(x).argmax(1) == y for x, y in zip(*_batches(images), strict=True)]
    return float(torch.cat(right).double().mean())


def floors(net: Ruler, images: Images, repeats: int = 20) -> dict[str, float]:
    """Distances between random halves of real images: what a perfect generator would score."""
    features = metrics.features(net, images.x)
    half, rng = len(features) // 2, torch.Generator().manual_seed(0)
    frechet, kernel = [], []
    for _ in range(repeats):
        order = torch.randperm(len(features), generator=rng)
        a, b = features[order[:half]], features[order[half : 2 * half]]
        frechet.append(metrics.frechet(a, b))
        kernel.append(metrics.kernel_distance(a, b))
    return {
        "floor_n": half,
        "floor_frechet": sum(frechet) / repeats,
        "floor_kernel": sum(kernel) / repeats,
    }


def _batches(images: Images) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    return images.x.split(500), images.y.split(500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--size", type=int, help="average pixels down to this size")
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--smoothing", type=float, default=0.1, help="of the labels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: the package's checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(1)

    start = time.perf_counter()
    seen = load(args.data, "ruler", size=args.size)
    recipe = {name: getattr(args, name) for name in ("width", "features", "steps", "smoothing")}
    net = fit_ruler(seen, **recipe, seed=args.seed)
    seconds = round(time.perf_counter() - start, 1)
    rounded(net)  # to the float16 that the file holds: measured as committed
    test = load(args.data, "test", size=args.size)
    figures = {"test_accuracy": accuracy(net, test), "n_test": len(test), **floors(net, test)}
    out = args.out or COMMITTED / f"{args.data}-ruler.safetensors"
    about = {"data": seen, "seed": args.seed, "step": args.steps, "config": recipe}
    about |= {"command": f"python experiments/ruler.py {shlex.join(sys.argv[1:])}".strip()}
    about |= {"seconds": seconds, "hardware": hardware(torch.device("cpu"))}
    header = export(out, net, metrics=figures, **about)
    for key, value in figures.items():
        print(f"{key:14} {value:.4g}")
    print(f"{out}: {header['bytes']:,} bytes, {header['parameters']:,} parameters")


if __name__ == "__main__":
    main()
