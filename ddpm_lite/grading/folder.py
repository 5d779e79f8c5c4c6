"""The folder of a batch: one set of exercises, closed to others, nobody in it who is not graded."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .. import __version__, files
from .plan import Plan

__all__ = ["about", "claim", "open_folder", "put_aside"]

ABOUT = "batch.json"
KINDS = {"students": ".json", "feedback": ".html", "gradescope": ".json"}


def open_folder(out: Path) -> None:
    """Make the folder, for its owner alone: marks are nobody else's. One that is there stays."""
    if not out.exists():
        out.mkdir(parents=True)
        out.chmod(0o700)


def about(out: Path) -> dict[str, Any]:
    """What batch.json says; {} where there is none."""
    try:
        said = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def claim(out: Path, plan: Plan) -> None:
    """Write batch.json. ValueError where the folder holds the results of other exercises."""
    assert plan.origin is not None
    chapter, answers, _ = plan.origin
    mine = {"chapter": chapter, "answers": list(answers)}
    before = about(out)
    if before and mine != {key: before.get(key) for key in mine}:
        raise ValueError(
            f"{out} holds results of {before.get('chapter')} ({', '.join(before['answers'])}), "
            f"not of {chapter} ({', '.join(answers)}): give each set an --out of its own"
        )
    more = {"isolation": plan.level, "specification": plan.specification, "version": __version__}
    text = json.dumps(mine | more, indent=1, sort_keys=True)
    files.write(out / ABOUT, f"{text}\n".encode())


def put_aside(out: Path, students: Collection[str]) -> list[str]:
    """Move the files of everybody else into `old/`; returns whose those were."""
    gone = set()
    for kind, suffix in KINDS.items():
        for path in sorted((out / kind).glob(f"*{suffix}")):
            if path.stem not in students:
                (out / "old" / kind).mkdir(parents=True, exist_ok=True)
                os.replace(path, out / "old" / kind / path.name)
                gone.add(path.stem)
    return sorted(gone)
