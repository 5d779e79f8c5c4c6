"""Is a canvas fixed? Both families' digit networks on canvases that they never saw.

    python experiments/canvas.py    # a minute of one core

Trained at 8x8, sampled at 8x16 and 16x8, each half judged as a digit of its own: how sure the ruler
is of its class, and how far the halves are from test digits. The U-Net takes any size. The gated
PixelCNN's convolutions do too, but its class checks the shape: the same weights are put into a
network of the larger one. What has a weight for every position (MADE's layers, the PixelCNN's map
of positions) cannot be moved: see ``refusals``. Writes ``ddpm_lite/results/canvas.json``.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lite import metrics, samplers
from ddpm_lite.ar import MADE, ARModel, GatedPixelCNN
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load, to_levels
from ddpm_lite.diffusion import clipped
from ddpm_lite.record import record
from ddpm_lite.schedules import from_spec
from ddpm_lite.specs import build

HERE = Path(__file__).resolve().parents[1]
N, LEVELS = 1000, 17
SIZES = {"native": (8, 8), "wide": (8, 16), "tall": (16, 8)}


def grown(model: ARModel, height: int, width: int) -> ARModel:
    """The same weights for another canvas. RuntimeError where a weight belongs to a position."""
    larger: ARModel = build(model.spec | {"shape": [model.shape[0], height, width]})
    larger.load_state_dict(model.state_dict())
    return larger.eval()


def drawn(family: str, height: int, width: int) -> Tensor:
    """N canvases as levels [N, 1, height, width]."""
    model = pretrained(f"digits-{family}")
    if isinstance(model, ARModel):
        return grown(model, height, width).sample(N, seed=0)
    grid = from_spec(model.info["schedule"]).grid(20)
    noise = torch.randn(N, 1, height, width, generator=torch.Generator().manual_seed(0))
    return to_levels(samplers.last(samplers.dpmpp_2m(clipped(model), noise, grid)).x, LEVELS)


def refusals() -> list[str]:
    """The autoregressive networks whose weights belong to positions."""
    found = []
    for name, model in {
        "MADE": MADE((1, 8, 8), LEVELS, width=32),
        "positions": GatedPixelCNN((1, 8, 8), LEVELS, 8, 2, positions=True),
        "gated": GatedPixelCNN((1, 8, 8), LEVELS, 8, 2),
    }.items():
        try:
            grown(model, 8, 16)
        except RuntimeError:
            found.append(name)
    return found


def main() -> None:
    ruler, test = pretrained("digits-ruler"), load("digits", "test").x
    real = metrics.features(ruler, test)

    @torch.no_grad()
    def judged(key: str, x: Tensor) -> None:
        sure = ruler(x).softmax(1).amax(1).double()
        value, *ends = metrics.bootstrap(lambda v: v.mean().item(), sure)
        record(f"canvas/{key}_sure", value, "", ends, len(x))
        value, *ends = metrics.bootstrap(metrics.frechet, metrics.features(ruler, x), real, n=200)
        record(f"canvas/{key}_frechet", value, "", ends, len(x))

    judged("real", test)
    mixed = torch.Generator().manual_seed(0)
    judged("shuffled", test.flatten(1)[:, torch.randperm(64, generator=mixed)].view_as(test))
    for family in ("unet", "gated"):
        for name, size in SIZES.items():
            x = drawn(family, *size)
            halves = x.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)  # [N, 1, 1 or 2, 8, 8]
            for half in range(halves.shape[2]):
                judged(f"{family}_{name}_{half}", halves[:, :, half])
    record("canvas/refuse", refusals())


if __name__ == "__main__":
    os.environ["DDPM_LITE_RESULTS"] = str(HERE / "ddpm_lite" / "results")
    torch.set_num_threads(1)
    main()
