"""Files are written aside and then renamed: a reader sees the old file or the new one."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["naming", "uninterrupted", "write", "write_all"]

Name = str | os.PathLike[str]


def write(path: Name, data: bytes) -> Path:
    """Write `data` to `path`, whole or not at all.

    The bytes go to a temporary file in the same directory, which then takes the name by
    `os.replace`. Whatever stops the writing (a full disk, Ctrl-C), the temporary file is removed
    and what `path` held before is still there. Missing parent directories are made.

    Raises OSError, naming the file, where the target cannot be written.
    """
    write_all({path: data})
    return Path(path)


def write_all(contents: Mapping[Name, bytes]) -> None:
    """Write several files that belong together: all are whole on the disk before one is renamed."""
    parts: dict[Path, str] = {}
    with uninterrupted():
        try:
            for name, data in contents.items():
                path = Path(name)
                with naming(path):
                    parts[path] = _aside(path, data)
            for path, part in parts.items():
                with naming(path):
                    os.replace(part, path)
        except BaseException:
            for part in parts.values():
                Path(part).unlink(missing_ok=True)
            raise


def _aside(path: Path, data: bytes) -> str:
    """The name of a file beside `path` that holds `data`; after an error nothing is left of it."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory, give the name of a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes do
        os.chmod(part, 0o666 & ~_umask())  # mkstemp makes private files; these are ordinary ones
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return part


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError inside speaks of `path`, not of a temporary file or of no file at all."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done: between making a file and cleaning up it would leave
    it behind. (Another thread than the main one is never interrupted.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *signalled: waiting.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting and callable(before):
            before(*waiting[-1])


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
