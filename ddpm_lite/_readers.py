"""Readers of the files behind `ddpm_lite.data.load`.

A reader takes the folder of a data set, its published half ("train" or "test") and
`pick(labels) -> indices`, and returns `(x uint8[n,C,H,W], y int64[n], note)`. Picking comes before
decoding, so that a thousand images of a large tree cost a thousand decodings.
"""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Pick = Callable[[Array], Array]
Loaded = tuple[Array, Array, str]
Reader = Callable[[Path, str, Pick], Loaded]

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
CIFAR10_EACH = {"train": 5_000, "test": 1_000}  # images of each class
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # of Pillow's modes


class DataError(ValueError):
    """A data set or a data file that cannot be used; the one line says what to do."""


def read_digits(pick: Pick) -> Loaded:
    """scikit-learn's 1,797 digits of 8x8 pixels and 17 levels; they need no folder."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits come from scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    index = pick(digits.target)
    return digits.images[index].astype(np.uint8)[:, None], digits.target[index], ""


def read_idx(path: Path, dims: int) -> Array:
    """Read a file in MNIST's idx format: uint8 with `dims` dimensions; `path` or `path`.gz.

    Format: two zero bytes, type code 8 (uint8), the number of dimensions, each dimension as a
    big-endian uint32, then the values (LeCun, Cortes and Burges, the MNIST database).
    """
    packed = path.with_name(path.name + ".gz")
    found = packed if packed.is_file() and not path.is_file() else path
    try:
        raw = gzip.decompress(packed.read_bytes()) if found == packed else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{found} cannot be read ({error}): fetch it again") from error
    if raw[:4] != bytes([0, 0, 8, dims]):
        raise DataError(
            f"{found} does not begin like an idx file of {dims} dimensions: fetch it again"
        )
    head = 4 + 4 * dims
    shape = struct.unpack(f">{dims}I", raw[4:head]) if len(raw) >= head else ()
    promised = head + int(np.prod(shape, dtype=np.int64))
    if not shape or len(raw) != promised:
        raise DataError(
            f"{found} holds {len(raw)} bytes, its header promises {promised}: fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def read_mnist(folder: Path, half: str, pick: Pick) -> Loaded:
    """MNIST's or FashionMNIST's idx files: 60,000 and 10,000 images of 28x28."""
    stem, count = ("train", 60_000) if half == "train" else ("t10k", 10_000)
    y = read_idx(folder / f"{stem}-labels-idx1-ubyte", 1).astype(np.int64)
    x = read_idx(folder / f"{stem}-images-idx3-ubyte", 3)
    if x.shape != (count, 28, 28) or y.shape != (count,) or y.max() > 9:
        raise DataError(
            f"{folder}: the {half} files hold images {x.shape} and labels {y.shape}, "
            f"not {count:,} of 28x28 with labels 0 to 9: fetch them again"
        )
    index = pick(y)
    return x[index][:, None], y[index], ""


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR-10's pickles but builds numpy arrays only: a pickle can name any function."""

    def find_class(self, module: str, name: str) -> Any:
        if name in {"_reconstruct", "ndarray", "dtype"} and module.split(".")[0] == "numpy":
            home = "numpy._core.multiarray" if name == "_reconstruct" else "numpy"
            if name == "_reconstruct" and np.__version__.startswith("1."):
                home = "numpy.core.multiarray"
            return super().find_class(home, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in CIFAR-10's files")


def read_cifar10(folder: Path, half: str, pick: Pick) -> Loaded:
    """CIFAR-10 as its authors pickled it, `cifar-10-batches-py`: 5 x 10,000 and 10,000 images."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if half == "train" else ["test_batch"]
    batches = []
    for path in (folder / name for name in names):
        try:
            with path.open("rb") as file:
                batches.append(_cifar10_batch(_ArraysOnly(file, encoding="bytes").load()))
        except Exception as error:  # damaged pickles raise almost anything
            raise DataError(f"{path} cannot be read ({error}): fetch CIFAR-10 again") from error
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    index = pick(y)
    return x[index], y[index], ""


def _cifar10_batch(batch: Any) -> tuple[Array, Array]:
    """Images and labels of one unpickled file. Nothing is cast: a cast would hide the damage."""
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise ValueError("it holds no data and labels")
    x, y = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    if x.dtype != np.uint8 or x.shape != (10_000, 3072):
        raise ValueError(f"its data are {x.dtype}{list(x.shape)}, not uint8[10000, 3072]")
    if y.dtype.kind not in "iu" or y.shape != (10_000,) or y.min() < 0 or y.max() > 9:
        raise ValueError("its labels are not 10,000 whole numbers from 0 to 9")
    return x.reshape(-1, 3, 32, 32), y.astype(np.int64)


def read_cifar10_tree(folder: Path, half: str, pick: Pick) -> Loaded:
    """CIFAR-10 as single pictures, `folder/{train,test}/CLASS/*.jpg`."""
    files, y, classes = list_tree(folder / half)
    if tuple(classes) != CIFAR10:
        raise DataError(f"{folder / half} needs one folder per class of CIFAR-10, not {classes}")
    each, counts = CIFAR10_EACH[half], np.bincount(y, minlength=10)
    if wrong := [f"{n:,} in {c}" for c, n in zip(CIFAR10, counts, strict=True) if n != each]:
        raise DataError(
            f"{folder / half} holds {', '.join(wrong)}, not {each:,} pictures of each class: "
            "unpack or fetch CIFAR-10 again"
        )
    index = pick(y)
    chosen = [files[i] for i in index]
    x = read_pictures(chosen)
    if x.shape[1:] != (3, 32, 32):
        raise DataError(f"{folder / half} holds pictures of {x.shape[1:]}, not (3, 32, 32)")
    jpeg = any(f.suffix.lower() in {".jpg", ".jpeg"} for f in chosen)
    return x, y[index], "JPEG copy, not the original pixels" if jpeg else ""


def list_tree(folder: Path) -> tuple[list[Path], Array, list[str]]:
    """Pictures below `folder` in sorted order, labels, classes.

    One sub-folder per class; where there are none, every picture is of class 0. Pictures that lie
    elsewhere are an error: which class they belong to is not to be guessed.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder: it should hold pictures, or a sub-folder of them per class"
        )
    beside, classes = _entries(folder)
    if beside and classes:
        raise DataError(
            f"{beside[0]} lies beside class folders ({classes[0]}, ...): move it into one, or away"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes or ["."]):
        found, inner = _entries(folder / name)
        deeper = (_entries(Path(at))[0] for i in inner for at, *_ in os.walk(folder / name / i))
        if lost := next(filter(None, deeper), None):
            raise DataError(
                f"{lost[0]} lies too deep: pictures lie in {folder} or in a sub-folder per class; "
                "move it up, or give the folder that holds the classes"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))})")
    return files, np.array(labels, np.int64), classes


