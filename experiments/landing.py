"""The pictures of the landing page and the README, from committed checkpoints and results.

    python experiments/landing.py

Writes ``book/_static/two-canvases.webp`` (moving), ``two-canvases.png`` (six stills of the first
digit of each), ``mnist.png`` and ``headline.png``. Digits are the first of seed 0, never picked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ddpm_lite import viz
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import to_levels
from ddpm_lite.diffusion import clipped
from ddpm_lite.record import committed, results
from ddpm_lite.samplers import ddpm, sample
from ddpm_lite.schedules import from_spec

OUT = Path(__file__).resolve().parents[1] / "book" / "_static"
N, FRAMES, SCALE = 8, 64, 9


def canvases() -> tuple[torch.Tensor, torch.Tensor]:
    """[65, 8, 1, 8, 8] each: the canvas after k of 64 pixels, and after k of 64 noise levels."""
    ar = pretrained("digits-gated")
    drawn = torch.stack([s.x.clone() for s in ar.sample_steps(N, seed=0)])
    if len(drawn) == FRAMES:  # the empty canvas is not a state of the sampler
        drawn = torch.cat([torch.zeros_like(drawn[:1]), drawn])
    filling = torch.stack(
        [viz.filling(list(drawn[:, j]), levels=17) for j in range(N)], 1
    )  # [65, 8, 1, 8, 8]
    model = pretrained("digits-unet")
    generator = torch.Generator().manual_seed(0)

    def unit(_: int) -> torch.Tensor:
        return torch.randn(N, 1, 8, 8, generator=generator)

    grid = from_spec(model.info["schedule"]).grid(FRAMES)
    clearing = torch.stack([s.x for s in ddpm(clipped(model), unit(0), grid, fresh=unit)])
    return filling, clearing


def frame(filling: torch.Tensor, clearing: torch.Tensor, step: int) -> Image.Image:
    """Both canvases side by side, four digits by two, with the step under each."""
    sides = []
    for images, word, colour in (
        (filling, "pixel by pixel", viz.AR),
        (clearing, "noise level by noise level", viz.DIFFUSION),
    ):
        picture = Image.fromarray(np.uint8(255 * viz.tile(images, columns=4))).convert("RGB")
        picture = picture.resize(
            (picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST
        )
        side = Image.new("RGB", (picture.width + 8, picture.height + 48), "white")
        side.paste(picture, (4, 4))
        draw = ImageDraw.Draw(side)
        draw.rectangle((0, 0, side.width - 1, picture.height + 7), outline=colour, width=4)
        font = ImageFont.load_default(21)  # read on a phone, at half this size
        draw.text((6, picture.height + 14), f"{word}: {step} of {FRAMES}", fill=colour, font=font)
        sides.append(side)
    both = Image.new("RGB", (2 * sides[0].width + 20, sides[0].height), "white")
    both.paste(sides[0], (0, 0))
    both.paste(sides[1], (sides[0].width + 20, 0))
    return both


def stills(filling: torch.Tensor, clearing: torch.Tensor, panels: int = 6) -> None:
    """The first digit of each family at equal distances along its chain."""
    import matplotlib.pyplot as plt

    viz.style()
    fig, axes = plt.subplots(2, panels, figsize=(6.4, 2.6), layout="none")
    fig.subplots_adjust(0.01, 0.01, 0.99, 0.91, wspace=0.08, hspace=0.3)
    for row, images, colour, word in (
        (axes[0], filling, viz.AR, "pixel by pixel"),
        (axes[1], clearing, viz.DIFFUSION, "noise level by noise level"),
    ):
        for ax, step in zip(row, np.linspace(0, FRAMES, panels).round().astype(int), strict=True):
            ax.imshow(images[step, 0, 0], vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            for spine in ax.spines.values():
                spine.set(visible=True, color=colour, linewidth=2)
        row[0].set_title(word, loc="left", color=colour, fontweight="bold")
    fig.savefig(OUT / "two-canvases.png")


def mnist() -> None:
    """Two rows of each family at 28×28, told the classes 0 to 9."""
    ar, unet = (pretrained(f"mnist-{name}") for name in ("gated", "unet"))
    label = torch.arange(20) % 10
    digits = to_levels(sample(unet, 20, label=label, seed=0), 256)
    viz.style()
    rows: dict[str, torch.Tensor] = {}
    for word, x in ("pixel by pixel", ar.sample(20, label, seed=0)), ("level by level", digits):
        rows |= {word: x[:10].long(), f"{word} ": x[10:].long()}
    fig = viz.rows(rows, columns=10, levels=256, height=3.1)
    fig.savefig(OUT / "mnist.png")


def headline() -> None:
    """Quality against arithmetic, both families, from the committed bout."""
    import matplotlib.pyplot as plt

    viz.style()
    tones = {"ddim": viz.DIFFUSION, "ddpm": "#56B4E9", "dpmpp_2m": "#00304D", "heun": "#009E73"}
    fig, ax = plt.subplots(figsize=(6.0, 4.6))
    for sampler, table in committed("bout/curve").items():
        points = dict(sorted(table.items(), key=lambda item: int(item[0])))
        spent = [int(k) * committed("bout/forward_macs_unet") / 1e6 for k in points]
        viz.band(
            ax,
            spent,
            [p["value"] for p in points.values()],
            [tuple(p["interval"]) for p in points.values()],
            color=tones[sampler],  # as in chapter 5
            marker=viz.MARKERS[sampler],
            label=viz.LABELS[sampler],
        )
    ar = results("bout")["frechet_gated"]
    for passes, way in ((64, "naive"), (1, "cached")):
        viz.band(
            ax,
            [passes * committed("bout/forward_macs_gated") / 1e6],
            [ar["value"]],
            [tuple(ar["interval"])],
            color=viz.AR,
            marker=viz.MARKERS[way],
            markersize=8,
            linestyle="",
            label=f"PixelCNN, {way}",
        )
    viz.floor(ax, committed("bout/frechet_floor"), "real against real")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="million multiply-accumulates per image",
        ylabel="Fréchet distance (lower is better)",
        yticks=[1, 2, 3, 4, 6],
        yticklabels=["1", "2", "3", "4", "6"],
        ylim=(0.36, 8),
        xticks=[10, 30, 100, 300, 1000],
        xticklabels=["10", "30", "100", "300", "1,000"],
    )
    ax.minorticks_off()
    ax.legend(ncols=2, loc="lower center")
    fig.savefig(OUT / "headline.png")


if __name__ == "__main__":
    filling, clearing = canvases()
    shown = [frame(filling[k], clearing[k], k) for k in range(FRAMES + 1)]
    stills(filling, clearing)
    shown[0].save(
        OUT / "two-canvases.webp",
        save_all=True,
        append_images=shown[1:],
        duration=[90] * FRAMES + [3000],
        loop=0,
        lossless=True,
    )
    mnist()
    headline()
