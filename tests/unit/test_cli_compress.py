"""`ddpm-lite compress` and `decompress`: data sets, pictures, sheets and arrays, and mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ddpm_lite import baselines, checkpoint, codec
from ddpm_lite.ar import Marginal
from ddpm_lite.cli import main
from ddpm_lite.data import load

MODEL = ["compress", "--model", "MODEL.safetensors"]
N = 5  # 3 columns and 2 rows, one place empty


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, five test digits packed with it, and the same as pictures and arrays."""
    folder = tmp_path_factory.mktemp("codec")
    train = load("digits", "train")
    for name, shape, levels in (("MODEL", (1, 8, 8), 17), ("colour", (3, 2, 2), 256)):
        model = Marginal(shape, levels)
        if name == "MODEL":
            model.fit(train.x)
        checkpoint.save(folder / f"{name}.safetensors", model, data=train)
    argv = ["compress", "--model", str(folder / "MODEL.safetensors"), "--n", str(N)]
    assert main([*argv, "--out", str(folder / "x.dlc")]) == 0
    back = ["decompress", str(folder / "x.dlc"), "--model", str(folder / "MODEL.safetensors")]
    for out in ("x.npy", "x.png", "pictures"):
        assert main([*back, "--out", str(folder / out)]) == 0
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def digits() -> np.ndarray:
    return load("digits", "test").x[:N].numpy()


# -- what works ------------------------------------------------------------------------------------


def test_all_ways_out_hold_the_same_images(here: Path) -> None:
    grey = baselines.to_grey(17)[digits()]
    assert np.array_equal(np.load("x.npy"), digits())
    with Image.open("x.png") as picture:
        sheet = np.array(picture)
    assert sheet.shape == (16, 24) and sheet.max() == 255
    assert np.array_equal(sheet[8:, 8:16], grey[4, 0]) and not sheet[8:, 16:].any()
    names = sorted(Path("pictures").iterdir())
    assert [p.name for p in names] == [f"{j:06}.png" for j in range(N)]
    assert all(np.array_equal(np.array(Image.open(p)), grey[j, 0]) for j, p in enumerate(names))


