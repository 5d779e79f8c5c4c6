"""Data sets: splits that never overlap, levels that survive, damaged files that say so."""

import gzip
import os
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_lite import _readers
from ddpm_lite.data import DataError, Images, import_torchvision, load, to_levels, to_unit

# -- digits ------------------------------------------------------------------------------------


def test_digits_are_split_without_overlap_and_nothing_is_lost():
    from sklearn.datasets import load_digits

    parts = {split: load("digits", split) for split in ("train", "valid", "test", "ruler")}
    assert [len(p) for p in parts.values()] == [1000, 100, 397, 300]
    rows = np.concatenate([np.c_[p.x.flatten(1), p.y] for p in parts.values()])
    original = load_digits()
    expected = np.c_[original.data, original.target].astype(int)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    assert all(p.shape == (1, 8, 8) and p.levels == 17 for p in parts.values())


def test_digits_splits_are_fixed_for_ever():
    """The hashes that committed checkpoints name. A change here makes them worthless."""
    assert load("digits", "train").hash.startswith("cc0b97ec8ac3")
    assert load("digits", "valid").hash.startswith("b7ccff90644c")
    assert load("digits", "test").hash.startswith("0cf36ee7f80a")
    assert load("digits", "ruler").hash.startswith("0a63c5924446")


def test_every_digit_is_in_every_split():
    for split in ("train", "valid", "test", "ruler"):
        assert (load("digits", split).y.bincount(minlength=10) >= 5).all()


# -- Images ------------------------------------------------------------------------------------


def images(n=6, levels=4, shape=(1, 2, 3), seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(0, levels, (n, *shape), generator=rng, dtype=torch.uint8)
    return Images(x, torch.arange(n) % 3, levels, "test")


def test_hash_is_of_the_content_not_of_the_name():
    a = images()
    assert a.hash == Images(a.x.clone(), a.y, 4, "another", "note").hash
    assert len(a.hash) == 64
    changed = a.x.clone()
    changed[5, 0, 1, 2] ^= 1
    others = [
        Images(changed, a.y, 4, "test"),
        Images(a.x, a.y.flip(0), 4, "test"),
        Images(a.x, a.y, 5, "test"),
        Images(a.x.view(6, 1, 3, 2), a.y, 4, "test"),
        a[:5],
    ]
    assert len({a.hash, *(o.hash for o in others)}) == 6
    assert Images(a.x.mT.contiguous().mT, a.y, 4, "test").hash == a.hash  # memory layout is not


def test_subsets():
    a = images()
    assert len(a[:2]) == 2 and a[:2].shape == (1, 2, 3) and a[:2].levels == 4
    assert torch.equal(a[a.y == 1].x, a.x[[1, 4]])
    assert torch.equal(a[torch.tensor([3, 0])].y, torch.tensor([0, 0]))
    for bad in (0, "a", torch.tensor(1), [1, 2]):
        with pytest.raises(DataError, match="slice, a mask or an index tensor"):
            a[bad]
    with pytest.raises(DataError):  # iteration would otherwise go on for ever
        list(a)


@pytest.mark.parametrize(
    ("x", "y", "levels", "says"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2).long(), 4, "uint8"),
        (torch.zeros(2, 2, 2).byte(), torch.zeros(2).long(), 4, "uint8"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(3).long(), 4, "int64\\[2\\]"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2), 4, "int64\\[2\\]"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2).long(), 1, "levels must"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2).long(), 257, "levels must"),
        (torch.full((2, 1, 2, 2), 4).byte(), torch.zeros(2).long(), 4, "value 4"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.tensor([0, -5]), 4, "label -5"),
    ],
)
def test_images_reject_what_they_are_not(x, y, levels, says):
    with pytest.raises(DataError, match=says):
        Images(x, y, levels, "bad")


# -- to [-1, 1] and back -----------------------------------------------------------------------


