"""The folder of a batch: one set of exercises, closed to others, nobody in it who is not graded."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .. import __version__, files
from .plan import Plan

__all__ = ["about", "claim", "open_folder", "put_aside", "refuse_file"]

ABOUT = "batch.json"
KINDS = {"students": ".json", "feedback": ".html", "gradescope": ".json"}
OLD = "old"  # holds the files of who is not graded any more


def refuse_file(out: Path) -> None:
    """ValueError where a file has the name that is to be a folder's."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out {out}: {path} is a file: give the name of a folder")


def open_folder(out: Path, submissions: Path) -> None:
    """Make the folder, for its owner alone: marks are nobody else's. One that is there stays.

    ValueError where results and submissions would mix: the next run would grade the results.
    """
    refuse_file(out)
    handed, mine = submissions.resolve(), out.resolve()
    if mine.is_relative_to(handed):
        raise ValueError(
            f"--out {out} lies in the folder of submissions, {submissions}, and would be graded "
            "as one of them: give a folder outside of it"
        )
    if any(handed.is_relative_to(mine / kind) for kind in (*KINDS, OLD)):
        raise ValueError(
            f"the submissions, {submissions}, lie where --out {out} keeps its own files: "
            "give another --out"
        )
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
                (out / OLD / kind).mkdir(parents=True, exist_ok=True)
                os.replace(path, out / OLD / kind / path.name)
                gone.add(path.stem)
    return sorted(gone)
