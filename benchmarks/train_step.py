"""Images per second of a training step: our U-Net beside diffusers' UNet2DModel.

    python benchmarks/train_step.py                  # one thread, about a minute and a half
    python benchmarks/train_step.py --threads 1 2 --out _build/train_step.json

All networks take turns in one process, so that whatever else the machine does falls on all alike. A
step is forward, backward and AdamW. The ratio to UNet2DModel in float32 is taken within each round;
its median and quartiles are shown. With one thread the clock is this process's own processor time,
with more it is the wall's: then nothing else should run. MMACs are those of one image's forward
pass as torch counts them; it does not see UNet2DModel's fused attention.

    same    UNet2DModel's architecture; its weights load, and the outputs agree to 1e-5
    patches 2x2 pixels folded into channels first, otherwise the same
    wide    patches, two resolutions in place of three, twice the channels
    narrow  no patches: half the channels, one block a level, most channels at 7x7

The last three have as many parameters and do less work. Whether they learn as much is not said
here: `experiments/unet_design.py` compares that.
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
import torch.nn.functional as F
from _peer import load_peer, peer_of
from torch import Tensor, nn

from ddpm_lite import files
from ddpm_lite.cost import interleaved, macs
from ddpm_lite.unet import UNet

SIZE = 28
DESIGNS: dict[str, dict[str, Any]] = {
    "same": {},
    "patches": {"patch": 2},
    "wide": {"patch": 2, "width": 64, "mults": (1, 1), "attention": (False, True)},
    "narrow": {"width": 16, "mults": (1, 2, 7), "blocks": 1},
}
PEER = "UNet2DModel"


class Peer(nn.Module):
    """UNet2DModel with our calling convention."""

    def __init__(self) -> None:
        super().__init__()
        self.net = peer_of(UNet(1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t).sample


def network(name: str) -> nn.Module:
    return Peer() if name == PEER else UNet(1, **DESIGNS[name])


def training_step(net: nn.Module, batch: int, bf16: bool) -> Callable[[], None]:
    """One step, always on the same images; bf16 is autocast with channels last, as in `train`."""
    layout = torch.channels_last if bf16 else torch.contiguous_format
    net.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, batch, 1, SIZE, SIZE, generator=g)
    level = torch.rand(batch, generator=g)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(x, level)
        F.mse_loss(out.float(), noise).backward()
        optimizer.step()

    return step


@torch.no_grad()
def largest_difference() -> float:
    """Between the outputs of the two networks of one architecture, with the same weights."""
    net, peer = UNet(1).eval(), Peer().eval()
    load_peer(net, peer.net)
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(4, 1, SIZE, SIZE, generator=g), torch.tensor([1.0, 250.0, 500.0, 999.0])
    return float((net(x, t) - peer(x, t)).abs().max())


def compare(threads: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """One row for each network and precision."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    names = [(name, bf16) for bf16 in (False, True) for name in (PEER, *DESIGNS)]
    nets = {key: network(key[0]) for key in names}
    steps = {f"{name} {bf16}": training_step(nets[name, bf16], batch, bf16) for name, bf16 in names}
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = interleaved(steps, repeats, warmup=1, clock=clock)
    rows = []
    for name, bf16 in names:
        net, image = nets[name, bf16], torch.zeros(1, 1, SIZE, SIZE)
        own, reference = seconds[f"{name} {bf16}"], seconds[f"{PEER} False"]
        ratios = [theirs / ours for theirs, ours in zip(reference, own, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append(
            {
                "network": name,
                "precision": "bfloat16" if bf16 else "float32",
                "threads": threads,
                "batch": batch,
                "parameters": sum(p.numel() for p in net.parameters()),
                "forward_macs": macs(net, image, torch.ones(1)),
                "images_per_s": batch / statistics.median(own),
                "ratio": ratio,
                "quartiles": [low, high],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, after one that warms up")
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error("quartiles need at least two rounds")

    difference = largest_difference()
    print(
        f"forward, backward, AdamW; {SIZE}x{SIZE}, batch {args.batch}; ratios to {PEER} in float32"
    )
    print(f"same weights in {PEER} and ours: outputs differ by at most {difference:.1e}")
    print(f"{'network':>12} {'precision':>9} {'threads':>7} {'parameters':>10}", end="")
    print(f" {'MMACs':>6} {'images/s':>8} {'ratio':>5}  quartiles")
    rows = []
    for threads in args.threads:
        for row in compare(threads, args.batch, args.repeats):
            rows.append(row)
            print(f"{row['network']:>12} {row['precision']:>9} {threads:7}", end="")
            print(f" {row['parameters']:10,} {row['forward_macs'] / 1e6:6.1f}", end="")
            print(f" {row['images_per_s']:8.1f} {row['ratio']:5.2f}", end="")
            print("  {:.2f}-{:.2f}".format(*row["quartiles"]))
    if args.out:
        report = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "largest_difference": difference,
            "rows": rows,
        }
        files.write(args.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
