"""Checkpoints: what comes back is what was saved, and nothing damaged is taken for it."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ddpm_lite import checkpoint, files
from ddpm_lite.ar.dense import MADE, LinearAR, Marginal
from ddpm_lite.ar.gated import GatedPixelCNN
from ddpm_lite.checkpoint import CheckpointError, build, export, load, pretrained, save
from ddpm_lite.data import Images
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.ruler import Ruler
from ddpm_lite.schedules import (
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    Schedule,
    Sigmoid,
    shifted,
    zero_terminal_snr,
)
from ddpm_lite.train import TrainConfig, TrainState
from ddpm_lite.unet import UNet

IMAGES = Images(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.arange(3), 4, "made up", "a note")


def gated() -> nn.Module:
    return GatedPixelCNN((1, 4, 4), 4, width=4, layers=2, classes=3)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gated": gated,
    "logistic": lambda: GatedPixelCNN((3, 2, 2), 8, width=4, layers=2, head="logistic"),
    "linear": lambda: LinearAR((1, 2, 2), 4),
    "made": lambda: MADE((1, 2, 2), 4, width=8, order=[3, 1, 0, 2]),
    "marginal": lambda: Marginal((1, 2, 2), 4),
    "ruler": lambda: Ruler((1, 4, 4), 4, width=2, features=3),
    "unet": lambda: Denoiser(
        UNet(1, 8, mults=(1, 2), blocks=1, attention=(False, True), classes=2), "eps", 0.5
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_comes_back(kind: str, tmp_path: Path) -> None:
    model, path = MODELS[kind](), tmp_path / "a.safetensors"
    save(path, model, data=IMAGES, schedule=Cosine(10), remark="ä")
    again, state, info = load(path)
    assert state is None and type(again) is type(model)
    assert again.spec == model.spec == info["spec"]
    expected = model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())
    assert info["data"] == {"name": "made up", "hash": IMAGES.hash, "note": "a note"}
    assert info["schedule"] == {"class": "Cosine", "steps": 10} and info["remark"] == "ä"
    assert info["format"] == 1 and info["versions"]["torch"] == torch.__version__
    assert info["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(20),
        LinearBeta(20, 1e-3, 0.3),
        Sigmoid(20),
        Flow(0.9),
        Karras(0.01, 50, 5),
        shifted(Flow(), 0.5),
        zero_terminal_snr(LinearBeta(20)),
        shifted(zero_terminal_snr(Cosine(20)), 2.0),
    ],
    ids=lambda s: type(s).__name__,
)
def test_every_schedule_comes_back(schedule: Schedule) -> None:
    again = build(json.loads(json.dumps(schedule.spec)))
    assert torch.equal(again.grid(10), schedule.grid(10)) and again.spec == schedule.spec


def test_the_state_comes_back(tmp_path: Path) -> None:
    model, config = gated(), TrainConfig(steps=7, lr=0.1, seed=3)
    state = TrainState(model, config)
    for p in model.parameters():
        p.grad = torch.rand_like(p)
    state.optimizer.step()
    state.advance(model)
    state.best, state.best_loss, state.best_step = dict(state.ema), 1.25, 1
    save(tmp_path / "a.safetensors", model, state)
    again, resumed, info = load(tmp_path / "a.safetensors")
    assert resumed is not None and resumed.config == config and info["config"]["seed"] == 3
    assert (resumed.step, resumed.best_loss, resumed.best_step) == (1, 1.25, 1)
    before, after = (s.optimizer.state_dict()["state"] for s in (state, resumed))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[i][k], after[i][k]) for i in before for k in before[i])
    owned = {id(p) for group in resumed.optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for p in again.parameters()}


def test_pretrained_takes_the_best_average(tmp_path: Path) -> None:
    model = gated()
    state = TrainState(model, TrainConfig())
    path = tmp_path / "a.safetensors"

    def stored() -> float:
        save(path, model, state, data=IMAGES)
        got = pretrained(path)
        assert not got.training and got.info["data"]["name"] == "made up"
        return next(got.parameters()).flatten()[0].item()

    name = next(iter(state.ema))
    state.ema[name].fill_(5.0)
    assert stored() == 5.0
    state.best = {k: v.clone() for k, v in state.ema.items()}
    state.best[name].fill_(7.0)
    assert stored() == 7.0
    assert not torch.equal(load(path)[0].state_dict()[name], state.best[name])  # raw ones


def test_the_committed_form(tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "c.safetensors"
    save(tmp_path / "a.safetensors", model, TrainState(model, TrainConfig()), data=IMAGES, seed=4)
    source = pretrained(tmp_path / "a.safetensors")
    with torch.no_grad():
        next(source.parameters()).fill_(1 / 3)
    header = export(path, source, metrics={"bits": 1.5})
    assert all(v.dtype == torch.float16 for v in load_file(path).values())
    got = pretrained(path)
    assert all(v.dtype == torch.float32 for v in got.state_dict().values())
    assert next(got.parameters()).flatten()[0] == torch.tensor(1 / 3).half().float()
    assert all(
        torch.equal(a, b) for a, b in zip(got.parameters(), source.parameters(), strict=True)
    )  # what was exported was rounded, too: figures are those of the file
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside == header and beside["metrics"] == {"bits": 1.5} and beside["seed"] == 4
    assert beside["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {k: v for k, v in beside.items() if k not in ("sha256", "bytes")} == got.info


def test_export_refuses_what_float16_cannot_hold(tmp_path: Path) -> None:
    model = gated()
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)
    with pytest.raises(CheckpointError, match="does not fit into float16"):
        export(tmp_path / "c.safetensors", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", checkpoint.names())
def test_committed_checkpoints_are_intact(name: str) -> None:
    path = checkpoint.COMMITTED / f"{name}.safetensors"
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    info = pretrained(name).info
    assert {k: v for k, v in beside.items() if k not in ("sha256", "bytes")} == info


def test_loading_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", gated())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(tmp_path / "a.safetensors")
    assert torch.equal(torch.rand(3), expected)


# -- damage --------------------------------------------------------------------------------------


def edited(path: Path, **changes: object) -> None:
    """The same tensors under a header that was changed; None removes an entry."""
    header = json.loads(_text(path)) | changes
    header = {k: v for k, v in header.items() if v is not None}
    save_file(load_file(path), path, {"ddpm_lite": json.dumps(header)})


def _text(path: Path) -> str:
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["ddpm_lite"]


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def foreign(path: Path) -> None:
    save_file({"w": torch.zeros(2)}, path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "no checkpoint"),
    "empty": (lambda p: p.write_bytes(b""), "truncated or no safetensors"),
    "8 bytes": (lambda p: p.write_bytes(p.read_bytes()[:8]), "truncated or no safetensors"),
    "half": (
        lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
        "truncated or no safetensors",
    ),
    "one byte short": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "truncated or no safetensors"),
    "one byte long": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "no safetensors"),
    "a weight's bit": (lambda p: flipped(p, -3), "tensors are not those"),
    "text": (lambda p: p.write_text("not a checkpoint"), "truncated or no safetensors"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "truncated or no safetensors"),
    "torch.save": (lambda p: torch.save({"a": torch.zeros(3)}, p), "no safetensors"),
    "foreign": (foreign, "not one of ddpm_lite"),
    "next format": (lambda p: edited(p, format=2), "has format 2"),
    "no format": (lambda p: edited(p, format=None), "header is damaged"),
    "no spec": (lambda p: edited(p, spec=None), "a spec is a table"),
    "spec of a stranger": (lambda p: edited(p, spec={"class": "Evil"}), "unknown class 'Evil'"),
    "spec of a schedule": (lambda p: edited(p, spec=Cosine(5).spec), "a schedule, not a model"),
    "other arguments": (
        lambda p: edited(p, spec={"class": "GatedPixelCNN", "depth": 3}),
        "cannot build GatedPixelCNN",
    ),
    "other width": (
        lambda p: edited(p, spec={**gated().spec, "width": 6}),
        "weights do not fit the spec",
    ),
    "other class": (
        lambda p: edited(p, spec=LinearAR((1, 4, 4), 4).spec),
        "weights do not fit the spec",
    ),
    "no config": (lambda p: edited(p, config=None), "training state is damaged"),
    "another's config": (lambda p: edited(p, config={"speed": 1}), "training state is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files(damage: str, tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "a.safetensors"
    save(path, model, TrainState(model, TrainConfig()))
    change, message = DAMAGE[damage]
    change(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


def test_a_header_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for text in ("{", "[]", "3", "null"):
        save_file({"w": torch.zeros(2)}, path, {"ddpm_lite": text})
        with pytest.raises(CheckpointError, match="header is damaged"):
            load(path)


def test_truncation_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, Marginal((1, 2, 2), 4))
    data = path.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(data), 60):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            load(path)


@pytest.mark.parametrize("spec", [None, 3, {}, {"class": 3}, {"class": "os.system"}, "Cosine"])
def test_what_is_no_spec(spec: object) -> None:
    with pytest.raises(CheckpointError, match=r"spec"):
        build(spec)  # type: ignore[arg-type]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"Denoiser.*GatedPixelCNN"):
        build({"class": "Nobody"})
    with pytest.raises(CheckpointError, match=r"known are .*; or give a \.safetensors file"):
        pretrained("digits-gatde")


# -- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failed_write_changes_nothing(
    call: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save(path, Marginal((1, 2, 2), 4), remark=1)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        save(path, Marginal((1, 2, 2), 4), remark=2)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.safetensors"
    save(path, Marginal((1, 2, 2), 4))
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save(path, gated())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_write_makes_directories_and_ordinary_files(tmp_path: Path) -> None:
    path = files.write(tmp_path / "new" / "deep" / "f.bin", b"abc")
    assert path.read_bytes() == b"abc"
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    with pytest.raises(OSError, match="is a directory"):
        files.write(tmp_path / "new", b"abc")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    path, model = tmp_path / "a.safetensors", Marginal((1, 2, 2), 4)
    with pytest.raises(CheckpointError, match="float32"):
        save(path, Marginal((1, 2, 2), 4).double())
    with pytest.raises(CheckpointError, match="JSON"):
        save(path, model, metrics={"bits": float("nan")})
    with pytest.raises(CheckpointError, match="JSON"):
        save(path, model, thing=object())
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        save(tmp_path / "a.pt", model)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors opens a file twice: a save in between mixes one header with other tensors."""
    import safetensors

    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for name, seed in ((path, 0), (other, 1)):
        torch.manual_seed(seed)
        checkpoint.save(name, LinearAR((1, 2, 2), 3), seed=seed)
    opened = safetensors.safe_open

    class Mixed:
        """The header of the file that was there, the tensors of the one that took its name."""

        def __init__(self, name: Path, framework: str) -> None:
            with opened(name, framework) as file:
                self.header = file.metadata()
            if other.exists():
                other.replace(path)
            self.file = opened(name, framework)

        def __enter__(self) -> "Mixed":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def metadata(self) -> object:
            return self.header

        def keys(self) -> object:
            return self.file.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            return self.file.get_tensor(name)

    monkeypatch.setattr(safetensors, "safe_open", Mixed)
    assert checkpoint.read_info(path)["seed"] == 1


