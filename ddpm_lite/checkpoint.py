"""Checkpoints: one safetensors file whose header says what it is. No pickle, so no code inside.

The header holds one JSON text: format, spec (from which `build` makes the model again), schedule,
configuration, data and its hash, seed, step, metrics, versions, and a hash of the tensors. A file
saved with a `TrainState` also holds the optimiser and the averaged weights, so that training goes
on from it bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import files, require
from ._container import CheckpointError, encode, one_line, prefixed, read, unchanged, under
from .data import Images
from .provenance import hardware, versions
from .schedules import Schedule
from .specs import build
from .train import TrainConfig, TrainState

__all__ = [
    "COMMITTED",
    "CheckpointError",
    "build",
    "export",
    "load",
    "names",
    "pretrained",
    "read_info",
    "rounded",
    "save",
]

COMMITTED = Path(__file__).parent / "checkpoints"


def save(
    path: str | os.PathLike[str], model: nn.Module, state: TrainState | None = None, **info: Any
) -> dict[str, Any]:
    """Write `model`, and with `state` all that training needs to go on. Returns the header.

    `info` is any JSON; three entries are known: `schedule` (a Schedule: its spec is stored), `data`
    (Images: name, note, hash, shape and levels are stored), `metrics`. The file is written aside
    and renamed: nothing half-written is ever seen under `path`.

    Raises CheckpointError for a model without a spec, for weights that are NaN or not float32 and
    for info that JSON cannot hold, OSError where the file cannot be written.
    """
    _described_by_spec(model)
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise CheckpointError("checkpoints hold float32 weights: call model.float() first")
    tensors = prefixed("model", model.state_dict())
    if state is not None:
        moments = state.optimizer.state_dict()["state"]
        tensors |= prefixed("ema", state.ema) | prefixed("best", state.best or {})
        for index, moment in moments.items():
            tensors |= prefixed(f"optimizer.{index}", moment)
        info |= {
            "config": dataclasses.asdict(state.config),
            "step": state.step,
            "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
            "best_step": state.best_step,
        }
    header, data = _encoded(Path(path), model, tensors, info)
    files.write(path, data)
    return header


def load(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[Any, TrainState | None, dict[str, Any]]:
    """Read what `save` wrote: (model, state, info). The state is None where none was saved.

    The model holds the raw weights, those that training goes on from; `pretrained` gives the
    averaged ones. Raises CheckpointError for anything but an intact checkpoint of this format,
    ValueError for a device that is not here.
    """
    path, device = Path(path), require.device(device)
    info, tensors = read(path)
    model = _filled(info, under("model", tensors), path).to(device)
    if not any(name.startswith(("optimizer.", "ema.")) for name in tensors):
        return model, None, info
    try:
        state = TrainState(model, TrainConfig(**info["config"]))
        state.step, state.best_step = int(info["step"]), int(info["best_step"])
        state.best_loss = math.inf if info["best_loss"] is None else float(info["best_loss"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in under("optimizer", tensors).items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state.ema = _like(model, under("ema", tensors))
        state.best = _like(model, under("best", tensors)) or None
        require.whole("step", state.step, 0, state.config.steps)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: its training state is damaged: {one_line(error)}"
        ) from error
    return model, state, info


def pretrained(name: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """A trained model, ready for use: averaged weights, eval mode, the header as `.info`.

    `name` is one of `names()`, or the path of a file that ends in `.safetensors`. The weights are
    the best average that training saw, else the latest average, else the model's own; those stored
    as float16 come back as float32. Raises CheckpointError, listing the names, for any other name,
    ValueError for a device that is not here.
    """
    path, device = _path(name), require.device(device)
    info, tensors = _read(path)
    weights = under("best", tensors) or under("ema", tensors) or under("model", tensors)
    model = _filled(info, weights, path).to(device).eval()
    model.info = info
    return model


def names() -> list[str]:
    """The checkpoints that come with the package."""
    return sorted(path.stem for path in COMMITTED.glob("*.safetensors"))


def read_info(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of what `pretrained` would give, checked; the model is not built."""
    return _read(_path(name))[0]


