"""Grade made-up submissions to chapter 1, for the book to show what the reports look like.

python book/_tools/graded.py

Writes `book/_static/graded/`. The submissions are made of the exercises' own solutions and of the
mistakes that their files know; the random inputs have a fixed key, so that every run gives the
same files. Run it again when an exercise of chapter 1, or a report's form, has changed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddpm_lite import files
from ddpm_lite.cli import main as command
from ddpm_lite.grading import release, source
from ddpm_lite.grading.source import Loaded

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = ROOT / "exercises"
SHOWN = ROOT / "book" / "_static" / "graded"
CHAPTER = "01_factorization"
SECRET = b"in a class of your own this is a secret"
BROKEN = "def bits_per_dim(log_prob, shape:\n    return log_prob\n"

Notebook = dict[str, Any]


def handed_in(exercises: Sequence[Loaded], answers: dict[str, str]) -> Notebook:
    """The students' notebook with these cells in place of the starters."""
    made = release.student(exercises, release.setup_source("", ""))
    for cell in made["cells"]:
        name = cell["id"].removesuffix("-code")
        if cell["cell_type"] == "code" and name in answers:
            cell["source"] = answers[name].splitlines(keepends=True)
    return made


def mistaken(exercise: Loaded, hint: str) -> str:
    """The first of the known mistakes that gets this hint, as code."""
    return exercise.mutated(next(m for m in exercise.spec.mutants if m.hint == hint))


def submissions(exercises: Sequence[Loaded]) -> dict[str, Notebook | str]:
    """File name -> what it holds. Names are numbers: nobody is meant."""
    named = {e.name: e for e in exercises}
    right = {e.name: e.solved for e in exercises if e.spec.checks}
    other = {e.name: e.spec.rights[0] for e in exercises if e.spec.checks}
    nats = mistaken(named["bits_per_dim"], "nats")
    unstable = mistaken(named["chain_rule"], "stable")
    made = {
        "s01": right,
        "s02": other | {"bits_per_dim": "%matplotlib inline\n" + other["bits_per_dim"]},
        "s03": right | {"bits_per_dim": nats, "chain_rule": unstable},
        "s04": {"bits_per_dim": nats, "chain_rule": right["chain_rule"]},
        "s05": right | {"bits_per_dim": BROKEN, "chain_rule": _looping(right["chain_rule"])},
        "s06": {},
    }
    books = {f"{name}.ipynb": handed_in(exercises, cells) for name, cells in made.items()}
    return {
        **books,
        "s07.ipynb": "%PDF-1.7 the wrong file",
        "=HYPERLINK(1).ipynb": books["s01.ipynb"],
    }


def _looping(solved: str) -> str:
    head, sep, body = solved.partition('in nats, [B]."""\n')
    if not sep:
        raise SystemExit("chain_rule has changed: its loop cannot be planted")
    return f"{head}{sep}    while True:\n        pass\n{body}"


def grade(out: Path) -> list[dict[str, Any]]:
    """Grade them into a folder with the real command; returns the results."""
    exercises = source.read_all(EXERCISES, CHAPTER)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for name, content in submissions(exercises).items():
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            files.write(top / "submitted" / name, text.encode())
        files.write(top / "secret", SECRET)
        words = ["grade", str(top / "submitted"), "--chapter", CHAPTER, "--out", str(out)]
        words += ["--exercises", str(EXERCISES), "--secret", str(top / "secret")]
        if command(words):
            raise SystemExit("the submissions were not graded")
    return [json.loads(p.read_text()) for p in sorted((out / "students").glob("*.json"))]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        grade(Path(folder))
        shutil.rmtree(SHOWN, ignore_errors=True)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.name != "secret":
                files.write(SHOWN / path.relative_to(folder), path.read_bytes())
    print(SHOWN.relative_to(ROOT).as_posix())
    return 0


if __name__ == "__main__":
    sys.exit(main())