@given(st.integers(2, 256))
def test_levels_survive_the_round_trip(levels):
    k = torch.arange(levels, dtype=torch.uint8)
    unit = to_unit(k, levels)
    assert unit[0] == -1 and unit[-1] == 1 and unit.dtype == torch.float32
    assert torch.equal(to_levels(unit, levels), k)
    assert torch.equal(to_levels(to_unit(k, levels, torch.float64), levels), k)
    nudged = unit + 0.98 / (levels - 1) * torch.tensor([-1.0, 1.0])[:, None]  # under half a level
    assert torch.equal(to_levels(nudged, levels), torch.stack([k, k]))


def test_to_levels_clamps_and_refuses_nan():
    x = torch.tensor([-torch.inf, -1.3, 1.3, torch.inf])
    assert to_levels(x, 17).tolist() == [0, 0, 16, 16]
    with pytest.raises(ValueError, match="NaN"):
        to_levels(torch.tensor([0.0, torch.nan]), 17)
    for bad in (1, 257):
        with pytest.raises(ValueError, match="levels"):
            to_levels(x, bad)
    with pytest.raises(ValueError, match="levels"):
        to_unit(x, 1)


# -- averaging down ----------------------------------------------------------------------------


def test_average_down_by_whole_blocks_is_the_mean():
    x = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    blocks = x.reshape(2, 3, 2, 2, 2, 2).mean((3, 5))
    assert np.array_equal(_readers.average_down(x, 2), np.floor(blocks + 0.5))
    assert np.array_equal(_readers.average_down(x, 4), x)


