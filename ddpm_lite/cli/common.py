"""What the commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import nn


DATA = "digits (default), mnist, fashion_mnist, cifar10, cifar10-cats or folder:PATH"


class Answer(NamedTuple):
    """What a command has to say, as data (--json) and as text, and its exit code.

    Without data nothing is printed: all processes of torchrun but the first.
    """

    data: dict[str, Any]
    text: str
    code: int = 0


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=whole, default=0, help="of every random draw (default 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", help="where the data sets lie (default $DDPM_LITE_DATA)")
    parser.add_argument("--download", action="store_true", help="fetch what is missing there")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sampler", help="of a diffusion model (default dpmpp_2m)")
    parser.add_argument("--steps", type=positive, help="of a diffusion model (default 20)")
    parser.add_argument("--temperature", type=float, help="of an autoregressive model")


def whole(text: str) -> int:
    """A number 0, 1, 2, …"""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def positive(text: str) -> int:
    """A number 1, 2, 3, …"""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def device(name: str) -> torch.device:
    from .. import require

    return require.device(name)


@contextmanager
def stated(model: str) -> Iterator[None]:
    """Read inside what a checkpoint says of itself: a file may say anything."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{model}: what it says of itself cannot be used ({type(error).__name__}: {error}): "
            "was it saved by another program or version?"
        ) from error


def refuse_foreign(args: argparse.Namespace, diffusion: bool) -> None:
    """ValueError for an option of the other family, which would be passed over in silence."""
    family, foreign = "autoregressive", ["sampler", "steps", "guidance", "first", "levels"]
    if diffusion:
        family, foreign = "diffusion", ["temperature"]
    for option in foreign:
        if getattr(args, option, None) is not None:
            raise ValueError(f"--{option} means nothing to {args.model}, which is {family}")


def writable(path: str, suffix: str, option: str = "--out") -> Path:
    """`path`, found out to be one that can be written before any work is done for it."""
    target = Path(path)
    if target.suffix != suffix:
        raise ValueError(f"{option} {path}: the name must end in {suffix}")
    if target.is_dir():
        raise ValueError(f"{option} {path} is a directory: give the name of a file")
    return placeable(target, option)


def placeable(target: Path, option: str = "--out") -> Path:
    """`target`, which may be made: the nearest folder above it that is there can be written in."""
    import os

    folder = next(p for p in target.absolute().parents if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {target}: cannot write in {folder}")
    return target


def start_from(name: str, model: nn.Module) -> dict[str, Any]:
    """Take over the weights of a checkpoint: afterwards `model` computes what its model does.

    Returns where they come from, for the new checkpoint to state: the file may be gone one day.
    """
    from .. import checkpoint

    source = checkpoint.pretrained(name)
    given, mine = source.state_dict(), model.state_dict()
    known = all(key in mine and mine[key].shape == given[key].shape for key in given)
    silent = not any(mine[key].any() for key in mine if key not in given)
    if type(model) is not type(source) or not known or not silent:
        raise ValueError(f"--init {name} is another architecture: {source.spec}")
    model.load_state_dict(given, strict=False)
    kept = ("command", "data", "seed", "step", "seconds", "hardware", "init")
    about: dict[str, Any] = source.info  # type: ignore[assignment]
    return {"model": name} | {key: about.get(key) for key in kept}
