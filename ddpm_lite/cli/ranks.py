"""The processes of torchrun: joining them, and telling a mistake of theirs once."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .common import device

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_NUMBER = re.compile("[0-9]{1,9}")


class Told(Exception):
    """What ends this process is told by the first one, or was told: say nothing, exit with code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class PeerEnded(RuntimeError):
    """Another process of the run is gone, so this one cannot go on."""

    def __init__(self) -> None:
        super().__init__(
            "stopped, because another process of this run ended or torchrun was told to stop; "
            "what was saved goes on with --resume"
        )


def rank() -> int:
    """0 is the first process, or the only one."""
    return _told("RANK", 0)


def local_rank() -> int:
    """This process's number on its machine."""
    return _told("LOCAL_RANK", 0)


def count() -> int:
    return _told("WORLD_SIZE", 1)


def _told(name: str, alone: int) -> int:
    """torchrun's number in the environment; `alone` where it is none, so that errors can be told"""
    text = os.environ.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else alone


def check() -> None:
    """ValueError where the environment holds what torchrun cannot have put there."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        text = os.environ.get(name, "0")
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{name}={text!r} is no number of a process: unset {name}, which "
                             "torchrun sets")  # fmt: skip
    if rank() >= count():
        raise ValueError(f"RANK={rank()} must be below WORLD_SIZE={count()}: unset both, which "
                         "torchrun sets")  # fmt: skip


def place(name: str) -> torch.device:
    """The device of this process; ValueError where there are more processes than GPUs."""
    import torch

    where = device(name)
    if where.type == "cpu" or count() == 1:
        return where
    there = torch.cuda.device_count()
    if local_rank() >= there:
        raise ValueError(
            f"more processes than CUDA devices: use --nproc-per-node {there}, or --device cpu"
        )
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes of torchrun, so that none of them waits for one that has ended.

    What all of them meet (a diverging loss, Ctrl-C) is told by the first; the end of a process, by
    the others. Does nothing where torchrun did not start this process.
    """
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    import torch
    from torch import distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    before = signal.signal(signal.SIGTERM, _stop)  # torchrun's way to end those that are left
    try:
        yield
    except (FloatingPointError, KeyboardInterrupt) as error:
        if rank() == 0:
            raise
        raise Told(1 if isinstance(error, FloatingPointError) else 130) from error
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "gloo" in str(error)
        if lost and not isinstance(error, PeerEnded):
            raise PeerEnded from error
        raise
    else:
        dist.destroy_process_group()  # only here: it would wait for processes that are gone
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise PeerEnded


def together(work: Callable[[], T], same: Callable[[T], Any] = lambda _: None) -> T:
    """What `work()` gives, where it succeeds in all processes and `same` of it is equal in all.

    Otherwise all end together: the first raises the first mistake, the others say nothing.
    """
    from torch import distributed as dist

    if not dist.is_initialized():
        return work()
    mine: Exception | None = None
    fact = None
    try:
        done = work()
        fact = same(done)
    except (ValueError, OSError, ImportError) as error:
        mine = error
    told: list[tuple[str | None, Any]] = [(None, None)] * count()
    dist.all_gather_object(told, (None if mine is None else str(mine) or repr(mine), fact))
    wrong = next((r for r, (message, _) in enumerate(told) if message is not None), None)
    if wrong is None:
        wrong = next((r for r, (_, theirs) in enumerate(told) if theirs != told[0][1]), None)
        if wrong is None:
            return done
        mine = ValueError(
            f"process {wrong} has {told[wrong][1]}, the first {told[0][1]}: "
            "all of them must find the same data and the same --out"
        )
    if rank() > 0:
        raise Told(2)
    raise mine or ValueError(f"process {wrong}: {told[wrong][0]}")