@given(st.integers(1, 9), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_average_down_keeps_constants_and_the_mean(size, more, seed):
    m = size + more
    x = np.random.default_rng(seed).integers(0, 256, (3, 1, m, m), dtype=np.uint8)
    small = _readers.average_down(x, size)
    assert small.shape == (3, 1, size, size)
    assert np.abs(small.mean((1, 2, 3)) - x.mean((1, 2, 3))).max() <= 0.5
    flat = np.full((1, 2, m, m), seed % 256, np.uint8)
    assert (_readers.average_down(flat, size) == seed % 256).all()


def test_average_down_weighs_areas_and_crops_the_centre():
    x = np.array([[0, 90, 180]], np.uint8)[None, None].repeat(3, 2)  # 3 -> 2: half of the middle
    assert _readers.average_down(x, 2)[0, 0].tolist() == [[30, 150], [30, 150]]
    wide = np.zeros((1, 1, 2, 6), np.uint8)
    wide[..., 2:4] = 200
    assert (_readers.average_down(wide, 2) == 200).all()


def test_size_is_an_argument_of_load():
    small = load("digits", "test", size=4)
    assert small.shape == (1, 4, 4) and small.levels == 17 and small.x.max() <= 16
    for bad in (0, 9):
        with pytest.raises(DataError, match="only be averaged down"):
            load("digits", size=bad)


# -- names and places --------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones():
    with pytest.raises(DataError, match="digits, mnist, fashion_mnist, cifar10, cifar10-cats"):
        load("imagenet")
    with pytest.raises(DataError, match="train, valid, test, ruler"):
        load("digits", "validation")


def test_missing_files_say_where_and_what(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"MNIST/raw.*download=True"):
        load("mnist", root=tmp_path)
    monkeypatch.delenv("DDPM_LITE_DATA", raising=False)
    with pytest.raises(DataError, match="set DDPM_LITE_DATA"):
        load("mnist")
    with pytest.raises(DataError, match="where should cifar10 go"):
        load("cifar10", download=True)
    with pytest.raises(DataError, match=r"root \(--root\) is empty: give the folder"):
        load("mnist", root="")
    monkeypatch.setenv("DDPM_LITE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        load("cifar10-cats")


# -- idx files, whole and damaged --------------------------------------------------------------


def idx(array, count=None):
    shape = (count or array.shape[0], *array.shape[1:])
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *shape) + array.tobytes()


@pytest.fixture(scope="module")
def mnist_files(tmp_path_factory):
    """Files as large as MNIST's: image i says i in its first three pixels."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem, n in (("train", 60_000), ("t10k", 10_000)):
        x = np.zeros((n, 28, 28), np.uint8)
        number = np.arange(n)
        x[:, 0, :3] = np.stack([number >> 16, number >> 8 & 255, number & 255], 1)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(x))
        labels = gzip.compress(idx((number % 10).astype(np.uint8)))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(labels)
    return root


def numbers(loaded):
    first = loaded.x[:, 0, 0, :3].long()
    return (first[:, 0] << 16) + (first[:, 1] << 8) + first[:, 2]


def test_mnist_is_split_without_overlap_and_labels_follow_images(mnist_files):
    parts = {s: load("mnist", s, root=mnist_files) for s in ("train", "valid", "ruler", "test")}
    assert [len(p) for p in parts.values()] == [50_000, 2_000, 8_000, 10_000]
    assert all(torch.equal(p.y, numbers(p) % 10) for p in parts.values())
    seen = torch.cat([numbers(parts[s]) for s in ("train", "valid", "ruler")])
    assert torch.equal(seen.sort().values, torch.arange(60_000))
    assert torch.equal(numbers(parts["test"]), torch.arange(10_000))
    assert parts["train"].shape == (1, 28, 28) and parts["train"].levels == 256


def cut(data):
    return data[: len(data) // 2]


def flip_magic(data):
    return b"\x00\x00\x0d\x03" + data[4:]


def spoil_middle(data):
    half = len(data) // 2
    return data[:half] + bytes(255 - b for b in data[half : half + 50]) + data[half + 50 :]


GOOD = idx(np.zeros((10_000, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("t10k-images-idx3-ubyte", cut(GOOD), "its header promises"),
        ("t10k-images-idx3-ubyte", GOOD + b"\0", "its header promises"),
        ("t10k-images-idx3-ubyte", flip_magic(GOOD), "does not begin like an idx file"),
        ("t10k-images-idx3-ubyte", b"<html>not found</html>", "does not begin like an idx"),
        ("t10k-images-idx3-ubyte", b"", "does not begin like an idx file"),
        ("t10k-images-idx3-ubyte", GOOD[:9], "its header promises"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((9, 28, 28), np.uint8)), "not 10,000 of 28x28"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((1, 2, 2), np.uint8), 2**31), "promises"),
        ("t10k-images-idx3-ubyte.gz", cut(gzip.compress(GOOD)), "cannot be read"),
        ("t10k-images-idx3-ubyte.gz", GOOD, "cannot be read"),
        ("t10k-images-idx3-ubyte.gz", spoil_middle(gzip.compress(GOOD)), "cannot be read"),
        ("t10k-images-idx3-ubyte", None, "No such file"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(9_999, np.uint8)), "labels \\(9999,\\)"),
        ("t10k-labels-idx1-ubyte", idx(np.full(10_000, 11, np.uint8)), "labels 0 to 9"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, data, says):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(GOOD)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(10_000, np.uint8)))
    (folder / name.removesuffix(".gz")).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        load("mnist", "test", root=tmp_path)
    assert "\n" not in str(caught.value) and "fetch" in str(caught.value)


# -- CIFAR-10 ----------------------------------------------------------------------------------


def pickles(root):
    """As torchvision leaves CIFAR-10; the red channel of image i says i modulo 256."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = np.zeros((10_000, 3072), np.uint8)
        i = np.arange(10_000)
        data[:, 0], data[:, 1024], data[:, 2048] = i & 255, i >> 8, number
        batch = {b"data": data, b"labels": (i % 10).tolist(), b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return root


@pytest.fixture(scope="module")
def cifar_files(tmp_path_factory):
    return pickles(tmp_path_factory.mktemp("cifar"))


def test_cifar10_from_torchvisions_files(cifar_files):
    ruler, test = (load("cifar10", s, root=cifar_files) for s in ("ruler", "test"))
    assert (len(ruler), len(test), ruler.shape, ruler.note) == (8_000, 10_000, (3, 32, 32), "")
    for part in (ruler, test):
        number = part.x[:, :, 0, 0].long() @ torch.tensor([1, 256, 10_000])
        assert len(number.unique()) == len(part) and torch.equal(number % 10, part.y)
        assert (number < 50_000).all() == (part is ruler)
    cats = load("cifar10-cats", "ruler", root=cifar_files)
    assert torch.equal(cats.x, ruler.x[ruler.y == 3])  # unseen by the cats' generators too


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        lambda data: b"",
        lambda data: pickle.dumps({b"data": Evil(), b"labels": []}),
        lambda data: pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2, 3]}),
        lambda data: pickle.dumps([1, 2]),
    ],
)
def test_damaged_pickles(tmp_path, spoil):
    root = tmp_path
    (root / "cifar-10-batches-py").mkdir()
    small = {b"data": np.zeros((10_000, 3072), np.uint8), b"labels": [0] * 10_000}
    path = root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(spoil(pickle.dumps(small)))
    with pytest.raises(DataError, match="test_batch cannot be read"):
        load("cifar10", "test", root=root)


