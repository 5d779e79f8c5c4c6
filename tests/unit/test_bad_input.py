"""Whatever is wrong with what the package is given: one clear line, a typed exception, exit code 2.

`COMMANDS` is the table for the command line, `CALLS` for Python; then full disks, Ctrl-C, and what
must be left behind: nothing half-written, and the old file as it was.
"""

import errno
import io
import json
import math
import os
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ddpm_lite import (
    MADE,
    Cosine,
    Denoiser,
    Discrete,
    Flow,
    GatedPixelCNN,
    Karras,
    LinearAR,
    LinearBeta,
    Marginal,
    PixelCNN,
    Sigmoid,
    UNet,
    ar,
    checkpoint,
    cli,
    cost,
    data,
    diffusion,
    draws,
    evaluate,
    exact,
    files,
    fit,
    guided,
    losses,
    metrics,
    record,
    require,
    ruler,
    samplers,
    schedules,
    to_levels,
    to_unit,
    train,
    viz,
)
from ddpm_lite._container import FORMAT
from ddpm_lite.cli import main

NAN, INF = math.nan, math.inf
UNSET = ["--set", "width=8", "mults=1,", "blocks=1", "attention=False,", "classes=10"]
GATED = ["train", "gated", "--steps", "2", "--batch", "4", "--every", "1", "--warmup", "1",
         "--valid-images", "4", "--set", "width=4", "layers=2", "classes=10"]  # fmt: skip
SMALL = ["--steps", "1", "--batch", "4", "--valid-images", "4"]


# -- the files that the table speaks of --------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad checkpoints, and with bad data sets."""
    folder = tmp_path_factory.mktemp("here")
    good = folder / "gated.safetensors"
    assert main([*GATED, "--out", str(good)]) == 0
    assert main(["train", "unet", *SMALL, "--out", str(folder / "unet.safetensors"), *UNSET]) == 0
    assert main(["train", "marginal", *SMALL, "--out", str(folder / "plain.safetensors")]) == 0
    ruled = ["train", "ruler", "--out", str(folder / "ruler.safetensors")]
    assert main([*ruled, "--set", "steps=2", "width=4"]) == 0

    whole = good.read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.safetensors").touch()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    (folder / "flipped.safetensors").write_bytes(flipped)
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "foreign.safetensors")
    torch.save(checkpoint.pretrained(good).state_dict(), folder / "pickle.safetensors")
    (folder / "evil.safetensors").write_bytes(pickle.dumps(Evil(folder / "EVIL")))
    tensors = safetensors.torch.load_file(good)
    with safetensors.safe_open(good, "pt") as file:
        header = json.loads(file.metadata()["ddpm_lite"])

    def lie(name: str, **changes: object) -> None:
        text = json.dumps(header | changes)
        safetensors.torch.save_file(tensors, folder / name, {"ddpm_lite": text})

    lie("version.safetensors", format=FORMAT + 1)
    lie("model.safetensors", spec=header["spec"] | {"width": 6})
    lie("class.safetensors", spec={"class": "subprocess.Popen"})
    lie("argument.safetensors", spec=header["spec"] | {"depth": 3})
    lie("nospec.safetensors", spec=None)
    lie("dataless.safetensors", data="digits")
    lie("otherdata.safetensors", data=header["data"] | {"hash": "0" * 64})
    lie("nowhere.safetensors", data=header["data"] | {"name": "faces"})
    lie("metrics.safetensors", metrics=[1, 2])
    nan = {k: v * NAN if v.is_floating_point() else v for k, v in tensors.items()}
    told = json.dumps(header | {"hash": _hash(nan)})
    safetensors.torch.save_file(nan, folder / "nan.safetensors", {"ddpm_lite": told})
    checkpoint.save(folder / "dry.safetensors", Denoiser(tiny()))  # neither data nor schedule

    for name, images in {
        "truncated": struct.pack(">4BIII", 0, 0, 8, 3, 60_000, 28, 28) + bytes(100),
        "magic": b"\x89PNG" + bytes(100),
        "size": struct.pack(">4BIII", 0, 0, 8, 3, 2, 8, 8) + bytes(128),
    }.items():
        raw = folder / name / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes(2)
        (raw / "train-labels-idx1-ubyte").write_bytes(labels)
    (folder / "picture" / "a").mkdir(parents=True)
    for i in range(30):
        (folder / "picture" / "a" / f"{i:02}.png").write_bytes(b"no picture")
    batches = folder / "evil" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (batches / name).write_bytes(pickle.dumps(Evil(folder / "EVIL")))
    return folder