def _entries(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures and the names of the sub-folders in `folder`, both sorted.

    Regular files only: a pipe never ends. Neither hidden names count nor __MACOSX: a Mac writes
    ._001.png beside 001.png, and that is no picture.
    """
    with os.scandir(folder) as entries:
        seen = [e for e in entries if e.name[0] != "." and e.name != "__MACOSX"]
    names = sorted(e.name for e in seen if e.is_file() and Path(e.name).suffix.lower() in PICTURES)
    return [folder / name for name in names], sorted(e.name for e in seen if e.is_dir())


def read_pictures(files: Sequence[Path], square: int | None = None) -> Array:
    """Decode with Pillow into uint8[n,C,H,W]: C = 1 if every picture is grey, else 3 (RGB).

    With `square`, pictures are cropped at the centre and averaged down to square x square;
    without it all must have one size.
    """
    from PIL import Image

    arrays = []
    for path in files:
        try:
            with Image.open(path) as picture:
                if picture.mode not in EIGHT_BIT:  # convert would clip them to 0..255
                    raise DataError(
                        f"{path} is a picture of mode {picture.mode}, not of 8 bits a channel: "
                        "save it as 8-bit grey or RGB"
                    )
                grey = picture.mode in {"1", "L"}
                array = np.array(picture.convert("L" if grey else "RGB"))
        except DataError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read ({error}): remove or replace it") from error
        array = array[None] if grey else array.transpose(2, 0, 1)  # [C,H,W]
        arrays.append(array if square is None else average_down(array[None], square)[0])
    sizes = sorted({a.shape[1:] for a in arrays})
    if len(sizes) > 1:
        raise DataError(
            f"pictures of different sizes ({sizes[0]}, {sizes[1]}, ...): give size=..., "
            "which crops and averages all of them to one"
        )
    channels = max(a.shape[0] for a in arrays)
    return np.stack([np.broadcast_to(a, (channels, *a.shape[1:])) for a in arrays])


def average_down(x: Array, size: int) -> Array:
    """Crop uint8[n,C,H,W] to a centred square, average areas to size x size, round half up.

    Pixel i of the result covers [i*m, (i+1)*m) where pixel j of the m x m square covers
    [j*size, (j+1)*size): all overlaps are whole numbers, every float64 sum is exact, and so the
    result is the same on every machine.
    """
    m = min(x.shape[2:])
    if not 1 <= size <= m:
        raise DataError(f"size={size} does not fit: images of {m} pixels can only be averaged down")
    top, left = (x.shape[2] - m) // 2, (x.shape[3] - m) // 2
    i, j = np.arange(size)[:, None], np.arange(m)[None]
    overlap = np.minimum((i + 1) * m, (j + 1) * size) - np.maximum(i * m, j * size)
    weight = np.maximum(overlap, 0).astype(np.float64)  # [size,m], rows sum to m
    out = np.empty((*x.shape[:2], size, size), np.uint8)
    for first in range(0, len(x), 1024):
        block = x[first : first + 1024, :, top : top + m, left : left + m].astype(np.float64)
        out[first : first + 1024] = np.floor((weight @ block @ weight.T) / m**2 + 0.5)
    return out
