"""Whole runs of `ddpm-lite train`: killed and resumed, and on two processes under torchrun."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from ddpm_lite import checkpoint
from ddpm_lite.cli import main

LIMIT = 300  # seconds that no run here comes near, on a busy machine either
COMMON = ["--batch", "8", "--warmup", "1", "--lr", "1e-3", "--label-drop", "0"]
COMMON += ["--valid-images", "10"]
FAMILIES = {
    "gated": ["train", "gated", *COMMON, "--set", "width=4", "layers=2", "classes=10"],
    "unet": ["train", "unet", *COMMON, "--set",
             "width=8", "mults=1,", "blocks=1", "attention=False,", "classes=10"],
}  # fmt: skip
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # rounding as here


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a command run in this process prints with --json."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@contextlib.contextmanager
def running(argv: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that leaves nothing behind, torchrun's children included."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(argv, env=ENVIRONMENT | more, start_new_session=True, **pipes)
    try:
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def wait_for_step(path: Path, step: int, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not path.exists() or checkpoint.read_info(path)["step"] < step:
        assert run.poll() is None, f"it ended before step {step}: {run.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- kill -9 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options"),
    [("gated", []), ("unet", ["--bf16", "--channels-last"])],
    ids=["gated", "unet, bf16, channels-last"],
)
def test_a_run_killed_twice_is_resumed_to_the_same_tensors(
    family: str, options: list[str], tmp_path: Path
) -> None:
    dropout = ["dropout=0.2"] if family == "gated" else ["dropout=0.1"]
    argv = [*FAMILIES[family], *dropout, *options, "--steps", "40", "--every", "1"]
    out = tmp_path / "killed.safetensors"
    for step in (1, 9):
        command = [sys.executable, "-m", "ddpm_lite", *argv, "--out", str(out), "--resume"]
        with running(command) as run:
            wait_for_step(out, step, run)
    assert step <= checkpoint.read_info(out)["step"] < 40
    assert main([*argv, "--out", str(out), "--resume"]) == 0
    whole = tmp_path / "whole.safetensors"
    assert main([*argv, "--out", str(whole)]) == 0
    # the hash covers weights, averages, best averages and the optimiser's moments
    assert checkpoint.read_info(out)["hash"] == checkpoint.read_info(whole)["hash"]


# -- torchrun ------------------------------------------------------------------------------------

gloo = pytest.mark.skipif(
    not dist.is_gloo_available(), reason="this torch has no gloo: torchrun is UNTESTED"
)
# Notes in every process: who it is, and which checkpoints it writes.
NOTES = """
import os, pathlib
folder, rank = pathlib.Path(os.environ["NOTES"]), os.environ.get("RANK")
if rank is not None:
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    replace = os.replace
    def noted(source, target, **more):
        if str(target).endswith(".safetensors"):
            with open(folder / "writers", "a") as file:
                file.write(rank + "\\n")
        return replace(source, target, **more)
    os.replace = noted
"""


@contextlib.contextmanager
def torchrun(argv: list[str], notes: Path) -> Iterator[subprocess.Popen[str]]:
    notes.mkdir()
    (notes / "sitecustomize.py").write_text(NOTES)
    path = os.pathsep.join([str(notes), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "ddpm_lite", *argv]
    with running(command, NOTES=str(notes), PYTHONPATH=path) as run:
        yield run


def ours(stderr: str) -> list[str]:
    """The lines that ddpm-lite wrote, among torchrun's own."""
    return [line for line in stderr.splitlines() if line.startswith("ddpm-lite: ")]


def assert_close(one: Path, other: Path, *but: str) -> None:
    """All tensors of two checkpoints agree, as far as adding in another order allows."""
    a, b = ({k: v for k, v in load_file(p).items() if k.split(".")[0] not in but}
            for p in (one, other))  # fmt: skip
    assert a.keys() == b.keys() and a
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-4, rtol=1e-3, msg=name)


@gloo
@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_are_one_run(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*FAMILIES[family], "--steps", "6", "--every", "1"]
    alone, both = tmp_path / "alone.safetensors", tmp_path / "both.safetensors"
    expected = said([*argv, "--out", str(alone)], capsys)
    notes = tmp_path / "notes"
    with torchrun([*argv, "--out", str(both), "--json"], notes) as run:
        out, err = run.communicate(timeout=LIMIT)
    assert run.returncode == 0, err
    found = json.loads(out)  # one answer, the first process's
    for mine, theirs in zip(expected["checks"], found["checks"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)  # step, loss, validation loss
    assert_close(alone, both)
    assert (notes / "writers").read_text().split() == ["0"] * 6
    assert checkpoint.read_info(both)["processes"] == 2
    assert {p.name for p in tmp_path.iterdir()} == {alone.name, both.name, "notes"}


MARGINAL = ["train", "marginal", *COMMON, "--steps", "300", "--every"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of MARGINAL, uninterrupted."""
    out = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    assert main([*MARGINAL, "300", "--out", str(out)]) == 0
    return out


@gloo
def test_a_process_that_dies_ends_the_run_and_one_goes_on(tmp_path: Path, whole: Path) -> None:
    out, notes = tmp_path / "a.safetensors", tmp_path / "notes"
    with torchrun([*MARGINAL, "1", "--out", str(out)], notes) as run:
        wait_for_step(out, 2, run)
        os.kill(int((notes / "pid1").read_text()), signal.SIGKILL)
        _, err = run.communicate(timeout=LIMIT)
    assert run.returncode != 0
    (line,) = ours(err)
    assert "another process of this run ended" in line and "--resume" in line
    assert 2 <= checkpoint.read_info(out)["step"] < 300
    assert main([*MARGINAL, "300", "--out", str(out), "--resume"]) == 0
    assert_close(out, whole, "best")  # which is looked for at other steps here


@gloo
def test_two_processes_go_on_where_one_stopped(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "a.safetensors"
    command = [sys.executable, "-m", "ddpm_lite", *MARGINAL, "1", "--out", str(out)]
    with running(command) as run:
        wait_for_step(out, 3, run)
    assert checkpoint.read_info(out)["step"] < 300
    with torchrun([*MARGINAL, "300", "--out", str(out), "--resume"], tmp_path / "notes") as run:
        _, err = run.communicate(timeout=LIMIT)
    assert run.returncode == 0, err
    assert checkpoint.read_info(out)["processes"] == 2
    assert_close(out, whole, "best")


@gloo
def test_a_mistake_is_told_once_and_nobody_waits(tmp_path: Path) -> None:
    argv = [*FAMILIES["gated"], "--batch", "9", "--out", str(tmp_path / "a.safetensors")]
    with torchrun(argv, tmp_path / "notes") as run:
        out, err = run.communicate(timeout=LIMIT)
    assert ours(err) == [
        "ddpm-lite: a batch of 9 images cannot be shared by 2 processes evenly: "
        "give a --batch that 2 divides"
    ]
    assert out == "" and run.returncode != 0
    codes = set(re.findall(r"exitcode\s*:\s*(-?\d+)", err))  # torchrun's own is always 1
    assert "2" in codes and codes <= {"2", "-15"}  # it ends whoever is slower with a SIGTERM
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]
