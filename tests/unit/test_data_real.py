"""The real data sets: run wherever their files are, and loud where they are not.

Numbers here are those of the published files, so that a reader that turns, swaps or reorders
something is found out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpm_lite import data
from ddpm_lite.data import Images

ROOT = os.environ.get("DDPM_LITE_DATA", "")
PLACES = {
    "mnist": ["MNIST/raw"],
    "fashion_mnist": ["FashionMNIST/raw", "fashion-mnist"],
    "cifar10": ["cifar-10-batches-py", "cifar10"],
}


def _there(name: str) -> bool:
    roots = [*([Path(ROOT).expanduser()] if ROOT else []), data._DEBIAN]
    return any((root / place).is_dir() for root in roots for place in PLACES[name])


MISSING = [name for name in PLACES if not _there(name)]
HOW = (
    f"NOT TESTED ON REAL DATA: {', '.join(MISSING)}. Set DDPM_LITE_DATA to a folder and fetch them "
    "into it, each with `ddpm-lite train marginal --data NAME --steps 1 --download --out FILE` "
    "(fashion_mnist also: apt install dataset-fashion-mnist)"
)

Load = Callable[..., Images]


@pytest.fixture
def real() -> Load:
    """`load`, with what was loaded kept for the next test; skips where the data are missing."""

    def get(name: str, split: str, size: int | None = None) -> Images:
        if name.removesuffix("-cats") in MISSING:
            pytest.skip(HOW)  # one place and one text: pytest folds them into one line
        return _loaded(name, split, size)

    return get


@functools.cache
def _loaded(name: str, split: str, size: int | None) -> Images:
    return data.load(name, split, size=size)


MNIST_LIKE = {
    # images of each class in the 60,000 and in the 10,000; first labels of the 10,000; the mean
    # and standard deviation of the 60,000 that everybody normalises by
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        [7, 2, 1, 0, 4],
        (0.1307, 0.3081),
    ),
    "fashion_mnist": ([6000] * 10, [1000] * 10, [9, 2, 1, 1, 6], (0.2860, 0.3530)),
}
HASHES = {
    "mnist": {
        "train": "ab164aa4751c",
        "valid": "5772162b8ba4",
        "test": "3822ecc54a93",
        "ruler": "143bf38ed838",
    },
    "fashion_mnist": {
        "train": "c457ff72c682",
        "valid": "59cfd157b595",
        "test": "e000f685eb81",
        "ruler": "b5b17efa92de",
    },
}
SIZES = {"train": 50_000, "valid": 2_000, "test": 10_000, "ruler": 8_000}


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_mnist_and_fashion_mnist_are_the_published_ones(name: str, real: Load) -> None:
    classes, test_classes, first, (mean, std) = MNIST_LIKE[name]
    parts = {split: real(name, split) for split in SIZES}
    assert {split: len(part) for split, part in parts.items()} == SIZES
    assert all(p.shape == (1, 28, 28) and p.levels == 256 and not p.note for p in parts.values())
    assert parts["test"].y[:5].tolist() == first
    assert parts["test"].y.bincount().tolist() == test_classes
    sixty = [parts[split] for split in ("train", "valid", "ruler")]
    assert sum(p.y.bincount() for p in sixty).tolist() == classes
    x = torch.cat([p.x for p in sixty])
    counts = torch.bincount(x.flatten(), minlength=256).double()  # exact moments from 256 counts
    value = torch.arange(256) / 255
    found = (counts @ value.double() / counts.sum()).item()
    assert found == pytest.approx(mean, abs=1e-4)
    spread = (counts @ (value - found).double().square() / counts.sum()).sqrt().item()
    assert spread == pytest.approx(std, abs=1e-4)


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_their_splits_are_fixed_for_ever(name: str, real: Load) -> None:
    """The hashes that checkpoints name. A change here makes those worthless."""
    assert {s: real(name, s).hash[:12] for s in SIZES} == HASHES[name]


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_no_image_is_in_two_splits(name: str, real: Load) -> None:
    rows = [row.numpy().tobytes() for split in SIZES for row in real(name, split).x.flatten(1)]
    assert len(set(rows)) == len(rows) == 70_000


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_every_class_is_in_every_split_as_often_as_in_the_whole(name: str, real: Load) -> None:
    whole = torch.tensor(MNIST_LIKE[name][0]) / 60_000
    for split in ("train", "valid", "ruler"):
        n = SIZES[split]
        counts = real(name, split).y.bincount(minlength=10)
        assert ((counts - n * whole).abs() < 4 * (n * whole).sqrt()).all()  # a random split's


def test_what_is_in_the_pictures(real: Load) -> None:
    """The first test digit is a 7: a bar on top, nothing below on the left, upright."""
    seven = real("mnist", "test").x[0, 0].long()
    assert seven[:7].sum() == 0 and seven[27].sum() == 0
    bar, lower_left, lower_middle = seven[7:11, 6:22], seven[14:, :8], seven[14:, 8:18]
    assert bar.double().mean() > 60 and lower_left.sum() == 0 and lower_middle.sum() > 5_000
    test = real("mnist", "test")
    one = test.x[test.y == 1].double().mean((0, 1))  # [28, 28], the average 1
    place, spread = torch.arange(28), []
    for axis in (1, 0):
        mass = one.sum(axis) / one.sum()
        spread.append((mass @ (place - mass @ place.double()).square()).sqrt().item())
    assert spread == pytest.approx([5.5, 2.4], abs=0.1)  # tall: rows and columns not swapped


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_averaged_down_to_16(name: str, real: Load) -> None:
    whole, small = real(name, "test"), real(name, "test", size=16)
    assert small.shape == (1, 16, 16) and torch.equal(small.y, whole.y)
    difference = small.x.double().mean((1, 2, 3)) - whole.x.double().mean((1, 2, 3))
    assert difference.abs().max() < 0.5  # the mean of every image stays, up to rounding
    assert small.hash[:12] == {"mnist": "37828a04fb9a", "fashion_mnist": "9b089a3e6d88"}[name]


def test_mnist_is_what_torchvision_reads(real: Load) -> None:
    got = real("mnist", "test")
    expected = data.import_torchvision().datasets.MNIST(ROOT, train=False)
    assert torch.equal(got.x[:, 0], expected.data) and torch.equal(got.y, expected.targets)


# -- CIFAR-10: the original pixels or a JPEG copy, which moves the statistics by less than 0.005 ---


def test_cifar10(real: Load) -> None:
    valid = real("cifar10", "valid")
    assert len(valid) == 2_000 and valid.shape == (3, 32, 32) and valid.levels == 256
    unit = valid.x.double() / 255
    for found, published in (
        (unit.mean((0, 2, 3)), (0.4914, 0.4822, 0.4465)),  # red, green, blue of the 50,000
        (unit.std((0, 2, 3)), (0.2470, 0.2435, 0.2616)),
    ):
        assert found.tolist() == pytest.approx(published, abs=0.02)  # 2,000 images: about 0.006
    counts = valid.y.bincount(minlength=10)
    assert ((counts - 200).abs() < 4 * 200**0.5).all()
    blue = unit[:, 2].mean((1, 2)) - unit[:, 0].mean((1, 2))
    assert blue[valid.y == 8].mean() > 0 > blue[valid.y == 3].mean()  # ships at sea, cats at home


def test_the_cats_are_the_cats(real: Load) -> None:
    sizes = {"train": 3995, "valid": 219, "test": 1000, "ruler": 786}
    cats = {split: real("cifar10-cats", split) for split in sizes}
    if "JPEG" in cats["test"].note:  # in the original order other images are in each split
        assert {split: len(part) for split, part in cats.items()} == sizes
    assert len(cats["test"]) == 1_000
    assert sum(len(cats[s]) for s in ("train", "valid", "ruler")) == 5_000
    assert all((part.y == 3).all() for part in cats.values())
    valid = real("cifar10", "valid")
    assert torch.equal(cats["valid"].x, valid.x[valid.y == 3])  # a subset, split for split
    seen = [{row.numpy().tobytes() for row in part.x.flatten(1)} for part in cats.values()]
    shared = [len(a & b) for i, a in enumerate(seen) for b in seen[:i]]
    assert sum(shared) <= 5  # CIFAR-10 holds a few pictures twice


def test_a_jpeg_copy_says_so(real: Load) -> None:
    valid = real("cifar10", "valid")
    folders = [Path(ROOT) / "cifar-10-batches-py", Path(ROOT) / "cifar10"]
    original = folders[0].is_dir()
    assert valid.note == ("" if original else "JPEG copy, not the original pixels")
    if not original:
        assert next(folders[1].rglob("*.jpg")).read_bytes()[:2] == b"\xff\xd8"


def test_a_folder_of_real_pictures(real: Load) -> None:
    real("cifar10", "valid")
    folder = Path(ROOT) / "cifar10" / "test"
    if not folder.is_dir():
        pytest.skip("CIFAR-10 lies here as torchvision's files, not as single pictures")
    images = data.load(f"folder:{folder}", "valid", size=16)
    assert len(images) == 500 and images.shape == (3, 16, 16)
    assert images.y.unique().tolist() == list(range(10))
