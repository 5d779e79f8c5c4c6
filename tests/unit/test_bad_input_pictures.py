"""People's own pictures and arrays, folders to write, an impatient Ctrl-C, and the command's words.

As in `test_bad_input.py`: one clear line, the right exit code, and nothing half-written.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_lite import _torchvision, checkpoint, cli, data, ruler
from ddpm_lite.ar import Marginal
from ddpm_lite.cli import main
from ddpm_lite.cli.common import Answer
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.schedules import Flow
from ddpm_lite.unet import UNet


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of both families, images packed with one, and arrays that are none."""
    folder = tmp_path_factory.mktemp("here")
    train = data.load("digits", "train")
    checkpoint.save(folder / "m.safetensors", Marginal((1, 8, 8), 17).fit(train.x), data=train)
    net = UNet(1, width=8, mults=(1,), blocks=1, attention=(False,), classes=10)
    checkpoint.save(folder / "flow.safetensors", Denoiser(net), data=train, schedule=Flow())
    packed = ["compress", "--model", str(folder / "m.safetensors"), "--n", "3"]
    assert main([*packed, "--out", str(folder / "x.dlc")]) == 0

    np.savez(folder / "several.npz", a=np.zeros((1, 1, 8, 8), np.uint8))
    (folder / "several.npz").rename(folder / "several.npy")
    whole = header("(1, 1, 8, 8)")
    (folder / "cut.npy").write_bytes(whole.replace(b"}", b"("))  # a bracket that nothing closes
    (folder / "huge.npy").write_bytes(header(f"({10**30}, 1, 8, 8)"))
    (folder / "large.npy").write_bytes(header(f"({10**15}, 1, 8, 8)"))
    (folder / "nested.npy").write_bytes(header("(" * 4000 + ")" * 4000))
    (folder / "minus.npy").write_bytes(header("-" * 6000 + "1"))
    (folder / "short.npy").write_bytes(whole[:-1])
    return folder