def rounded(model: nn.Module) -> nn.Module:
    """`model`, its parameters rounded in place to what float16 can hold: as committed."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not p.half().isfinite().all():
                raise CheckpointError(f"{name} does not fit into float16")
            p.copy_(p.half())
    return model


def export(path: str | os.PathLike[str], model: nn.Module, **info: Any) -> dict[str, Any]:
    """Write the committed form of what `pretrained` gave: float16 parameters, and a .json beside.

    Evaluate `rounded(model)` and pass `metrics=`, so that the figures are those of the file. The
    .json is derived: the header, with the file's size and sha256. Returns it.
    """
    path = Path(path)
    _described_by_spec(model)
    kept = {k: v for k, v in getattr(model, "info", {}).items() if k not in ("format", "spec")}
    halves = {name for name, _ in model.named_parameters()}
    weights = {k: v.half() if k in halves else v for k, v in rounded(model).state_dict().items()}
    header, data = _encoded(path, model, prefixed("model", weights), kept | info)
    header |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    text = json.dumps(header, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    files.write_all({path: data, path.with_suffix(".json"): text.encode()})
    return header


# -- helpers -------------------------------------------------------------------------------------


def _described_by_spec(model: Any) -> None:
    if not isinstance(model, nn.Module) or not isinstance(getattr(model, "spec", None), dict):
        kind = type(model).__name__
        raise CheckpointError(f"a {kind} has no spec to be built again from: save a model of ours")


def _encoded(
    path: Path, model: nn.Module, tensors: dict[str, Tensor], info: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    spec: dict[str, Any] = model.spec  # type: ignore[assignment]
    header = {
        "versions": versions(),  # an exported file keeps those it was trained with, and on
        "hardware": hardware(next(model.parameters()).device),
        **_described(spec, info),
        "spec": spec,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return encode(path, header, tensors)


def _path(name: str | os.PathLike[str]) -> Path:
    if str(name).endswith(".safetensors"):
        return Path(name)
    if str(name) in names():
        return COMMITTED / f"{name}.safetensors"
    known = ", ".join(names()) or "none yet"
    raise CheckpointError(
        f"no checkpoint is called {str(name)!r}: known are {known}; or give a .safetensors file"
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.parent == COMMITTED:
        unchanged(path)
    return read(path)


def _described(spec: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """`info` with schedules and images replaced by their descriptions."""
    found: dict[str, Any] = {k: spec[k] for k in ("shape", "levels") if k in spec}
    for key, value in info.items():
        if isinstance(value, Schedule):
            found[key] = value.spec
        elif isinstance(value, Images):
            found[key] = {"name": value.name, "hash": value.hash, "note": value.note}
            found |= {"shape": list(value.shape), "levels": value.levels}
        else:
            found[key] = value
    return found


def _like(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """`weights` on the model's device, if there are any and they are as many and as large."""
    own = model.state_dict()
    shapes = {k: v.shape for k, v in weights.items()}
    if weights and shapes != {k: v.shape for k, v in own.items()}:
        raise ValueError("averaged weights of another shape than the model's")
    return {k: v.to(own[k].device) for k, v in weights.items()}


def _filled(info: dict[str, Any], weights: dict[str, Tensor], path: Path) -> Any:
    """The model of the header's spec, holding `weights`, which must fit it name by name."""
    with torch.random.fork_rng(devices=[]):  # initialisation must not move the caller's generator
        try:
            model = build(info.get("spec", {}))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{path}: its spec describes a schedule, not a model")
    wanted = {k: list(v.shape) for k, v in model.state_dict().items()}
    found = {k: list(v.shape) for k, v in weights.items()}
    if wanted != found:
        name = min(k for k in wanted | found if wanted.get(k) != found.get(k))
        raise CheckpointError(
            f"{path}: weights do not fit the spec: {name} is {found.get(name, 'missing')}, "
            f"the model has {wanted.get(name, 'none')}; fetch or train it again"
        )
    if not all(v.isfinite().all() for v in weights.values()):
        raise CheckpointError(f"{path}: its weights hold NaN or infinity: train it again")
    model.load_state_dict(weights)  # casts float16 to the model's float32
    return model
