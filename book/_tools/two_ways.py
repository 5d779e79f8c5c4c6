"""Draw the book's emblem, `book/_static/two-ways.png`: one test digit made in both ways.

python book/_tools/two_ways.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib.colors import to_rgb
from torch import Tensor

from ddpm_lite import data, viz
from ddpm_lite.schedules import Cosine

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).resolve().parents[1] / "_static" / "two-ways.png"
PANELS = 6


def canvases() -> tuple[list[Tensor], list[Tensor]]:
    """The digit with ever more pixels decided, and at ever lower noise: [H, W] in [-1, 1]."""
    images = data.load("digits", "test")
    digit = data.to_unit(images.x, images.levels)[0, 0]  # [H, W], the first one, not picked
    noise = torch.randn(digit.shape, generator=torch.Generator().manual_seed(0))
    ranks = torch.arange(digit.numel()).view(digit.shape)
    filling, clearing = [], []
    for i in range(PANELS):
        decided = round(digit.numel() * i / (PANELS - 1))
        filling.append(torch.where(ranks < decided, digit, torch.nan))
        alpha, sigma = Cosine()(1 - i / (PANELS - 1))
        clearing.append((alpha * digit + sigma * noise).float())
    return filling, clearing


def main() -> None:
    viz.style()
    figure, axes = plt.subplots(2, PANELS, figsize=(7.2, 2.75))
    for row, pictures, colour, words in zip(
        axes,
        canvases(),
        (viz.AR, viz.DIFFUSION),
        ("pixel by pixel", "noise level by noise level"),
        strict=True,
    ):
        shades = matplotlib.colormaps["gray"].with_extremes(bad=(*to_rgb(colour), 0.16))
        for ax, picture in zip(row, pictures, strict=True):
            ax.imshow(picture, cmap=shades, vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set(visible=True, color=colour, linewidth=1.2)
        row[0].set_title(words, loc="left", color=colour, fontweight="bold")
    figure.savefig(OUT, metadata={"Software": None})


if __name__ == "__main__":
    main()