def header(shape: str) -> bytes:
    """An .npy file of one image of zeros that says it has `shape`."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


# -- one line --------------------------------------------------------------------------------------

PACK = ["compress", "--model", "HERE/m.safetensors", "--out", "OUT/a.dlc", "--images"]
UNPACK = ["decompress", "HERE/x.dlc", "--model", "HERE/m.safetensors", "--out"]
DRAW = ["sample", "--model", "HERE/m.safetensors", "--out", "OUT/a.png"]
FLOW = ["sample", "--model", "HERE/flow.safetensors", "--out", "OUT/a.png"]
RULER = ["train", "ruler", "--out", "OUT/r.safetensors"]

# name: the command line, words that its one line must hold (what was wrong; what to do)
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    **{
        f"an array that is {name}": ([*PACK, f"HERE/{name}.npy"], [f"{name}.npy", "no array of"])
        for name in ("cut", "huge", "large", "nested", "minus", "short")
    },
    "an archive of arrays": ([*PACK, "HERE/several.npy"], ["several arrays", "np.save"]),
    "a model named allocate": (["sample", "--model", "allocate", *DRAW[3:]], ["known are"]),
    "a place named allocate": ([*DRAW[:-1], "OUT/allocate/x.jpg"], ["end in .png"]),
    "out below a file": ([*UNPACK, "OUT/f/new"], ["/f/new: cannot write in"]),
    "out is a file": ([*UNPACK, "OUT/f"], ["there already", "a new folder"]),
    "out is a link to nowhere": ([*UNPACK, "OUT/dangling"], ["there already", "a new folder"]),
    "a label beyond int64": ([*DRAW, "--label", str(10**20)], ["--label", "at most 1,000,000"]),
    "a label below int64": ([*FLOW, "--label", str(-(10**20))], ["--label", "at most 1,000,000"]),
    "images beyond all": ([*DRAW, "--n", str(10**11)], ["--n", "at most 1,000,000"]),
    "steps beyond all": ([*FLOW, "--steps", str(10**20)], ["--steps", "at most 1,000,000"]),
    **{
        f"a ruler's {argv[0]}": ([*RULER, *argv], [argv[0], "not for a ruler", "leave it out"])
        for argv in (
            ["--init", "x"],
            ["--resume"],
            ["--schedule", "flow"],
            ["--predicts", "eps"],
            ["--sigma-data", "0.5"],
            ["--every", "5"],
            ["--patience", "5"],
            ["--valid-images", "5"],
            ["--warmup", "5"],
        )
    },
    "a ruler's steps": ([*RULER, "--steps", "5"], ["--steps", "--set steps="]),
    "a ruler's classes": ([*RULER, "--set", "classes=x"], ["classes must be", "'x'"]),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_command(case: str, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv, words = COMMANDS[case]
    (tmp_path / "f").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    code = main([w.replace("OUT", str(tmp_path)).replace("HERE", str(here)) for w in argv])
    said = capsys.readouterr()
    assert code == 2, said.err
    assert said.out == "" and said.err.startswith("ddpm-lite: ") and said.err.count("\n") == 1
    assert [w for w in words if w not in said.err] == [] and "memory" not in said.err, said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "f"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "abc"), ("RANK", "-1"), ("RANK", "3"), ("LOCAL_RANK", "1.5"), ("WORLD_SIZE", "")],
)
def test_an_environment_that_torchrun_did_not_make(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    for argv in (["info", "nobody"], ["info", "--speed"], ["train", "ruler"]):
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and name in err and "unset" in err


# -- what the command says -------------------------------------------------------------------------


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(_: object) -> Answer:
        raise error

    monkeypatch.setattr(cli.info, "run", run)
    return main(["info"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 TiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
)
def test_memory_that_ran_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(error, monkeypatch) == 2
    assert "fewer images or a smaller model" in capsys.readouterr().err
    wrapped = ValueError("cannot build it")
    wrapped.__cause__ = error
    assert ends_with(wrapped, monkeypatch) == 2
    assert "fewer images or a smaller model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ValueError("no model 'cannot allocate'"), OSError("allocate"), KeyError("allocate")]
)
def test_other_mistakes_are_not_called_out_of_memory(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(error, monkeypatch)
    assert "out of memory" not in capsys.readouterr().err


def test_json_is_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"a": math.nan, "b": [1.5, -math.inf, (np.float64("nan"), "NaN")], "c": {"d": True}}
    monkeypatch.setattr(cli.info, "run", lambda _: Answer(found, ""))
    assert main(["info", "--json"]) == 0

    def none(word: str) -> None:
        raise AssertionError(word)

    said = json.loads(capsys.readouterr().out, parse_constant=none)
    assert said == {"a": None, "b": [1.5, None, [None, "NaN"]], "c": {"d": True}}


def test_an_interrupted_ruler_is_not_said_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ruler, "bent", pressed)
    assert main(["train", "ruler", "--out", str(tmp_path / "r.safetensors")]) == 130
    assert capsys.readouterr().err == "ddpm-lite: interrupted\n"


# -- folders to write ------------------------------------------------------------------------------


def unpack(here: Path, out: str) -> int:
    return main([word.replace("HERE", str(here)) for word in [*UNPACK, out]])


def test_a_folder_may_end_in_a_slash_and_lie_beside_its_like(here: Path, tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    (tmp_path / "empty").mkdir()
    for out in ("d", "slash/", "deep/er/", "empty/"):
        assert unpack(here, f"{tmp_path}/{out}") == 0, out
        assert len(list((tmp_path / out).iterdir())) == 3
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_full_disk_is_named(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert unpack(here, str(tmp_path / "new")) == 2
    err = capsys.readouterr().err
    assert (
        err
        == f"ddpm-lite: {tmp_path}/new: No space left on device: make room, or write elsewhere\n"
    )
    assert not list(tmp_path.iterdir())


# -- Ctrl-C, and again -----------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ctrl-C is pressed again whenever a folder is being removed."""
    real, pressed = shutil.rmtree, []

    def removing(*args: object, **kwargs: object) -> None:
        pressed.append(1)
        signal.raise_signal(signal.SIGINT)
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(shutil, "rmtree", removing)
    return pressed


def test_ctrl_c_while_writing_pictures(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every file, and when a full disk has the folder removed."""
    real = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        signal.raise_signal(signal.SIGINT)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    assert unpack(here, str(tmp_path / "new")) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["new"]  # whole
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_ctrl_c_while_pictures_are_removed(
    here: Path, tmp_path: Path, impatient: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert unpack(here, str(tmp_path / "new")) == 130
    assert impatient and not list(tmp_path.iterdir())


def test_ctrl_c_twice_while_downloading(
    tmp_path: Path, impatient: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            for j in range(50):
                (Path(root) / str(j)).touch()
            signal.raise_signal(signal.SIGINT)

    vision = types.SimpleNamespace(datasets=types.SimpleNamespace(MNIST=Slow))
    monkeypatch.setattr(_torchvision, "import_torchvision", lambda: vision)
    argv = ["train", "marginal", "--data", "mnist", "--root", str(tmp_path / "root"), "--download"]
    assert main([*argv, "--out", str(tmp_path / "a.safetensors")]) == 130
    assert impatient and [p.name for p in tmp_path.rglob("*")] == ["root"]