class Evil:
    """Unpickling one makes a file: whoever finds the file has run foreign code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def _hash(tensors: dict[str, torch.Tensor]) -> str:
    from ddpm_lite import _container

    return _container._hash(tensors)


# -- the command line --------------------------------------------------------------------------

AR = ["sample", "--out", "OUT/a.png", "--n", "1", "--model"]
TRAIN = ["train", "gated", "--out", "OUT/a.safetensors", *GATED[2:]]  # ends in --set
NET = ["train", "unet", *SMALL, "--out", "OUT/a.safetensors"]
JUDGE = ["evaluate", "--n", "0", "--images", "2", "--model"]
CIFAR = ["train", "marginal", "--data", "cifar10", "--root"]

# name: the command line, words that its one line must hold (what was wrong; what to do)
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "unknown command": (["paint"], ["paint", "--help"]),
    "unknown option": ([*TRAIN, "--speed", "9"], ["--speed", "--help"]),
    "unknown data set": ([*TRAIN, "--data", "faces"], ["'faces'", "digits, mnist", "folder:PATH"]),
    "unknown kind": (["train", "gan", "--out", "OUT/a.safetensors"], ["gan", "gated", "unet"]),
    "unknown model": ([*AR, "nobody"], ["'nobody'", "known are", "digits-gated"]),
    "unknown sampler": ([*AR, "HERE/unet.safetensors", "--sampler", "euler"], ["'euler'", "heun"]),
    "unknown sampler, judged": (
        [*JUDGE, "HERE/unet.safetensors", "--sampler", "x"],
        ["'x'", "ddim"],
    ),
    "unknown schedule": ([*NET, "--schedule", "square"], ["square", "cosine"]),
    "unknown target": ([*NET, "--predicts", "score"], ["score", "eps"]),
    "data missing": ([*TRAIN, "--data", "mnist", "--root", "OUT"], ["not found", "--download"]),
    "data truncated": (
        [*TRAIN, "--data", "mnist", "--root", "HERE/truncated"],
        ["holds 116 bytes", "fetch it again"],
    ),
    "data of wrong magic": (
        [*TRAIN, "--data", "mnist", "--root", "HERE/magic"],
        ["does not begin like an idx file", "fetch it again"],
    ),
    "data of wrong size": (
        [*TRAIN, "--data", "mnist", "--root", "HERE/size"],
        ["(2, 8, 8)", "60,000 of 28x28", "fetch them again"],
    ),
    "pictures that are none": (
        [*TRAIN, "--data", "folder:HERE/picture"],
        ["cannot be read", "remove or replace it"],
    ),
    "no such folder": ([*TRAIN, "--data", "folder:OUT/none"], ["none", "not a folder"]),
    "code in CIFAR-10's pickles": (
        [*CIFAR, "HERE/evil", "--out", "OUT/a.safetensors"],
        ["does not belong in CIFAR-10's files", "fetch CIFAR-10 again"],
    ),
    "images larger than they are": ([*TRAIN, "--size", "9"], ["size=9", "averaged down"]),
    "no size": ([*TRAIN, "--size", "0"], ["--size", "below 1"]),
    "channels of other images": ([*NET, "--set", "channels=3"], ["channels", "--data"]),
    "levels of other images": ([*TRAIN, "levels=4"], ["levels", "--data"]),
    "shape of other images": ([*TRAIN, "shape=1,4,4"], ["shape", "--size"]),
    "fewer classes than labels": ([*TRAIN, "classes=5"], ["labels up to 9", "give it 10"]),
    "no argument": ([*TRAIN, "depth=3"], ["depth"]),
    "an odd width": ([*NET, "--set", "width=7"], ["width must be even"]),
    "a width in words": ([*TRAIN, "width=wide"], ["width must be a whole number", "'wide'"]),
    "dropout of 2": ([*TRAIN, "dropout=2"], ["dropout must be a number in [0, 1]"]),
    "no argument of a ruler": (
        ["train", "ruler", "--out", "OUT/a.safetensors", "--set", "depth=3"],
        ["depth", "a ruler takes"],
    ),
    "steps of 0": ([*AR, "HERE/unet.safetensors", "--steps", "0"], ["--steps", "below 1"]),
    "more steps than levels": (
        [*AR, "HERE/unet.safetensors", "--steps", "1001"],
        ["1001 sampling steps", "use at most 1000"],
    ),
    "more levels than levels": (
        [*JUDGE, "HERE/unet.safetensors", "--levels", "1001"],
        ["1001 sampling steps", "use at most 1000"],
    ),
    "training for 0 steps": ([*TRAIN, "--steps", "0"], ["steps must be", "at least 1"]),
    "a batch of 0": ([*TRAIN, "--batch", "0"], ["batch must be", "at least 1"]),
    "a rate of NaN": ([*TRAIN, "--lr", "nan"], ["lr must be", "nan"]),
    "sigma_data of NaN": ([*NET, "--sigma-data", "nan"], ["sigma_data must be", "nan"]),
    "label of 10": ([*AR, "HERE/gated.safetensors", "--label", "10"], ["label must lie in 0..9"]),
    "label of 10, diffusion": ([*AR, "HERE/unet.safetensors", "--label", "10"], ["lie in 0..9"]),
    "label of -2": ([*AR, "HERE/gated.safetensors", "--label", "-2"], ["label must lie in 0..9"]),
    "label without classes": ([*AR, "HERE/plain.safetensors", "--label", "1"], ["no classes"]),
    "guidance of NaN": (
        [*AR, "HERE/unet.safetensors", "--label", "1", "--guidance", "nan"],
        ["weight must be a number", "nan"],
    ),
    "guidance alone": ([*AR, "HERE/unet.safetensors", "--guidance", "2"], ["give --label"]),
    "temperature of NaN": (
        [*AR, "HERE/gated.safetensors", "--temperature", "nan"],
        ["temperature must be a number", "nan"],
    ),
    "a seed beyond all": ([*AR, "HERE/gated.safetensors", "--seed", str(2**70)], ["seed must be"]),
    "checkpoint missing": ([*AR, "OUT/no.safetensors"], ["there is no checkpoint", "info"]),
    "checkpoint truncated": ([*AR, "HERE/truncated.safetensors"], ["truncated", "again"]),
    "checkpoint empty": (["info", "HERE/empty.safetensors"], ["truncated", "again"]),
    "checkpoint with a flipped bit": ([*AR, "HERE/flipped.safetensors"], ["is damaged", "again"]),
    "checkpoint of others": ([*AR, "HERE/foreign.safetensors"], ["not one of ddpm_lite"]),
    "checkpoint that is a pickle": ([*AR, "HERE/pickle.safetensors"], ["a pickle is never read"]),
    "checkpoint with code": (["info", "HERE/evil.safetensors"], ["a pickle is never read"]),
    "checkpoint of torch.save's name": ([*AR, "HERE/a.pt"], ["a.pt", ".safetensors"]),
    "checkpoint of another version": (
        [*AR, "HERE/version.safetensors"],
        [f"format {FORMAT + 1}", "use the version that wrote it"],
    ),
    "checkpoint of another model": ([*AR, "HERE/model.safetensors"], ["weights do not fit"]),
    "checkpoint that names a class": (
        [*AR, "HERE/class.safetensors"],
        ["unknown class 'subprocess.Popen'", "known are"],
    ),
    "checkpoint of other arguments": ([*AR, "HERE/argument.safetensors"], ["depth"]),
    "checkpoint without a spec": ([*AR, "HERE/nospec.safetensors"], ["a spec is a table"]),
    "checkpoint of NaN": ([*AR, "HERE/nan.safetensors"], ["hold NaN", "train it again"]),
    "checkpoint without data": ([*AR, "HERE/dry.safetensors"], ["lacks", "schedule"]),
    "checkpoint without data, judged": ([*JUDGE, "HERE/dry.safetensors"], ["trained on", "data="]),
    "data that are no table": ([*JUDGE, "HERE/dataless.safetensors"], ["cannot be used"]),
    "data that are others": ([*JUDGE, "HERE/otherdata.safetensors"], ["not those", "--root"]),
    "data that nobody knows": ([*JUDGE, "HERE/nowhere.safetensors"], ["'faces'", "digits"]),
    "metrics that are no table": ([*JUDGE, "HERE/metrics.safetensors"], ["cannot be used"]),
    "a ruler's likelihood": ([*JUDGE, "HERE/ruler.safetensors"], ["Ruler", "no likelihood"]),
    "a ruler's images": ([*AR, "HERE/ruler.safetensors"], ["makes no images"]),
    "one image judged": ([*JUDGE, "HERE/gated.safetensors", "--n", "1"], ["at least 2"]),
    "resuming another": (
        [*GATED, "--resume", "--out", "HERE/gated.safetensors", "--lr", "1"],
        ["--resume", "another --out"],
    ),
    "resuming with other weights": (
        [*GATED, "--resume", "--out", "HERE/gated.safetensors", "--init", "digits-gated"],
        ["--init was None", "now digits-gated", "another --out"],
    ),
    "a flag in words": ([*TRAIN, "positions=false"], ["positions must be True or False"]),
    "a flag of a level": (
        [*NET, "--set", "attention='no',", "mults=1,", "width=8"],
        ["attention must be True or False", "'no'"],
    ),
    "a value without end": ([*TRAIN, f"width={'-' * 20_000}1"], ["width", "too deeply nested"]),
    "levels of an exact likelihood": (
        [*JUDGE, "HERE/gated.safetensors", "--levels", "5"],
        ["--levels means nothing", "autoregressive"],
    ),
    "sampler of an autoregressive model": (
        [*JUDGE, "HERE/gated.safetensors", "--sampler", "ddim"],
        ["--sampler means nothing", "autoregressive"],
    ),
    "temperature of a diffusion model": (
        [*JUDGE, "HERE/unet.safetensors", "--temperature", "2"],
        ["--temperature means nothing", "diffusion"],
    ),
    "a judge that is no classifier": (
        [
            *JUDGE[:1],
            "--n",
            "4",
            *JUDGE[3:],
            "HERE/gated.safetensors",
            "--ruler",
            "HERE/gated.safetensors",
        ],
        ["--ruler", "is a GatedPixelCNN", "classifier"],
    ),
    "export to nowhere": (
        [*JUDGE, "HERE/gated.safetensors", "--export", ""],
        ["--export", "must end in"],
    ),
    "export onto itself": (
        [*JUDGE, "HERE/gated.safetensors", "--export", "HERE/gated.safetensors"],
        ["is the model itself", "another name"],
    ),
    "resuming weights": (
        ["train", "gated", "--out", "HERE/ruler.safetensors", "--resume"],
        ["weights only"],
    ),
    "resuming what is truncated": (
        ["train", "gated", "--out", "HERE/truncated.safetensors", "--resume"],
        ["truncated", "again"],
    ),
    "weights of another": ([*TRAIN, "--init", "HERE/plain.safetensors"], ["architecture"]),
    "out is there": ([*GATED, "--out", "HERE/gated.safetensors"], ["--resume"]),
    "out is a folder": (
        [*AR[:1], "--model", "x", "--out", "OUT/d.png"],
        ["is a directory", "give"],
    ),
    "out is under a file": ([*AR[:1], "--model", "x", "--out", "OUT/f/a.png"], ["cannot write"]),
    "out is of another kind": ([*AR[:1], "--model", "x", "--out", "a.jpg"], ["must end in .png"]),
    "out is nowhere": (
        [*AR[:1], "--model", "HERE/plain.safetensors", "--out", "/proc/a.png"],
        ["/proc/a.png", "look at the path"],
    ),
}
if not torch.cuda.is_available():
    says = ["no device 'cuda'", "use 'cpu'"]
    COMMANDS["no such device"] = ([*AR, "HERE/gated.safetensors", "--device", "cuda"], says)
    COMMANDS["no such device, training"] = ([*TRAIN, "--device", "cuda"], says)


@pytest.mark.parametrize("case", COMMANDS)
def test_command(
    case: str,
    here: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argv, words = COMMANDS[case]
    monkeypatch.delenv("DDPM_LITE_DATA", raising=False)
    (tmp_path / "d.png").mkdir()
    (tmp_path / "f").touch()
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    argv = [part.replace("OUT", str(tmp_path)).replace("HERE", str(here)) for part in argv]
    code = main(argv)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert said.out == "" and said.err.startswith("ddpm-lite: ") and said.err.count("\n") == 1
    assert [w for w in words if w not in said.err] == [], said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.png", "f"]  # nothing half-written
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before


# -- Python ------------------------------------------------------------------------------------


def tiny(**more: object) -> UNet:
    return UNet(1, width=8, mults=(1,), blocks=1, attention=(False,), **more)


DENOISE = Denoiser(tiny(classes=10)).eval()
DENOISE.info = {"schedule": Cosine().spec, "shape": [1, 8, 8], "levels": 17}
EPS = Denoiser(tiny(), "eps")
EPS.info = DENOISE.info | {"schedule": Flow().spec}
SICK = Denoiser(tiny())
SICK.info = DENOISE.info
SICK.net.enter.weight.data.fill_(NAN)
GRID, Z = Cosine().grid(4), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
MODELS = {
    "GatedPixelCNN": GatedPixelCNN((1, 4, 4), 4, width=4, layers=2, classes=3),
    "LinearAR": LinearAR((1, 4, 4), 4, classes=3),
    "MADE": MADE((1, 4, 4), 4, width=8, classes=3),
    "PixelCNN": PixelCNN((1, 4, 4), 4, width=4, layers=1, classes=3),
}
PIXELS = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
KNOWN = (torch.ones(1, 4, 4, dtype=torch.bool), PIXELS[0])
X8 = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
DIGITS = data.Images(X8, torch.tensor([0, 1, 2, 9]), 17, "zeros")
CONFIG = train.TrainConfig(steps=1, batch=2, warmup=0)
FAKE, REAL = torch.randn(2, 30, 5, generator=torch.Generator().manual_seed(1)).unbind()
RULER = ruler.Ruler((1, 8, 8), 17, width=4)
EVAL = evaluate.EvalConfig(images=2, n=4, steps=2, levels=4, bootstraps=1, first_images=2)
MIXTURE = exact.GaussianMixture(torch.zeros(2, 3), 1.0)
TABLE = exact.Table(torch.ones(16), (1, 2, 2))
LAST = samplers.last


def trained(model: torch.nn.Module, images: data.Images = DIGITS, **more: object) -> object:
    loss_fn = train.loss_for(model, 17, CONFIG, more.pop("schedule", None))
    state = more.pop("state", None) or train.TrainState(model, CONFIG)
    return LAST(train.train(model, images, loss_fn, CONFIG, state))


def fitted(**more: object) -> object:
    model = Marginal((1, 8, 8), 17)
    state = train.TrainState(model, CONFIG)
    return LAST(fit.fit(model, DIGITS, losses.ar_loss, CONFIG, state, progress=False, **more))


def judged(model: object = DENOISE, config: evaluate.EvalConfig = EVAL, **more: object) -> object:
    images = {"test": DIGITS, "train": DIGITS, "ruler": RULER} | more
    return evaluate.evaluate(model, images["test"], images["train"], images["ruler"], config)


def walked(*moves: tuple) -> None:
    cache = MODELS["MADE"].begin(1)
    for i, *value in moves:
        cache.put(i, *value) if value else MODELS["MADE"].step(cache, i)


Call = tuple[Callable[[], object], str]
CALLS: dict[str, Call] = {
    # schedules
    **{f"LinearBeta({n!r})": (lambda n=n: LinearBeta(n), "steps") for n in (0, -1, 2.5, "3", None)},
    **{f"Cosine.grid({n!r})": (lambda n=n: Cosine().grid(n), "steps") for n in (0, 2.5, "3", NAN)},
    "grid(1001)": (lambda: Cosine().grid(1001), "use at most 1000"),
    "Flow.grid(0)": (lambda: Flow().grid(0), "steps"),
    "Karras.grid(2.5)": (lambda: Karras().grid(2.5), "steps"),
    "beta of NaN": (lambda: LinearBeta(9, NAN), "beta_start"),
    "betas of NaN": (lambda: Discrete([NAN]), r"beta must lie in \(0, 1\]"),
    "betas in words": (lambda: Discrete("abc"), "vector of numbers"),
    "no betas": (lambda: Discrete([]), "non-empty"),
    "tau of 0": (lambda: Sigmoid(9, tau=0), "tau"),
    "sigmoid backwards": (lambda: Sigmoid(9, start=3, end=-3), "start"),
    "t_max of NaN": (lambda: Flow(NAN), "t_max"),
    "sigma_max of inf": (lambda: Karras(0.1, INF), "sigma_max"),
    "rho of NaN": (lambda: Karras(rho=NAN), "rho"),
    "time of 2": (lambda: Cosine()(2), "time must lie"),
    "time of NaN": (lambda: Cosine()(NAN), "time must lie"),
    "time in words": (lambda: Cosine()("now"), "time must be a number"),
    "draw of 1": (lambda: Cosine().draw(torch.ones(1)), r"\[0, 1\)"),
    "draw of NaN": (lambda: Flow().draw(torch.tensor([NAN])), r"\[0, 1\)"),
    "shift by 0": (lambda: schedules.shifted(Flow(), 0), "factor"),
    "shift of a name": (lambda: schedules.shifted("cosine", 1), "needs a schedule"),
    "zero SNR of Flow": (lambda: schedules.zero_terminal_snr(Flow()), "discrete"),
    "log_snr_grid backwards": (lambda: schedules.log_snr_grid(3, -1, 1), "lo must be"),
    "log_snr_grid's path": (lambda: schedules.log_snr_grid(3, 1, -1, "x"), "unknown path"),
    "schedule's name": (lambda: schedules.from_spec({"class": "X"}), "known are Cosine"),
    "schedule's argument": (lambda: schedules.from_spec({"class": "Flow", "x": 1}), "x"),
    "schedule's spec": (lambda: schedules.from_spec(None), "spec is a table"),
    # samplers
    **{
        f"{name}: {what}": (lambda f=f, a=a: LAST(f(*a)), says)
        for name, f in samplers.SAMPLERS.items()
        for what, a, says in (
            ("noise of NaN", (DENOISE, Z * NAN, GRID), "noise holds NaN"),
            ("noise of levels", (DENOISE, X8, GRID), "noise must be floats"),
            ("one image", (DENOISE, Z[0], GRID), r"noise must be \[B, C, H, W\]"),
            ("no image", (DENOISE, Z[:0], GRID), "B > 0"),
            ("other channels", (DENOISE, Z.expand(2, 3, 8, 8), GRID), "shape"),
            ("no steps", (DENOISE, Z, GRID[:1]), "two rows"),
            ("grid of NaN", (DENOISE, Z, GRID * NAN), "grid holds NaN"),
            ("grid upside down", (DENOISE, Z, GRID.flip(0)), "noisiest first"),
            ("a schedule", (DENOISE, Z, Cosine()), "grid must be a tensor"),
            ("a number", (DENOISE, Z, 20), "grid must be a tensor"),
            ("no function", (None, Z, GRID), "denoise must be a function"),
        )
    },
    "label of 10": (lambda: LAST(samplers.ddim(DENOISE, Z, GRID, label=10)), r"0\.\.9"),
    "label of 1.5": (lambda: LAST(samplers.ddim(DENOISE, Z, GRID, label=1.5)), "int"),
    "three labels": (lambda: DENOISE(Z, 0.5, 0.5, torch.tensor([1, 2, 3])), r"int64\[2\]"),
    "eta of NaN": (lambda: LAST(samplers.ddim(DENOISE, Z, GRID, eta=NAN)), "eta"),
    "fresh of another shape": (
        lambda: LAST(samplers.ddpm(DENOISE, Z, GRID, fresh=lambda i: Z[:1])),
        r"fresh\(i\)",
    ),
    "last of nothing": (lambda: LAST(iter(())), "nothing"),
    "sample: sampler": (lambda: samplers.sample(DENOISE, 1, "euler"), "known are ddim"),
    **{
        f"sample({n!r})": (lambda n=n: samplers.sample(DENOISE, n), "images") for n in (0, 1.5, "2")
    },
    "sample: steps": (lambda: samplers.sample(DENOISE, 1, steps=1001), "at most 1000"),
    "sample: seed": (lambda: samplers.sample(DENOISE, 1, seed=-1), "seed"),
    "sample: an AR model": (lambda: samplers.sample(MODELS["MADE"], 1), r"model\.sample\(n\)"),
    "sample: no info": (lambda: samplers.sample(Denoiser(tiny()), 1), "lacks schedule, shape"),
    "sample: weights of NaN": (lambda: samplers.sample(SICK, 1, steps=2), "NaN"),
    "sample: eps at alpha 0": (lambda: samplers.sample(EPS, 1, steps=2), "alpha = 0"),
    # guidance
    "guidance of NaN": (lambda: guided(DENOISE, NAN), "weight"),
    "guidance in words": (lambda: guided(DENOISE, "2"), "weight"),
    "guidance without label": (lambda: guided(DENOISE, 2.0)(Z, 0.5, 0.5), "label"),
    "guidance, three labels": (
        lambda: guided(DENOISE, 2.0)(Z, 0.5, 0.5, torch.tensor([1, 2, 3])),
        r"int64\[2\]",
    ),
    # denoisers
    "target": (lambda: Denoiser(tiny(), "score"), "known are eps"),
    "sigma_data of inf": (lambda: Denoiser(tiny(), sigma_data=INF), "sigma_data"),
    "no network": (lambda: Denoiser(None), "net must be a network"),
    "x of NaN": (lambda: DENOISE(Z * NAN, 0.5, 0.5), "x holds NaN"),
    "x of levels": (lambda: DENOISE(X8, 0.5, 0.5), "use to_unit"),
    "level of NaN": (lambda: DENOISE(Z, NAN, 0.5), "alpha and sigma"),
    "sigma below 0": (lambda: DENOISE(Z, 0.5, -0.5), "alpha and sigma"),
    "levels 0 and 0": (lambda: DENOISE(Z, 0.0, 0.0), "not both 0"),
    "three levels": (lambda: DENOISE(Z, torch.ones(3), 0.5), "one per image"),
    "loss: noise": (lambda: diffusion.loss(DENOISE, Z, 0.5, 0.5, Z[:1]), "noise must have shape"),
    "loss: levels": (lambda: diffusion.loss(DENOISE, X8, 0.5, 0.5, X8), "use to_unit"),
    "loss: weight": (
        lambda: diffusion.loss(DENOISE, Z, 0.5, 0.5, Z, weight=torch.ones(2, 1)),
        "weight must have shape",
    ),
    "UNet: width": (lambda: UNet(1, width=7), "even"),
    "UNet: channels": (lambda: UNet(0), "channels"),
    "UNet: dropout": (lambda: UNet(1, dropout=NAN), "dropout"),
    "UNet: mults": (lambda: UNet(1, mults=2), "mults"),
    "UNet: attention": (lambda: UNet(1, attention=(True,)), "attention"),
    "UNet: log_snr": (lambda: DENOISE.net(Z, torch.zeros(3)), "log_snr must have shape"),
    # bound
    **{
        f"elbo: first={k!r}": (lambda k=k: diffusion.elbo(DENOISE, X8, GRID, 17, k), "first")
        for k in (0, 5, 1.5)
    },
    "elbo: floats": (lambda: diffusion.elbo(DENOISE, Z, GRID, 17), "to_levels"),
    "elbo: levels": (lambda: diffusion.elbo(DENOISE, X8 + 9, GRID, 4), r"0\.\.3"),
    "elbo: no image": (lambda: diffusion.elbo(DENOISE, X8[:0], GRID, 17), "images"),
    "elbo: grid": (lambda: diffusion.elbo(DENOISE, X8, GRID.flip(0), 17), "noisiest first"),
    # autoregressive models
    **{
        f"{name}: {what}": (lambda m=m, f=f: f(m), says)
        for name, m in MODELS.items()
        for what, f, says in (
            ("floats", lambda m: m.log_prob(PIXELS.float()), "integer levels"),
            ("size", lambda m: m.log_prob(PIXELS[..., :3]), "shape"),
            ("level 4", lambda m: m.logits(PIXELS + 4), r"0\.\.3"),
            ("level -1", lambda m: m.log_prob(PIXELS - 1), r"0\.\.3"),
            ("a list", lambda m: m.log_prob([1]), "tensor"),
            ("no image", lambda m: m.log_prob(PIXELS[:0]), "x"),
            ("label 3", lambda m: m.log_prob(PIXELS, 3), r"0\.\.2"),
            ("label -2", lambda m: m.sample(1, -2), r"0\.\.2"),
            ("label 1.5", lambda m: m.sample(1, 1.5), "label must be"),
            ("label in words", lambda m: m.sample(1, "cat"), "label must be"),
            ("n of 0", lambda m: m.sample(0), "n must be"),
            ("n of 2.5", lambda m: m.sample(2.5), "n must be"),
            ("temperature", lambda m: m.sample(1, temperature=NAN), "temperature"),
            ("seed", lambda m: m.sample(1, seed=-1), "seed"),
            ("u", lambda m: m.sample(1, u=torch.full((1, 16), NAN).double()), "u must lie"),
            ("known", lambda m: m.sample(1, known=(KNOWN[0], KNOWN[1] + 9)), "known"),
            ("a mask alone", lambda m: m.sample(1, known=KNOWN[0]), "known must be a pair"),
            ("a mask of floats", lambda m: m.log_weight(PIXELS, KNOWN[0].float()), "bool"),
            ("shape", lambda m: type(m)((4, 4), 4), r"\(C, H, W\)"),
            ("shape of 0", lambda m: type(m)((1, 0, 4), 4), "shape"),
            ("levels of 1", lambda m: type(m)((1, 4, 4), 1), "levels"),
            ("levels of 2.5", lambda m: type(m)((1, 4, 4), 2.5), "levels"),
            ("classes of 0", lambda m: type(m)((1, 4, 4), 4, classes=0), "classes"),
        )
    },
    "label without classes": (lambda: Marginal((1, 4, 4), 4).log_prob(PIXELS, 1), "no classes"),
    "width": (lambda: MADE((1, 4, 4), 4, width=2.5), "width"),
    "layers": (lambda: PixelCNN((1, 4, 4), 4, layers=0), "layers"),
    "dropout": (lambda: GatedPixelCNN((1, 4, 4), 4, dropout=NAN), "dropout"),
    "order": (lambda: MADE((1, 4, 4), 4, order=[0, 0]), "permutation"),
    "order of LinearAR": (lambda: LinearAR((1, 4, 4), 4, order="raster"), "permutation"),
    "head": (lambda: GatedPixelCNN((1, 4, 4), 4, head="x"), "known are categorical"),
    "smoothing": (lambda: Marginal((1, 4, 4), 4).fit(PIXELS, NAN), "smoothing"),
    "step out of order": (lambda: walked((1,)), "out of order"),
    "put before step": (lambda: walked((0, 1)), "put"),
    "put of a float": (lambda: walked((0,), (0, 1.5)), "takes a level"),
    # heads
    **{
        f"{head.__name__}: {what}": (lambda head=head, f=f: f(head), says)
        for head in (ar.heads.Categorical, ar.heads.LogisticMixture)
        for what, f, says in (
            (
                "level 9",
                lambda h: h(8, 3, 4).log_prob(torch.zeros(5, 8), torch.full((5, 3), 9)),
                "0",
            ),
            (
                "channels",
                lambda h: h(8, 3, 4).log_prob(torch.zeros(5, 8), torch.ones(5, 2)),
                "shape",
            ),
            ("halves", lambda h: h(8, 3, 4).log_prob(torch.zeros(5, 8), torch.ones(5, 3)), "whole"),
            ("features of 0", lambda h: h(0, 3, 4), "features"),
            ("levels of 1", lambda h: h(8, 3, 1), "levels"),
        )
    },
    "no mixtures": (lambda: ar.heads.LogisticMixture(8, 1, 4, 0), "mixtures"),
    "kind of mask": (lambda: ar.conv.MaskedConv2d(1, 1, 3, "C"), "kind"),
    "even kernel": (lambda: ar.conv.MaskedConv2d(1, 1, 2, "A"), "odd"),
    "kernel of -1": (lambda: ar.conv.MaskedConv2d(1, 1, -1, "A"), "kernel"),
    # metrics
    **{
        f"{f.__name__}: {what}": (lambda f=f, a=a: f(*a), says)
        for f in (metrics.frechet, metrics.kernel_distance, metrics.precision_recall)
        for what, a, says in (
            ("NaN", (FAKE * NAN, REAL), "NaN"),
            ("infinity", (FAKE, REAL * INF), "infinity"),
            ("one image", (FAKE[:1], REAL), "N > 1"),
            ("another width", (FAKE[:, :3], REAL), "cannot be compared"),
            ("one axis", (FAKE[0], REAL), r"\[N,F\]"),
            ("numpy", (FAKE.numpy(), REAL), "torch.as_tensor"),
        )
    },
    "k of 30": (lambda: metrics.precision_recall(FAKE, REAL, k=30), "more than k"),
    "k of 1.5": (lambda: metrics.precision_recall(FAKE, REAL, k=1.5), "k must be"),
    "bootstrap: n": (lambda: metrics.bootstrap(metrics.frechet, FAKE, REAL, n=0), "n must be"),
    "bootstrap: level": (lambda: metrics.bootstrap(len, FAKE, level=95), "level must be"),
    "bootstrap: nothing": (lambda: metrics.bootstrap(len), "non-empty"),
    "features: floats": (lambda: metrics.features(RULER, Z), "to_levels"),
    "features: size": (lambda: metrics.features(RULER, PIXELS), "ruler reads"),
    "features: levels": (lambda: metrics.features(RULER, X8 + 99), r"0\.\.16"),
    "features: no net": (lambda: metrics.features(None, X8), "features"),
    "ruler: lr": (lambda: ruler.fit_ruler(DIGITS, lr=NAN), "lr"),
    "ruler: steps": (lambda: ruler.fit_ruler(DIGITS, steps=0), "steps"),
    "ruler: classes": (lambda: ruler.fit_ruler(DIGITS, classes=3), "classes"),
    # training
    **{
        f"TrainConfig({k}={v!r})": (lambda k=k, v=v: train.TrainConfig(**{k: v}), k)
        for k, v in (
            *(("steps", v) for v in (0, 1.5, True, "a")),
            *(("lr", v) for v in (0, NAN, INF, "a", None)),
            *(("ema", v) for v in (1, NAN, -1)),
            *(("weight_decay", v) for v in (-1, NAN)),
            *(("seed", v) for v in (-1, 2**70)),
            ("batch", 0),
            ("clip", 0),
            ("decay", "x"),
            ("label_drop", 2),
            ("warmup", -1),
            ("bf16", "yes"),
        )
    },
    "no images": (lambda: trained(Marginal((1, 8, 8), 17), DIGITS[:0]), "no images"),
    "images of another size": (lambda: trained(Marginal((1, 4, 4), 17)), "shape"),
    "images of other levels": (lambda: trained(Marginal((1, 8, 8), 4)), "levels"),
    "labels beyond classes": (lambda: trained(LinearAR((1, 8, 8), 17, classes=3)), "up to 9"),
    "a tensor of images": (lambda: trained(Marginal((1, 8, 8), 17), X8), "data.Images"),
    "images of other channels": (
        lambda: trained(Denoiser(UNet(3, 8, (1,), 1, (False,))), schedule=Cosine()),
        "channels",
    ),
    "another model's state": (
        lambda: trained(Marginal((1, 8, 8), 17), state=train.TrainState(MODELS["MADE"], CONFIG)),
        "another model",
    ),
    "no schedule": (lambda: trained(Denoiser(tiny())), "Cosine"),
    "a schedule's name": (lambda: losses.diffusion_loss("cosine", 17), "schedule"),
    "training a ruler": (lambda: trained(RULER), "neither"),
    "fit: every": (lambda: fitted(every=0), "every"),
    "fit: patience": (lambda: fitted(valid=DIGITS, patience=0), "patience"),
    "fit: no valid": (lambda: fitted(valid=DIGITS[:0]), "validate"),
    "draws: seed": (lambda: draws.Draws(-1, 0, 2), "seed"),
    "a batch unshared": (lambda: draws.share(3, 0, 2), "shared"),
    # evaluation
    **{
        f"EvalConfig({k}={v!r})": (lambda k=k, v=v: evaluate.EvalConfig(**{k: v}), k)
        for k, v in (
            ("n", -1),
            ("n", 1),
            ("n", 2.5),
            ("steps", 0),
            ("sampler", "x"),
            ("temperature", NAN),
            ("images", 0),
            ("levels", 1.5),
            ("first", 0),
            ("bootstraps", 0),
            ("seed", -1),
        )
    },
    "evaluate: no images": (lambda: judged(test=DIGITS[:0]), "empty"),
    "evaluate: another size": (lambda: judged(MODELS["MADE"]), "the model is for"),
    "evaluate: another ruler": (lambda: judged(ruler=ruler.Ruler((1, 4, 4), 17)), "ruler reads"),
    "evaluate: a ruler": (lambda: judged(RULER), "neither"),
    "evaluate: no info": (lambda: judged(Denoiser(tiny())), "lacks"),
    "generate: guidance": (lambda: evaluate.generate(MODELS["MADE"], 1, EVAL, 1, 2.0), "guidance"),
    # data
    "split": (lambda: data.load("digits", "dev"), "train, valid"),
    "name": (lambda: data.load("faces"), "digits, mnist"),
    "no name": (lambda: data.load(None), "name"),
    "size of 9": (lambda: data.load("digits", size=9), "averaged down"),
    "size of 2.5": (lambda: data.load("digits", size=2.5), "size"),
    "pixels beyond levels": (lambda: data.Images(X8 + 9, DIGITS.y, 4, "x"), "levels=4"),
    "Images of numpy": (lambda: data.Images(X8.numpy(), np.zeros(4), 17, "x"), "from_numpy"),
    "image 99": (lambda: DIGITS[torch.tensor([99])], "among 4"),
    "to_unit: levels": (lambda: to_unit(X8, 1), "levels"),
    "to_levels: NaN": (lambda: to_levels(Z * NAN, 17), "NaN"),
    "to_levels: levels": (lambda: to_levels(Z, 300), "levels"),
    "to_levels: twice": (lambda: to_levels(X8, 17), "whole already"),
    # checkpoints
    "pretrained": (lambda: checkpoint.pretrained("nobody"), "digits-gated"),
    "pretrained(None)": (lambda: checkpoint.pretrained(None), "digits-gated"),
    "device": (lambda: checkpoint.pretrained("digits-ruler", "abacus"), "no device 'abacus'"),
    "load": (lambda: checkpoint.load("no.safetensors"), "there is no checkpoint"),
    "save: spec": (lambda: checkpoint.save("a.safetensors", torch.nn.Linear(2, 2)), "no spec"),
    "save: name": (lambda: checkpoint.save("a.pt", MODELS["MADE"]), "safetensors"),
    "save: NaN": (lambda: checkpoint.save("a.safetensors", SICK), "NaN"),
    "save: info": (lambda: checkpoint.save("a.safetensors", MODELS["MADE"], a=NAN), "JSON"),
    "build": (lambda: checkpoint.build({"class": "os.system"}), "known are"),
    "build: argument": (lambda: checkpoint.build({"class": "UNet", "x": 1}), "UNet"),
    "build: endless": (lambda: checkpoint.build(nested(5000)), "cannot build"),
    # figures and records
    "tile: NaN": (lambda: viz.tile(Z * NAN), "NaN"),
    "tile: levels": (lambda: viz.tile(X8), "levels="),
    "tile: columns": (lambda: viz.tile(Z, 0), "columns"),
    "tile: none": (lambda: viz.tile(Z[:0]), "no images"),
    "tile: channels": (lambda: viz.tile(torch.zeros(1, 2, 3, 3)), "1 or 3"),
    "rows: none": (lambda: viz.rows({}), "table"),
    "filling: none": (lambda: viz.filling([], 4), "no states"),
    "player: captions": (lambda: viz.player([Z], ["a", "b"], "x"), "captions"),
    "player: start": (lambda: viz.player([Z], ["a"], "x", start=5), "start"),
    "record: key": (lambda: record.record("nokey", 1), "chapter/name"),
    "record: NaN": (lambda: record.record("t/a", NAN), "finite"),
    "record: interval": (lambda: record.record("t/a", 1.0, interval=(2, 1)), "interval"),
    "record: n": (lambda: record.record("t/a", 1.0, n=-1), "n must be"),
    "committed": (lambda: record.committed("05/none"), "known are"),
    "timing nothing": (lambda: cost.interleaved_medians({}), "candidate"),
    # exact models
    "mixture: NaN": (lambda: exact.GaussianMixture(torch.full((2, 3), NAN), 1.0), "means"),
    "mixture: variance": (lambda: exact.GaussianMixture(torch.zeros(2, 3), -1.0), "semidefinite"),
    "mixture: weights": (lambda: exact.GaussianMixture(torch.zeros(2, 3), 1.0, [0, 0]), "weights"),
    "mixture: x": (lambda: MIXTURE(torch.full((1, 1, 1, 3), NAN), 0.5, 0.5), "x holds NaN"),
    "mixture: label": (lambda: MIXTURE(torch.zeros(1, 1, 1, 3), 0.5, 0.5, 7), "no such class"),
    "mixture: n": (lambda: MIXTURE.sample(0), "n must be"),
    "kernel: levels": (lambda: exact.KernelDenoiser(X8), "to_unit"),
    "kernel: NaN": (lambda: exact.KernelDenoiser(Z * NAN), "NaN"),
    "table: p": (lambda: exact.Table([NAN] * 16, (1, 2, 2)), "16 numbers"),
    "table: size": (lambda: exact.Table.potts((1, 8, 8)), "a table lists"),
    "table: x": (lambda: TABLE.log_prob(PIXELS[..., :2, :2] + 2), r"0\.\.1"),
}


def nested(depth: int) -> dict:
    spec: dict = {"class": "Cosine"}
    for _ in range(depth):
        spec = {"class": "Denoiser", "net": spec}
    return spec


OF_DATA = {"split", "name", "no name", "size of 9", "size of 2.5", "pixels beyond levels",
           "Images of numpy", "image 99"}  # fmt: skip
OF_CHECKPOINT = {"pretrained", "pretrained(None)", "load", "save: spec", "save: name", "save: NaN",
                 "save: info", "build", "build: argument", "build: endless"}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_call(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, says = CALLS[case]
    monkeypatch.chdir(tmp_path)
    kind = checkpoint.CheckpointError if case in OF_CHECKPOINT else ValueError
    with pytest.raises(data.DataError if case in OF_DATA else kind, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_right_passes() -> None:
    """The table would also be green if everything raised."""
    assert samplers.sample(DENOISE, 1, steps=2, label=9).shape == (1, 1, 8, 8)
    assert all(m.log_prob(PIXELS, 2).isfinite().all() for m in MODELS.values())
    assert train.TrainConfig(weight_decay=2.0, seed=2**40).weight_decay == 2
    assert trained(LinearAR((1, 8, 8), 17, classes=10)).step == 1
    assert judged()["quality"]["n"] == 4
    assert schedules.shifted(LinearBeta(50), 0.5).steps == 50 and Flow().steps is None
    order = list(reversed(range(16)))
    assert checkpoint.build(LinearAR((1, 4, 4), 4, order=order).spec).order.tolist() == order
    assert require.device("auto").type in ("cpu", "cuda")


# -- a disk that is full, an output that cannot be written ----------------------------------------


def test_no_room_is_one_line_and_leaves_the_old_file(
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a.png"
    out.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # fsync names no file

    monkeypatch.setattr(os, "fsync", full)
    argv = ["sample", "--model", str(here / "plain.safetensors"), "--n", "1", "--out", str(out)]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said == f"ddpm-lite: {out}: No space left on device: make room, or write elsewhere\n"
    assert out.read_bytes() == b"old" and list(tmp_path.iterdir()) == [out]
    source = str(here / "gated.safetensors")
    export = ["evaluate", "--model", source, "--images", "2", "--n", "0", "--export"]
    assert main([*export, str(tmp_path / "b.safetensors")]) == 2
    assert main([*GATED, "--out", str(tmp_path / "c.safetensors")]) == 2
    assert list(tmp_path.iterdir()) == [out]


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if not shutil.which("mount"):
        pytest.skip("NOT TRIED on a full disk: there is no mount here")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT TRIED on a full disk: mounting is not allowed here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_is_really_full(crowded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = crowded / "a.safetensors"
    small = ["train", "marginal", *SMALL, "--size", "2", "--out", str(out)]
    assert main(small) == 0
    before = out.read_bytes()
    capsys.readouterr()
    large = ["train", "made", *SMALL, "--out", str(crowded / "b.safetensors"), "--set", "width=64"]
    assert main(large) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "b.safetensors: No space left" in said and "make room" in said
    assert [p.name for p in crowded.iterdir()] == [out.name] and out.read_bytes() == before
    assert checkpoint.load(out)[1] is not None


def test_files_that_belong_together_are_written_together(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_all({tmp_path / "a": b"new", tmp_path / "d": b"new"})
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_standard_output_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "ddpm_lite", "info"]
        run = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "standard output: No space left" in run.stderr


# -- Ctrl-C ----------------------------------------------------------------------------------------

ENDLESS = {
    "train": ["train", "linear", "--steps", "1000000", "--batch", "4", "--every", "1",
              "--valid-images", "4", "--out", "OUT/a.safetensors"],
    "sample, autoregressive": ["sample", "--model", "HERE/gated.safetensors", "--n", "1000000",
                               "--out", "OUT/a.png"],
    "sample, diffusion": ["sample", "--model", "HERE/unet.safetensors", "--n", "1000000",
                          "--out", "OUT/a.png"],
    "evaluate": ["evaluate", "--model", "HERE/gated.safetensors", "--n", "1000000",
                 "--ruler", "HERE/ruler.safetensors"],
}  # fmt: skip


@pytest.mark.parametrize("command", ENDLESS)
def test_ctrl_c_at_random_moments(
    command: str,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, presses = cli._run, []

    def pressed(moment: float, argv: list[str]) -> int:
        presses.append(threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT)))
        presses[-1].start()
        return run(argv)

    chance = random.Random(command)
    argv = [a.replace("OUT", str(tmp_path)).replace("HERE", str(here)) for a in ENDLESS[command]]
    out = tmp_path / "a.safetensors"
    for moment in [0.0, *(chance.uniform(0, 0.6) for _ in range(5))]:
        monkeypatch.setattr(cli, "_run", partial(pressed, moment))
        code = main(argv)
        presses[-1].cancel()  # had the command ended without it
        said = capsys.readouterr().err
        hint = "; what was saved goes on with --resume" if command == "train" else ""
        assert (code, said) == (130, f"ddpm-lite: interrupted{hint}\n")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert {p.name for p in tmp_path.iterdir()} <= {out.name}  # nothing half-written
        if out.exists():
            assert checkpoint.load(out)[1] is not None
            argv = [*argv, "--resume"] if "--resume" not in argv else argv


def test_ctrl_c_while_a_file_is_written_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def pressed(handle: int) -> None:
        signal.raise_signal(signal.SIGINT)
        sync(handle)

    monkeypatch.setattr(os, "fsync", pressed)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new"}


def test_ctrl_c_that_is_swallowed_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a finaliser, or in an import that turns it into another error."""

    def deaf(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("a module could not be initialised") from None

    monkeypatch.setattr(checkpoint, "names", deaf)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "ddpm-lite: interrupted\n"


def test_nothing_foreign_was_run(here: Path) -> None:
    for name in ("truncated", "pickle", "evil"):
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.load(here / f"{name}.safetensors")
    with pytest.raises(data.DataError):
        data.load("cifar10", root=here / "evil")
    assert not (here / "EVIL").exists()
    pickle.load(io.BytesIO((here / "evil.safetensors").read_bytes()))  # the trap does work
    assert (here / "EVIL").exists()
    (here / "EVIL").unlink()
