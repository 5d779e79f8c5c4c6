"""Data sets: images as whole levels, their splits, and the way to and from [-1, 1]."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import _readers, require
from ._readers import DataError
from ._torchvision import download as fetch
from ._torchvision import import_torchvision

__all__ = ["DataError", "Images", "import_torchvision", "load", "to_levels", "to_unit"]

SPLITS = ("train", "valid", "test", "ruler")


@dataclass(frozen=True, eq=False)
class Images:
    """A set of images with labels.

    x: uint8[N,C,H,W] with values 0..levels-1; y: int64[N]; levels: 2..256. `note` is what must be
    said beside any figure made from these pixels (such as "JPEG copy, not the original pixels").
    """

    x: Tensor
    y: Tensor
    levels: int
    name: str
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor) or not isinstance(self.y, Tensor):
            raise DataError("x and y must be tensors: torch.from_numpy makes them of arrays")
        if self.x.dtype != torch.uint8 or self.x.ndim != 4:
            raise DataError(f"x must be uint8[N,C,H,W], not {self.x.dtype}{list(self.x.shape)}")
        if self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1]:
            raise DataError(f"y must be int64[{len(self)}], not {self.y.dtype}{list(self.y.shape)}")
        if self.y.numel() and int(self.y.min()) < 0:
            raise DataError(f"y holds the label {int(self.y.min())}: labels count from 0")
        if not isinstance(self.levels, int) or not 2 <= self.levels <= 256:
            raise DataError(f"levels must be 2 to 256, not {self.levels!r}")
        if self.x.numel() and int(self.x.max()) >= self.levels:
            raise DataError(f"x holds the value {int(self.x.max())}, but levels={self.levels}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> Images:
        """The subset picked by a slice, a bool mask [N] or an index tensor; names are kept."""
        if not isinstance(index, slice | Tensor) or (isinstance(index, Tensor) and index.ndim != 1):
            raise DataError("index by a slice, a mask or an index tensor; images.x[i] is one")
        try:
            return replace(self, x=self.x[index], y=self.y[index])
        except (IndexError, TypeError) as error:
            raise DataError(f"no such images among {len(self)}: {error}") from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of shape, levels, pixels and labels; names and notes do not count."""
        digest = hashlib.sha256(f"{list(self.x.shape)} {self.levels} ".encode())
        digest.update(self.x.cpu().contiguous().numpy().tobytes())
        digest.update(self.y.cpu().contiguous().numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def to_unit(x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels 0..levels-1 to [-1, 1]: 2k / (levels - 1) - 1, in `dtype`."""
    require.whole("levels", levels, 2)
    require.tensor("x", x)
    return 2 * x.to(dtype) / (levels - 1) - 1


def to_levels(x: Tensor, levels: int) -> Tensor:
    """The nearest level of each value, clamped: [-1, 1] to uint8 in 0..levels-1. NaN raises."""
    require.whole("levels", levels, 2, 256)
    if not require.tensor("x", x).is_floating_point():
        raise ValueError(f"to_levels rounds floats in [-1, 1]: {x.dtype} are whole already")
    if x.isnan().any():
        raise ValueError("to_levels met NaN: the values to round were never finite")
    return ((x + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).to(torch.uint8)


# -- data sets ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    folders: Mapping[str, _readers.Reader]  # where files may lie: torchvision's folder first
    sizes: Mapping[str, int]  # the train half is cut into these, in this order
    torchvision: str  # the class that downloads it
    only: int | None = None  # keep this class alone


_DIGITS_SIZES = {"train": 1_000, "valid": 100, "test": 397, "ruler": 300}
_MNIST_SIZES = {"train": 50_000, "valid": 2_000, "ruler": 8_000}
_CIFAR_SIZES = {"train": 40_000, "valid": 2_000, "ruler": 8_000}
_MNIST = {"MNIST/raw": _readers.read_mnist}
_FASHION = {"FashionMNIST/raw": _readers.read_mnist, "fashion-mnist": _readers.read_mnist}
_CIFAR = {"cifar-10-batches-py": _readers.read_cifar10, "cifar10": _readers.read_cifar10_tree}
_SOURCES = {
    "mnist": _Source(_MNIST, _MNIST_SIZES, "MNIST"),
    "fashion_mnist": _Source(_FASHION, _MNIST_SIZES, "FashionMNIST"),
    "cifar10": _Source(_CIFAR, _CIFAR_SIZES, "CIFAR10"),
    "cifar10-cats": _Source(_CIFAR, _CIFAR_SIZES, "CIFAR10", only=3),
}
_DEBIAN = Path("/usr/share/datasets")  # the package dataset-fashion-mnist fills fashion-mnist/


def load(
    name: str = "digits",
    split: str = "train",
    root: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
) -> Images:
    """Load one split of a data set.

    Names: digits (scikit-learn's, 8x8, 17 levels), mnist, fashion_mnist (28x28), cifar10,
    cifar10-cats (32x32 RGB, class 3 alone), folder:PATH (pictures, one sub-folder per class).
    Splits: train, valid, test and ruler, the last for the nets whose features metrics compare;
    no generator ever sees it. They are slices of one fixed permutation:

    - digits: 1,000 / 100 / 397 / 300;
    - mnist, fashion_mnist: 50,000 / 2,000 / - / 8,000 of the 60,000, test = the published 10,000;
    - cifar10: 40,000 / 2,000 / - / 8,000 of the 50,000, test = the published 10,000; cifar10-cats
      are the cats among them (about 4,000 / 200 / 1,000 / 800);
    - folder: 80 / 5 / 10 / 5 per cent.

    Files are looked for under `root`, else $DDPM_LITE_DATA: `MNIST/raw`, `FashionMNIST/raw`
    (packed or not), `cifar-10-batches-py`, as torchvision leaves them, or
    `cifar10/{train,test}/CLASS/*.jpg`, in which case `note` says that it is a JPEG copy (its order
    is by file name, so its splits are not those of the original files). Where neither has
    FashionMNIST, Debian's package dataset-fashion-mnist is read. `download=True` fetches what is
    missing through torchvision, with its checksums and a progress bar, whole or not at all; it does
    not touch files that are there. `size` averages the pixels of (centred, square)
    images down to size x size.

    Raises DataError (a ValueError) for unknown names and missing or damaged files.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
        raise DataError(f"size must be a whole number of pixels, not {size!r}")
    if not isinstance(name, str):
        raise DataError(f"a data set has a name, such as 'digits', not {name!r}")
    if name.startswith("folder:"):
        return _load_folder(name, split, size)
    if name == "digits":
        x, y, note = _readers.read_digits(lambda y: _part(_DIGITS_SIZES, split, len(y)))
        return _images(x, y, 17, name, note, size)
    if name not in _SOURCES:
        known = ", ".join(["digits", *_SOURCES])
        raise DataError(f"unknown data set {name!r}: use {known} or folder:PATH")
    source = _SOURCES[name]

    def pick(y: np.ndarray) -> np.ndarray:
        index = np.arange(len(y)) if split == "test" else _part(source.sizes, split, len(y))
        return index if source.only is None else index[y[index] == source.only]

    folder, read = _find(name, source, root, download)
    try:
        x, y, note = read(folder, "test" if split == "test" else "train", pick)
    except DataError as error:
        if download:  # it looked whole from outside
            raise DataError(f"{error}; to download it, remove {folder} first") from error
        raise
    return _images(x, y, 256, name, note, size)


def _part(sizes: Mapping[str, int], split: str, n: int) -> np.ndarray:
    """The slice that is `split` of one fixed permutation of n images."""
    if sum(sizes.values()) != n:
        raise DataError(f"{n:,} images, not the {sum(sizes.values()):,} published: reinstall them")
    # RandomState's streams are frozen for ever (NEP 19); those of default_rng may change.
    order = np.random.RandomState(0).permutation(n)
    first = 0
    for part, count in sizes.items():
        if part == split:
            break
        first += count
    return order[first : first + sizes[split]]


def _find(
    name: str, source: _Source, root: str | Path | None, download: bool
) -> tuple[Path, _readers.Reader]:
    """The first folder that is there, and its reader; fetched where that is asked for."""
    if root == "":  # a shell variable that was never set
        raise DataError(f"root (--root) is empty: give the folder that {name} lies in")
    given = root if root is not None else os.environ.get("DDPM_LITE_DATA")
    roots = ([Path(given).expanduser()] if given else []) + ([_DEBIAN] if root is None else [])

    def look() -> tuple[Path, _readers.Reader] | None:
        places = ((base / f, read) for base in roots for f, read in source.folders.items())
        return next((place for place in places if _filled(place[0])), None)

    found = look()
    if found is None and download:
        if not given:
            raise DataError(f"where should {name} go? Give root=... (--root) or set DDPM_LITE_DATA")
        fetch(source.torchvision, next(iter(source.folders)), roots[0])
        found = look()
    if found is None:
        wanted = " or ".join(f"{base}/{f}" for base in roots for f in source.folders)
        raise DataError(
            f"{name} was not found (looked for {wanted}): give root=... or set DDPM_LITE_DATA, "
            "and pass download=True (--download) to fetch it"
        )
    return found


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())  # an interrupted download leaves it empty


def _load_folder(name: str, split: str, size: int | None) -> Images:
    files, y, _ = _readers.list_tree(Path(name.removeprefix("folder:")).expanduser())
    n = len(files)
    few, tenth = n // 20, n // 10
    sizes = {"train": n - 2 * few - tenth, "valid": few, "test": tenth, "ruler": few}
    index = _part(sizes, split, n)
    if not len(index):
        raise DataError(f"{name}: {n} pictures leave none for {split!r}: at least 20 are needed")
    x = _readers.read_pictures([files[i] for i in index], size)
    return _images(x, y[index], 256, name, "", None)


def _images(
    x: np.ndarray, y: np.ndarray, levels: int, name: str, note: str, size: int | None
) -> Images:
    if size is not None:
        x = _readers.average_down(x, size)
    pixels = torch.from_numpy(np.ascontiguousarray(x))
    return Images(pixels, torch.from_numpy(y.astype(np.int64)), levels, name, note)
