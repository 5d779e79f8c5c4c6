"""torchvision, wherever it can be imported, and downloads through it."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

from . import files
from ._readers import DataError


def import_torchvision() -> types.ModuleType:
    """Import torchvision, also where its CUDA wheel sits beside a CPU build of torch.

    That pair fails on import because the operator `torchvision::nms` is not registered. Data sets
    and transforms do not need it, so the module that asks for it is replaced by an empty one and
    the import tried again (`torchvision.ops.nms` and `io.read_image` stay unusable). A healthy
    installation is not touched. Raises ImportError where torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported: a second import would return the broken module
    broken = "torchvision._meta_registrations"
    sys.modules[broken] = types.ModuleType(broken)
    return importlib.import_module("torchvision")


def download(dataset: str, folder: str, root: Path) -> None:
    """Fetch torchvision's copy of `dataset`, which it leaves in `folder`, into `root`/`folder`.

    torchvision has the addresses, checksums and a progress bar, but leaves what it was writing
    where it stopped. So it works in a folder aside, and what is whole and checked takes its name.
    Raises DataError; then, and on Ctrl-C, nothing is kept.
    """
    try:
        vision = import_torchvision()
        root.mkdir(parents=True, exist_ok=True)
        with (
            _aside(root) as aside,
            contextlib.redirect_stdout(sys.stderr),  # it prints, and ours may be JSON
        ):
            for train in (True, False):
                getattr(vision.datasets, dataset)(str(aside), train=train, download=True)
            target = root / folder
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rmdir()  # an earlier download may have left it, empty
            (aside / folder).rename(target)
    except ImportError as error:
        raise DataError("downloading needs torchvision: pip install torchvision") from error
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"could not download {dataset} into {root}, nothing was kept: {why}"
        ) from error


@contextlib.contextmanager
def _aside(root: Path) -> Iterator[Path]:
    """A hidden folder in `root` for the block, removed at its end with whatever is left in it.

    Removing thousands of files takes a while: a second Ctrl-C must not stop it half-way.
    """
    made: list[Path] = []
    try:
        with files.uninterrupted():  # else one could come between making it and noting its name
            made.append(Path(tempfile.mkdtemp(dir=root, prefix=".download-")))
        yield made[0]
    finally:
        with files.uninterrupted():
            for folder in made:
                shutil.rmtree(folder, ignore_errors=True)
