"""One visual grammar for every figure of the book.

Autoregressive is vermillion, diffusion blue, real data mid-grey; floors and baselines are dashed;
each sampler keeps its marker. Figures are narrow enough to be read on a phone.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import require

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AR, DIFFUSION, DATA, TRUTH, MUTED = "#D55E00", "#0072B2", "#7F7F7F", "#111111", "#B8B8B8"
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # the rest of Okabe and Ito's palette

MARKERS = {"ddpm": "s", "ddim": "o", "heun": "^", "dpmpp_2m": "D", "naive": "v", "cached": "P"}
LABELS = {
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "heun": "Heun",
    "dpmpp_2m": "DPM-Solver++(2M)",
    "naive": "AR, naive",
    "cached": "AR, cached",
}


def style() -> None:
    """Set matplotlib up for the book; call it once, in the set-up cell."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E6E6E6",
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "axes.prop_cycle": cycler(color=[DIFFUSION, AR, *OTHERS]),
        }
    )


def tile(images: Tensor, columns: int = 8, levels: int | None = None, gap: int = 1) -> np.ndarray:
    """Images as one picture.

    Args:
        images: [N, C, H, W], C 1 or 3: floats in [-1, 1], or integers in 0..levels-1.
        columns: images in a row. gap: pixels between images, light grey.

    Returns:
        float32 [rows, columns] or [rows, columns, 3] in [0, 1]. ValueError for integers without
        ``levels``, or for another number of channels.
    """
    images = require.tensor("images", images).detach().cpu()
    require.whole("columns", columns)
    require.whole("gap", gap, 0)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be [N, 1 or 3, H, W], got {[*images.shape]}")
    if not len(images):
        raise ValueError("there are no images to show")
    if images.is_floating_point():
        require.finite("images", images)
    else:
        if levels is None:
            raise ValueError("integer images need levels= to know what white is")
        require.whole("levels", levels, 2)
        if not 0 <= int(images.min()) <= int(images.max()) < levels:
            raise ValueError(f"images must hold levels 0..{levels - 1}: is levels= right?")
        images = 2 * images.float() / (levels - 1) - 1
    n, c, h, w = images.shape
    rows = -(-n // columns)
    canvas = torch.full((c, rows * (h + gap) + gap, columns * (w + gap) + gap), 0.85)
    for j, image in enumerate(images):
        top, left = (j // columns) * (h + gap) + gap, (j % columns) * (w + gap) + gap
        canvas[:, top : top + h, left : left + w] = (image.float().clamp(-1, 1) + 1) / 2
    picture = canvas.permute(1, 2, 0).numpy()
    return picture[..., 0] if c == 1 else picture


def show(
    ax: Axes, images: Tensor, columns: int = 8, levels: int | None = None, title: str = ""
) -> None:
    """Draw ``tile(images)`` without axes."""
    ax.imshow(tile(images, columns, levels), vmin=0, vmax=1)
    ax.set_axis_off()
    if title:
        ax.set_title(title)


def rows(
    sets: dict[str, Tensor],
    columns: int = 8,
    levels: int | None = None,
    height: float | None = None,
) -> Figure:
    """One labelled row of images per entry: the first ``columns`` of each, never picked."""
    import matplotlib.pyplot as plt

    if not isinstance(sets, dict) or not sets:
        raise ValueError("sets must be a table {name: images}, not empty")
    fig, axes = plt.subplots(
        len(sets), 1, figsize=(6.4, height or 0.95 * len(sets) + 0.1), squeeze=False
    )
    for ax, (name, images) in zip(axes[:, 0], sets.items(), strict=True):
        ax.imshow(tile(images[:columns], columns, levels), vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return fig


def band(
    ax: Axes,
    x: Sequence[float],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    **line: Any,
) -> None:
    """A line with its intervals; ``line`` goes to ``ax.errorbar``."""
    values_, ends = np.asarray(values), np.asarray(intervals)
    if ends.shape != (len(values_), 2) or len(x) != len(values_):
        raise ValueError(f"{len(values_)} values need as many x and intervals (low, high)")
    spread = np.abs(np.stack([values_ - ends[:, 0], ends[:, 1] - values_]))
    ax.errorbar(x, values_, yerr=spread, capsize=2.5, elinewidth=1.2, **line)


def floor(ax: Axes, value: float, label: str) -> None:
    """A dashed horizontal line for a floor or a baseline."""
    ax.axhline(value, color=DATA, linestyle="--", linewidth=1.3, label=label)


def filling(states: Sequence[Tensor], levels: int, order: Tensor | None = None) -> Tensor:
    """The canvas filling pixel by pixel: canvases int64[C, H, W] after 0, 1, … ranks, [N, C, H, W].

    Pixels that are still to be drawn are shown mid-grey. ``states[i]`` is the canvas after
    ``i`` ranks; ``order[rank]`` is the flat position (default: raster).
    """
    require.whole("levels", levels, 2)
    if not len(states):
        raise ValueError("there are no states to show: take one canvas at least")
    pictures = []
    for i, canvas in enumerate(states):
        picture = 2 * canvas.float().flatten() / (levels - 1) - 1
        drawn = torch.zeros_like(picture, dtype=torch.bool)
        drawn[torch.arange(i) if order is None else order[:i]] = True
        pictures.append(torch.where(drawn, picture, 0.0).view(canvas.shape))
    return torch.stack(pictures)


def player(
    frames: Sequence[Tensor] | Tensor,
    captions: Sequence[str],
    alt: str,
    levels: int | None = None,
    columns: int = 8,
    scale: int = 4,
    start: int = 0,
) -> HTML:
    """A slider over precomputed pictures that works in the notebook, in HTML and from a folder.

    Needs neither a kernel nor a widget manager: the frames are one tall PNG behind a window.

    Args:
        frames: T batches [N, C, H, W]; each becomes one picture. captions: T short texts.
        alt: what is to be seen, for readers who cannot. scale: screen pixels per image pixel.
    """
    from IPython.display import HTML
    from PIL import Image

    if len(frames) != len(captions) or not len(frames):
        raise ValueError(f"{len(frames)} frames need as many captions, got {len(captions)}")
    require.whole("scale", scale)
    require.whole("start", start, 0, len(frames) - 1)
    pictures = [np.uint8(255 * tile(f, min(columns, len(f)), levels)) for f in frames]
    shape: tuple[int, ...] = pictures[0].shape
    height, width = scale * shape[0], scale * shape[1]
    sheet = io.BytesIO()
    Image.fromarray(np.concatenate(pictures)).save(sheet, format="PNG", optimize=True)
    source = base64.b64encode(sheet.getvalue()).decode()
    move = (
        "const p=this.closest('.player');"
        "p.querySelector('.sheet').style.transform="
        f"'translateY(-'+100*this.value/{len(pictures)}+'%)';"
        "p.querySelector('output').textContent=JSON.parse(p.dataset.captions)[this.value]"
    )
    names = html.escape(json.dumps(list(captions)))
    top = 100 * start / len(pictures)
    return HTML(
        f'<div class="player" data-captions="{names}" style="max-width:{width}px;width:100%">'
        f'<div style="overflow:hidden;aspect-ratio:{width}/{height};width:100%">'
        f'<img class="sheet" alt="{html.escape(alt)}" src="data:image/png;base64,{source}" '
        'style="width:100%;max-width:none;display:block;margin:0;image-rendering:pixelated;'
        f'transform:translateY(-{top}%)"></div>'
        f'<input type="range" min="0" max="{len(pictures) - 1}" value="{start}" '
        f'style="width:100%" aria-label="frame" oninput="{html.escape(move)}">'
        f"<output>{html.escape(captions[start])}</output></div>"
    )
