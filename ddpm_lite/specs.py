"""Specs: JSON tables from which models and schedules are made again."""

from __future__ import annotations

import importlib
from typing import Any

from ._container import CheckpointError, one_line
from .schedules import SCHEDULES, from_spec

__all__ = ["CLASSES", "build"]

# Every class that a file may name, and the module that defines it. Nothing else is looked up.
CLASSES = {
    "Denoiser": "diffusion",
    "GatedPixelCNN": "ar.gated",
    "ImageGPT": "ar.transformer",
    "LinearAR": "ar.dense",
    "MADE": "ar.dense",
    "Marginal": "ar.dense",
    "PixelCNN": "ar.conv",
    "Ruler": "ruler",
    "UNet": "unet",
}


def build(spec: dict[str, Any]) -> Any:
    """The model or schedule that a spec describes, freshly initialised.

    A spec is {"class": name, **arguments}; arguments that are specs themselves are built first.
    Raises CheckpointError, listing the known classes, for any other name, and for arguments that
    the class does not take.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("class"), str):
        raise CheckpointError(f'a spec is a table with an entry "class", not {spec!r:.60}')
    name = spec["class"]
    try:
        arguments = {k: _argument(v) for k, v in spec.items() if k != "class"}
        if name in SCHEDULES:
            return from_spec(spec)
        if name in CLASSES:
            module = importlib.import_module(f".{CLASSES[name]}", __package__)
            return getattr(module, name)(**arguments)
    except CheckpointError:
        raise
    except (AttributeError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"cannot build {name} from its spec: {one_line(error)}") from error
    known = ", ".join(sorted([*CLASSES, *SCHEDULES]))
    raise CheckpointError(f"unknown class {name!r} in a spec: known are {known}")


def _argument(value: Any) -> Any:
    """Specs become what they describe, lists (JSON has no tuples) tuples."""
    if isinstance(value, dict):
        return build(value)
    return tuple(map(_argument, value)) if isinstance(value, list) else value