DATA, LABELS = np.zeros((10_000, 3072), np.uint8), [0] * 10_000


@pytest.mark.parametrize(
    ("data", "labels", "says"),
    [
        (DATA, [*LABELS[1:], 11], "from 0 to 9"),
        (DATA, [*LABELS[1:], -1], "from 0 to 9"),  # which is the label of "no class" elsewhere
        (DATA, [*LABELS[1:], -7], "from 0 to 9"),
        (DATA, [*LABELS[1:], 2.7], "from 0 to 9"),
        (DATA, [*LABELS[1:], "1"], "from 0 to 9"),
        (DATA, LABELS[1:], "10,000 whole numbers"),
        (DATA, None, "10,000 whole numbers"),
        (np.full((10_000, 3072), np.nan, np.float32), LABELS, r"float32\[10000, 3072\], not uint8"),
        (np.full((10_000, 3072), 0.9), LABELS, "data are float64"),
        (np.full((10_000, 3072), 300, np.int16), LABELS, "data are int16"),
        (np.full((10_000, 3072), -1, np.int8), LABELS, "data are int8"),
        (DATA.reshape(3072, 10_000), LABELS, r"uint8\[3072, 10000\], not"),
    ],
)
def test_batches_of_other_numbers(tmp_path, data, labels, says):
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps({b"data": data, b"labels": labels}, protocol=2))
    with pytest.raises(DataError, match=says) as caught:
        load("cifar10", "test", root=tmp_path)
    assert "test_batch cannot be read" in str(caught.value)
    assert "fetch CIFAR-10 again" in str(caught.value) and "\n" not in str(caught.value)


def test_a_batch_without_labels_says_so(tmp_path):
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps({b"data": DATA}, protocol=2))
    with pytest.raises(DataError, match="holds no data and labels"):
        load("cifar10", "test", root=tmp_path)


def test_a_pickle_that_names_a_function_runs_nothing(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="does not belong"):
        load("cifar10", "test", root=tmp_path)


# -- folders of pictures -----------------------------------------------------------------------


