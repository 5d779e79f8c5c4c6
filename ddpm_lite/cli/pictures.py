"""Images in files of people's own: pictures, sheets and arrays, to levels and back, exactly."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import baselines, files

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int, int]
SUFFIXES = {".png", ".webp", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".gif", ".jpg", ".jpeg"}


def read(paths: list[str], shape: Shape, levels: int) -> Tensor:
    """uint8[n,C,H,W] from pictures, folders of pictures (by name) and .npy arrays of levels.

    A picture of several times the size is a sheet and is cut up, row by row. Its grey values must
    be those of the levels, spread over 0..255, else the way back would not give the same pictures.
    """
    import torch

    if levels > 256:
        raise ValueError(f"pictures have up to 256 levels, the model has {levels}")
    found = [_array(p, shape) if p.suffix == ".npy" else _picture(p, shape, levels)
             for name in paths for p in _files(Path(name).expanduser())]  # fmt: skip
    return torch.from_numpy(np.concatenate(found))


def write(out: Path, x: Tensor, levels: int) -> None:
    """uint8[n,C,H,W] as an array of levels (.npy), one sheet (.png), or a folder of pictures."""
    import io

    values = x.cpu().numpy()
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, values)
        files.write(out, buffer.getvalue())
        return
    grey = baselines.to_grey(levels)[values]
    if out.suffix == ".png":
        files.write(out, _png(baselines.sheet(grey), len(grey)))
        return
    made = [_png(baselines.sheet(image[None]), 1) for image in grey]  # Ctrl-C may stop this
    with files.uninterrupted(), files.naming(out):  # and this is short
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            for j, data in enumerate(made):
                (aside / f"{j:06}.png").write_bytes(data)
            aside.chmod(0o755)
            os.replace(aside, out)  # also over an empty folder
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def target(path: str, channels: int) -> Path:
    """Where `write` may put images of so many channels, found out before any work."""
    from .common import placeable, writable

    out = Path(path)
    if out.suffix:
        if out.suffix not in (".npy", ".png"):
            raise ValueError(f"--out {path}: give NAME.npy, NAME.png or a new folder")
        writable(path, out.suffix)
    else:
        if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"--out {path} is there already: give a new folder")
        placeable(out)
    if out.suffix != ".npy" and channels not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, not {channels}: give --out NAME.npy")
    return out


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def _array(path: Path, shape: Shape) -> np.ndarray:
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)  # so that no size is believed blindly
    except OSError:  # it cannot be opened: the error says why, and names the file
        raise
    except Exception as error:  # numpy evaluates the header, and a header may say anything
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(f"{path} is no array of numbers: {why}") from None  # nor out of memory
    if not isinstance(x, np.ndarray):  # an archive of several
        x.close()
        raise ValueError(f"{path} is an .npz of several arrays: save the images alone with np.save")
    if x.ndim == 3 and shape[0] == 1:  # [n,H,W]
        x = x[:, None]
    if x.dtype.kind not in "ui" or x.shape[1:] != shape:
        wanted = ", ".join(str(s) for s in shape)
        raise ValueError(f"{path} holds {x.dtype}{list(x.shape)}: integers [n, {wanted}] wanted")
    if x.size and not 0 <= x.min() <= x.max() < 256:
        raise ValueError(f"{path} holds values outside 0..255")
    return x.astype(np.uint8)


def _picture(path: Path, shape: Shape, levels: int) -> np.ndarray:
    """One picture as images uint8[n,C,H,W] of levels."""
    from PIL import Image

    C, H, W = shape
    try:
        with Image.open(path) as picture:
            mode, note = picture.mode, picture.info.get("ddpm_lite", "{}")
            grey = np.array(picture.convert("L" if mode in ("1", "L") else "RGB"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    channels = 1 if grey.ndim == 2 else 3
    if mode not in ("1", "L", "RGB") or channels != C:
        raise ValueError(f"{path} is a picture of mode {mode}: the model's images are "
                         f"{'L (8-bit grey)' if C == 1 else 'RGB'}")  # fmt: skip
    rows, columns = grey.shape[0] // H, grey.shape[1] // W
    if not rows * columns or (rows * H, columns * W) != grey.shape[:2]:
        raise ValueError(f"{path} is {grey.shape[1]}x{grey.shape[0]}: neither an image of {W}x{H}, "
                         "as the model's are, nor a sheet of such")  # fmt: skip
    x = grey.reshape(rows, H, columns, W, C).transpose(0, 2, 4, 1, 3).reshape(-1, C, H, W)
    x = x[: _count(note, len(x))]
    level = np.full(256, -1)
    level[baselines.to_grey(levels)] = np.arange(levels)
    if (level[x] < 0).any():
        wrong = int(x[level[x] < 0][0])
        raise ValueError(f"{path} holds the value {wrong}, which is none of the model's {levels} "
                         f"levels spread over 0..255: it has no lossless code")  # fmt: skip
    return level[x].astype(np.uint8)


def _png(picture: np.ndarray, n: int) -> bytes:
    """A PNG that says how many images are on it: the last places of a sheet may be empty."""
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    note, buffer = PngInfo(), io.BytesIO()
    note.add_text("ddpm_lite", json.dumps({"n": n}))
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    Image.fromarray(picture).save(buffer, format="PNG", pnginfo=note, optimize=True)
    return buffer.getvalue()


def _count(note: str, most: int) -> int:
    """How many images a sheet of ours says it holds; all of its places where it says nothing."""
    try:
        n = json.loads(note)["n"]
    except (KeyError, TypeError, ValueError):
        return most
    return n if isinstance(n, int) and 0 < n <= most else most
