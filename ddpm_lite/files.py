"""Files are written aside and then renamed: a reader sees the old file or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write"]


def write(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path`, whole or not at all.

    The bytes go to a temporary file in the same directory, which then takes the name by
    `os.replace`. Whatever stops the writing (a full disk, Ctrl-C), the temporary file is removed
    and what `path` held before is still there. Missing parent directories are made.

    Raises OSError where the target cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file")
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes do
        os.chmod(aside, 0o666 & ~_umask())  # mkstemp makes private files; these are ordinary ones
        os.replace(aside, path)
    except BaseException:  # KeyboardInterrupt too
        Path(aside).unlink(missing_ok=True)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