@pytest.mark.parametrize("source", ["x.npy", "x.png", "pictures"])
def test_all_ways_in_give_the_same_file(source: str, here: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.dlc"
    assert main([*MODEL, "--images", source, "--out", str(out)]) == 0
    assert out.read_bytes() == Path("x.dlc").read_bytes() and list(tmp_path.iterdir()) == [out]


def test_several_sources_and_the_first_n(here: Path, tmp_path: Path) -> None:
    names = ["pictures/000002.png", "x.npy"]
    assert main([*MODEL, "--images", *names, "--n", "3", "--out", str(tmp_path / "a.dlc")]) == 0
    x = codec.decompress(
        checkpoint.pretrained("MODEL.safetensors"), (tmp_path / "a.dlc").read_bytes()
    )
    assert np.array_equal(x.numpy(), digits()[[2, 0, 1]])


def test_colour(here: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (N, 3, 2, 2), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    source, out = ["--model", "colour.safetensors"], str(tmp_path / "x.dlc")
    assert main(["compress", *source, "--images", str(tmp_path / "x.npy"), "--out", out]) == 0
    assert main(["decompress", out, *source, "--out", str(tmp_path / "sheet.png")]) == 0
    again = str(tmp_path / "again.dlc")
    argv = ["compress", *source, "--images", str(tmp_path / "sheet.png"), "--out", again]
    assert main(argv) == 0
    assert Path(again).read_bytes() == Path(out).read_bytes()


def test_the_figures(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.dlc"
    assert main([*MODEL, "--n", "12", "--out", str(out), "--compare", "--json"]) == 0
    printed = capsys.readouterr()
    found, x = json.loads(printed.out), load("digits", "test").x[:12]
    model = checkpoint.pretrained("MODEL.safetensors")
    size = len(out.read_bytes())
    assert found["bytes"] == size and found["bits_per_dim"] == 8 * size / x.numel()
    ideal = model.bits_per_dim(x).double().mean().item()
    assert found["ideal_bits_per_dim"] == pytest.approx(ideal, rel=1e-5)
    assert found["overhead"] == pytest.approx(8 * (size - 44) / (ideal * x.numel()) - 1, abs=1e-5)
    assert found["baselines"] == baselines.sizes(x, 17) and printed.err == ""

    assert main([*MODEL, "--n", "12", "--out", str(out), "--compare"]) == 0
    text = capsys.readouterr().out
    assert f"{size:,} bytes" in text and f"{ideal:.4f} bits/dim" in text
    assert all(name in text for name in ("png", "webp", "xz", "bzip2"))


def test_the_model_is_found_by_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, out = str(tmp_path / "x.dlc"), str(tmp_path / "x.npy")
    assert main(["compress", "--model", "digits-gated-s1", "--n", "3", "--out", packed]) == 0
    capsys.readouterr()
    assert main(["decompress", packed, "--out", out]) == 0
    assert "from digits-gated-s1" in capsys.readouterr().out
    assert np.array_equal(np.load(out), digits()[:3])


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0 and f"Example: ddpm-lite {command}" in capsys.readouterr().out


# -- what does not ---------------------------------------------------------------------------------

PACK = [*MODEL, "--out", "OUT/a.dlc"]
UNPACK = ["decompress", "x.dlc", "--model", "MODEL.safetensors", "--out"]
ERRORS: dict[str, tuple[list[str], str]] = {
    "another family": (
        ["compress", "--model", "digits-unet", "--out", "OUT/a.dlc"],
        "only an autoregressive model compresses",
    ),
    "another suffix": ([*MODEL, "--out", "OUT/a.zip"], "end in .dlc"),
    "data and images": ([*PACK, "--data", "digits", "--images", "x.png"], "not both"),
    "data of another shape": (
        ["compress", "--model", "colour.safetensors", "--out", "OUT/a.dlc"],
        "wants (3, 2, 2)",
    ),
    "no such picture": ([*PACK, "--images", "none.png"], "none.png: No such file"),
    "no such array": ([*PACK, "--images", "none.npy"], "none.npy: No such file"),
    "not a picture": ([*PACK, "--images", "bad/text.png"], "cannot be read as a picture"),
    "not an array": ([*PACK, "--images", "bad/text.npy"], "no array of numbers"),
    "an array of floats": ([*PACK, "--images", "bad/floats.npy"], "integers [n, 1, 8, 8] wanted"),
    "an array of another shape": ([*PACK, "--images", "bad/wide.npy"], "[n, 1, 8, 8] wanted"),
    "an array of pickles": ([*PACK, "--images", "bad/pickle.npy"], "no array of numbers"),
    "levels beyond the model's": ([*PACK, "--images", "bad/levels.npy"], "0..16"),
    "a sheet that does not divide": ([*PACK, "--images", "bad/odd.png"], "9x8: neither an image"),
    "a colour picture": ([*PACK, "--images", "bad/rgb.png"], "mode RGB"),
    "a picture with alpha": ([*PACK, "--images", "bad/alpha.png"], "mode LA"),
    "sixteen bits": ([*PACK, "--images", "bad/deep.png"], "mode I;16"),
    "a grey that is no level": ([*PACK, "--images", "bad/grey.png"], "holds the value 7"),
    "an empty folder": ([*PACK, "--images", "bad/empty"], "holds no pictures"),
    "no images": ([*PACK, "--images", "bad/none.npy"], "no images to compress"),
    "no such file": (["decompress", "none.dlc", "--out", "OUT/a.npy"], "none.dlc: No such file"),
    "not ours": (["decompress", "x.png", "--out", "OUT/a.npy"], "no compressed images"),
    "damaged": (["decompress", "bad/damaged.dlc", "--out", "OUT/a.npy"], "damaged"),
    "packed elsewhere": (["decompress", "x.dlc", "--out", "OUT/a.npy"], "give --model"),
    "another model": (
        ["decompress", "x.dlc", "--model", "digits-gated", "--out", "OUT/a.npy"],
        "another model",
    ),
    "out of another kind": ([*UNPACK, "OUT/a.jpg"], "NAME.npy, NAME.png or a new folder"),
    "out is there": ([*UNPACK, "bad"], "there already"),
    "out cannot be written": ([*UNPACK, "/proc/a.npy"], "/proc"),
}


@pytest.fixture(scope="module")
def bad(folder: Path) -> None:
    """Files that must be refused."""
    bad = folder / "bad"
    (bad / "empty").mkdir(parents=True)
    for name in ("text.png", "text.npy"):
        (bad / name).write_text("hello")
    arrays = {
        "floats": np.zeros((1, 1, 8, 8)),
        "wide": np.zeros((1, 1, 8, 9), np.uint8),
        "levels": np.full((1, 1, 8, 8), 17),
        "none": np.zeros((0, 1, 8, 8), np.uint8),
    }
    for name, array in arrays.items():
        np.save(bad / f"{name}.npy", array)
    np.save(bad / "pickle.npy", np.array([{}], dtype=object))
    Image.new("L", (9, 8)).save(bad / "odd.png")
    Image.new("L", (8, 8), 7).save(bad / "grey.png")
    Image.new("RGB", (8, 8)).save(bad / "rgb.png")
    Image.new("LA", (8, 8)).save(bad / "alpha.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(bad / "deep.png")
    data = bytearray((folder / "x.dlc").read_bytes())
    data[-1] ^= 1
    (bad / "damaged.dlc").write_bytes(data)


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv, message = ERRORS[case]
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    code = main([word.replace("OUT", str(tmp_path)) for word in argv])
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert printed.err.count("\n") == 1 and printed.err.startswith("ddpm-lite: ")
    assert message in printed.err and printed.out == ""
    assert not list(tmp_path.iterdir()) and sorted(here.rglob("*")) == before


def test_without_the_library(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert main([*MODEL, "--out", str(tmp_path / "a.dlc")]) == 2
    assert capsys.readouterr().err.endswith("pip install constriction\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["a.dlc", "a.npy", "a.png", "new"])
def test_what_goes_wrong_while_writing_leaves_nothing(
    out: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    argv = MODEL if out == "a.dlc" else UNPACK[:-1]
    assert main([*argv, "--out", str(tmp_path / out)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_sheet_may_say_too_much(here: Path, tmp_path: Path) -> None:
    """A note of another program, or a wrong one, is passed over: all places count."""
    for note in ("{}", "nothing", '{"n": 99}', '{"n": -1}', "[1]"):
        about = PngInfo()
        about.add_text("ddpm_lite", note)
        Image.new("L", (16, 8)).save(tmp_path / "s.png", pnginfo=about)
        out = tmp_path / "s.dlc"
        assert main([*MODEL, "--images", str(tmp_path / "s.png"), "--out", str(out)]) == 0
        assert codec.read(out.read_bytes()).n == 2


# -- the formats beside it -------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(baselines.SETTINGS))
def test_the_baselines_are_lossless(name: str, channels: int, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    path = tmp_path / f"a.{name}"
    path.write_bytes(baselines.encode(picture, name))
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as read:
        assert np.array_equal(np.array(read.convert(mode)).reshape(picture.shape), picture)


def test_baselines_take_the_better_of_their_settings() -> None:
    x = load("digits", "test").x[:20]
    found = baselines.sizes(x, 17)
    for name in baselines.SETTINGS:
        for pixels in (x.numpy(), baselines.to_grey(17)[x.numpy()]):
            for columns in (None, 1, 20):
                one = len(baselines.encode(baselines.sheet(pixels, columns), name))
                assert found[name]["sheet"] <= one
    assert all(size["sheet"] < size["single"] for size in found.values())
    assert sorted(found) == ["bzip2", "png", "webp", "xz"]
    with pytest.raises(ValueError, match="at least one"):
        baselines.sizes(torch.empty(0, 1, 8, 8).byte(), 17)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        baselines.sizes(torch.zeros(1, 2, 8, 8).byte(), 17)
