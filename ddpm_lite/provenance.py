"""Where a checkpoint comes from: the software, the class of machine, and the runs behind it."""

from __future__ import annotations

import platform
from typing import Any

import torch

from .version import __version__

__all__ = ["hardware", "runs", "versions"]


def hardware(device: torch.device) -> str:
    """The class of machine that `device` is, such as "CPU x86_64, 1 thread" or a GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type.upper()} {platform.machine()}, {threads} thread{'s' * (threads > 1)}"


def versions() -> dict[str, str]:
    """The software that decides what a seed gives."""
    return {
        "ddpm_lite": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def runs(info: dict[str, Any]) -> list[dict[str, Any]]:
    """All trainings that a checkpoint's weights went through, the last one first.

    `info` is its header. A run that began with the weights of another (`ddpm-lite train --init`)
    keeps that one's command, data, seed, step and seconds under "init"; so does that one.
    """
    before = info.get("init")
    return [info, *runs(before)] if isinstance(before, dict) else [info]