def pictures(root, n=40, size=(6, 6), mode="RGB", suffix=".png"):
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(n):
        folder = root / ("ab"[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        array = rng.integers(0, 256, (*size, 3) if mode == "RGB" else size, dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{i:03}{suffix}")
    return root


def test_folder_of_pictures(tmp_path):
    pictures(tmp_path)
    parts = [load(f"folder:{tmp_path}", s) for s in ("train", "valid", "test", "ruler")]
    assert [len(p) for p in parts] == [32, 2, 4, 2]
    assert parts[0].shape == (3, 6, 6) and set(parts[0].y.tolist()) == {0, 1}
    rows = torch.cat([p.x for p in parts]).flatten(1)
    assert len(rows.unique(dim=0)) == 40
    assert load(f"folder:{tmp_path}", size=3).shape == (3, 3, 3)


def test_grey_folder_without_classes_and_mixed_sizes(tmp_path):
    from PIL import Image

    for i in range(25):
        Image.fromarray(np.full((4, 5 + i % 2), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    with pytest.raises(DataError, match="give size="):
        load(f"folder:{tmp_path}")
    got = load(f"folder:{tmp_path}", size=2)
    assert got.shape == (1, 2, 2) and (got.y == 0).all()
    assert (got.x == got.x[:, :, :1, :1]).all()


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="is not a folder: it should hold pictures") as caught:
        load(f"folder:{tmp_path}/nothing")
    assert "DDPM_LITE_DATA" not in str(caught.value)  # which is not asked here
    with pytest.raises(DataError, match="holds no pictures"):
        load(f"folder:{tmp_path}")
    pictures(tmp_path, n=4)
    with pytest.raises(DataError, match="at least 20"):
        load(f"folder:{tmp_path}", "valid")
    path = tmp_path / "a" / "000.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"000\.png cannot be read"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_more_than_8_bits_are_refused(tmp_path, mode):
    from PIL import Image

    path = tmp_path / "deep.tif"
    Image.new(mode, (4, 4), 900).save(path)
    with pytest.raises(DataError, match=rf"deep\.tif .*mode {mode}, .*: save it as 8-bit"):
        _readers.read_pictures([path])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_8_bits_are_read(tmp_path, mode):
    from PIL import Image

    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (4, 5)).save(path)
    assert _readers.read_pictures([path]).shape == (1, 1 if mode in ("1", "L") else 3, 5, 4)


def test_what_a_mac_leaves_behind_is_no_picture_and_no_class(tmp_path):
    expected = load(f"folder:{pictures(tmp_path)}").hash
    for folder in ("__MACOSX/a", ".thumbs", "a/.thumbs", "a/__MACOSX"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "001.png").write_bytes(b"")
    (tmp_path / "a" / "._000.png").write_bytes(b"")
    (tmp_path / "._000.png").write_bytes(b"")
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    (tmp_path / "a" / "folder.png").mkdir()
    assert load(f"folder:{tmp_path}").hash == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(pictures(tmp_path) / "a" / "000a.png")
    files, _, _ = _readers.list_tree(tmp_path)  # reading it would wait for ever
    assert len(files) == 40 and all(file.is_file() for file in files)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("x.png", r"x\.png lies beside class folders \(a, \.\.\.\): move it"),
        ("a/more/x.png", r"x\.png lies too deep.*move it up"),
        ("b/one/two/x.png", r"x\.png lies too deep.*move it up"),
        ("train/c/x.png", r"x\.png lies too deep.*the folder that holds the classes"),
    ],
)
def test_pictures_elsewhere_are_not_dropped_in_silence(tmp_path, place, says):
    pictures(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a" / "000.png").rename(tmp_path / place)
    with pytest.raises(DataError, match=says) as caught:
        load(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_cifar10_as_a_tree_of_jpegs_is_marked(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setitem(_readers.CIFAR10_EACH, "test", 2)  # the real ones: test_data_real.py
    for i, name in enumerate(_readers.CIFAR10):
        folder = tmp_path / "cifar10" / "test" / name
        folder.mkdir(parents=True)
        for j in range(2):
            Image.fromarray(np.full((32, 32, 3), 20 * i + j, np.uint8)).save(folder / f"{j}.jpg")
    test = load("cifar10", "test", root=tmp_path)
    assert test.y.tolist() == [i for i in range(10) for _ in range(2)]
    assert "JPEG copy" in test.note
    assert len(load("cifar10-cats", "test", root=tmp_path)) == 2
    (tmp_path / "cifar10" / "test" / "dog" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"test holds 1 in dog, not 2 pictures.*fetch") as caught:
        load("cifar10", "test", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "cifar10" / "test" / "cat").rename(tmp_path / "cifar10" / "test" / "Cat")
    with pytest.raises(DataError, match="one folder per class"):
        load("cifar10", "test", root=tmp_path)


# -- torchvision -------------------------------------------------------------------------------


def test_torchvision_imports_beside_a_cpu_build_of_torch():
    pytest.importorskip("PIL")
    try:
        vision = import_torchvision()
    except ImportError:
        pytest.skip("torchvision is not installed")
    assert vision.datasets.MNIST and vision is sys.modules["torchvision"]
    assert import_torchvision() is vision
