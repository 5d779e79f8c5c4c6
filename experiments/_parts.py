"""The command line of an experiment in parts: `python experiments/NAME.py [PART ...]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parents[1]


def run_parts(parts: Mapping[str, Callable[[], None]], usual: Iterable[str] | None = None) -> None:
    """Run the parts that the command line names; without a name the usual ones (default all).

    On one thread, so that sums do not depend on the machine's cores. What is recorded goes into
    the committed results. Exits with a line that lists the parts if a name is unknown.
    """
    os.environ["DDPM_LITE_RESULTS"] = str(HERE / "ddpm_lite" / "results")
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or list(parts if usual is None else usual)
    if unknown := set(wanted) - set(parts):
        raise SystemExit(f"unknown part {', '.join(unknown)}: choose from {', '.join(parts)}")
    for part in wanted:
        parts[part]()
