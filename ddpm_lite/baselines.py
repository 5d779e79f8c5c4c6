"""What ordinary lossless formats make of the same pixels: the figures beside the codec's.

One file per image is mostly headers where images are small, so every format is also given all the
images as one sheet, and everywhere the best that a few settings find.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from . import require

__all__ = ["SETTINGS", "encode", "sheet", "sizes", "to_grey"]

SETTINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
}
_LARGEST = 16_383  # pixels along a side of a WebP


def to_grey(levels: int) -> np.ndarray:
    """The grey of each level, uint8[levels] over 0..255: 0 is black, levels - 1 white."""
    require.whole("levels", levels, 2, 256)
    return (np.arange(levels) * 255 // (levels - 1)).astype(np.uint8)


def sheet(x: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images [n,C,H,W] side by side, without gaps, as one picture [rows·H, columns·W, C].

    By default about as many rows as columns; places left over are 0.
    """
    n, C, H, W = x.shape
    columns = columns or math.isqrt(max(n, 1) - 1) + 1
    rows = -(-n // columns)
    full = np.zeros((rows * columns, C, H, W), x.dtype)
    full[:n] = x
    grid = full.reshape(rows, columns, C, H, W).transpose(0, 3, 1, 4, 2)
    return grid.reshape(rows * H, columns * W, C)


def encode(picture: np.ndarray, format: str) -> bytes:
    """A picture uint8[H,W,1 or 3] as "png" or "webp", lossless and as small as Pillow can."""
    from PIL import Image

    if picture.shape[-1] not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, not {picture.shape[-1]}")
    buffer = io.BytesIO()
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    Image.fromarray(picture).save(buffer, **SETTINGS[require.choice("format", format, SETTINGS)])
    return buffer.getvalue()


def sizes(x: Tensor, levels: int) -> dict[str, dict[str, int]]:
    """Bytes of images uint8[n,C,H,W], C 1 or 3: {"png": {"single": …, "sheet": …}, "webp": …, …}.

    "single" is the sum over a file per image; "sheet" one file for all. PNG and WebP are tried on
    the levels themselves and spread over the grey values (they differ by up to a fifth, for pixels
    that mean the same), sheets also in three layouts, and the smallest counts. xz and bzip2 are
    given the values as they lie in memory.
    """
    pixels = require.tensor("x", x, None, None, None, None).cpu().numpy()
    if not len(pixels):
        raise ValueError("no images, no sizes: give at least one")
    spread = to_grey(levels)[pixels]
    ways = [pixels] if np.array_equal(pixels, spread) else [pixels, spread]
    found = {
        name: {
            "single": min(sum(len(encode(sheet(y[None]), name)) for y in way) for way in ways),
            "sheet": min(len(encode(s, name)) for way in ways for s in _layouts(way)),
        }
        for name in SETTINGS
    }
    packers = {"xz": lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
               "bzip2": bz2.compress}  # fmt: skip
    for name, pack in packers.items():
        single = sum(len(pack(y.tobytes())) for y in pixels)
        found[name] = {"single": single, "sheet": len(pack(pixels.tobytes()))}
    return found


def _layouts(x: np.ndarray) -> Iterator[np.ndarray]:
    """A square sheet, and where a format can hold them one column and one row of images."""
    n, _, H, W = x.shape
    yield sheet(x)
    if n * H <= _LARGEST:
        yield sheet(x, 1)
    if n * W <= _LARGEST:
        yield sheet(x, n)
