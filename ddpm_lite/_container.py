"""The file under a checkpoint: safetensors, a JSON header, checksums of both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .version import __version__

__all__ = [
    "FORMAT",
    "CheckpointError",
    "encode",
    "one_line",
    "prefixed",
    "read",
    "unchanged",
    "under",
]

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign, or does not fit what it says it is."""


def encode(
    path: Path, header: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], bytes]:
    """(the header as a reader will see it, the bytes of the file that is to be `path`)."""
    import safetensors.torch

    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: a checkpoint's name ends in .safetensors")
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{name} holds NaN or infinity: such weights are not saved")
    header = {**header, "format": FORMAT, "hash": _hash(tensors)}
    try:
        text = json.dumps(header, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"info must be JSON without NaN: {one_line(error)}") from error
    metadata = {"ddpm_lite": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.loads(text), safetensors.torch.save(tensors, metadata)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(header, tensors) of an intact file of this format, else CheckpointError.

    A run that saves may replace the file meanwhile. safetensors opens it twice, for the header and
    for the tensors, so that the two may not fit; then the new file is read.
    """
    while True:
        before = _identity(path)
        try:
            return _read(path)
        except CheckpointError:
            if _identity(path) == before:
                raise


def unchanged(path: Path) -> None:
    """CheckpointError unless `path` is the file that the .json beside it, if any, tells of."""
    beside = path.with_suffix(".json")
    if not beside.is_file() or not path.is_file():
        return
    told = json.loads(beside.read_text(encoding="utf-8"))["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != told:
        raise CheckpointError(
            f"{path} is not the file that came with ddpm_lite: install the package again"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Changes when another file takes the name."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: `ddpm-lite info` lists known names")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file (a pickle is never read): "
            f"{one_line(error)}; fetch or train it again"
        ) from error
    text = metadata.get("ddpm_lite")
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one of ddpm_lite: make it with checkpoint.save"
        )
    try:
        info = json.loads(text)
        version, told = info["format"], info["hash"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its header is damaged ({one_line(error)}): fetch or train it again"
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has format {version!r}, ddpm_lite {__version__} reads {FORMAT}: "
            "use the version that wrote it"
        )
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if metadata.get("sha256", sha256) != sha256:  # files of before have none
        raise CheckpointError(
            f"{path} is damaged: its header is not the one that was written; fetch it again"
        )
    if told != _hash(tensors):
        raise CheckpointError(
            f"{path} is damaged: its tensors are not those that were written; fetch it again"
        )
    return info, tensors


def _hash(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes: safetensors itself has no checksum."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy: no bfloat16
    return digest.hexdigest()


def one_line(error: BaseException) -> str:
    """The error's message without its line breaks, shortened."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that begin with `prefix`, as copies on the CPU."""
    return {f"{prefix}.{k}": v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