@pytest.mark.parametrize("bit", range(7))
def test_a_flipped_bit_of_the_header_is_seen(bit: int, tmp_path: Path) -> None:
    """One that leaves valid JSON, such as 4 levels for 5, most of all."""
    path = tmp_path / "a.safetensors"
    save(path, gated(), data=IMAGES, remark="x" * 9)
    data = bytearray(path.read_bytes())
    data[data.index(b"xxxxxxxxx") + 4] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged|truncated"):
        pretrained(path)


def test_files_without_a_checksum_of_the_header_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, gated())
    with safe_open(path, "pt") as file:
        save_file(load_file(path), path, {"ddpm_lite": file.metadata()["ddpm_lite"]})
    assert pretrained(path).info["format"] == 1


def test_a_changed_file_of_the_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "COMMITTED", tmp_path)
    export(tmp_path / "a.safetensors", gated())
    assert pretrained("a").info == checkpoint.read_info("a")
    save(tmp_path / "a.safetensors", gated())  # whole, but another
    for reader in (pretrained, checkpoint.read_info):
        with pytest.raises(CheckpointError, match="not the file that came with ddpm_lite"):
            reader("a")


def test_infinite_weights_are_neither_saved_nor_read(tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "a.safetensors"
    save(path, model)
    before = path.read_bytes()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.inf
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        save(path, model)
    assert path.read_bytes() == before


def test_tensors_that_numpy_does_not_know_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, gated())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path, metadata)
    with pytest.raises(CheckpointError, match="its tensors are not those that were written"):
        pretrained(path)


@pytest.mark.parametrize(
    ("field", "value"), [("step", float("1e400")), ("step", 99), ("best_step", None)]
)
def test_a_state_that_cannot_be_is_refused(field: str, value: object, tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "a.safetensors"
    save(path, model, TrainState(model, TrainConfig(steps=4)))
    with safe_open(path, "pt") as file:
        info = json.loads(file.metadata()["ddpm_lite"])
    save_file(load_file(path), path, {"ddpm_lite": json.dumps(info | {field: value})})
    with pytest.raises(CheckpointError, match="its training state is damaged"):
        load(path)


def test_averages_of_another_shape_are_refused(tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "a.safetensors"
    state = TrainState(model, TrainConfig())
    name = next(iter(state.ema))
    state.ema[name] = torch.zeros(1)
    save(path, model, state)
    with pytest.raises(CheckpointError, match="of another shape"):
        load(path)
