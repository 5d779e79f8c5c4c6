"""README says what is true today."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_tools"))
from checkpoints import CHECKPOINTS, END, README, START, row, written  # noqa: E402


def test_the_table_of_checkpoints_is_the_one_their_files_give() -> None:
    text = README.read_text(encoding="utf-8")
    assert written(text) == text, "run `make table`"
    inside = text.partition(START)[2].partition(END)[0]
    for path in CHECKPOINTS.glob("*.json"):
        if json.loads(path.read_text(encoding="utf-8"))["spec"]["class"] != "Ruler":
            assert f"`ddpm-lite evaluate --model {path.stem}`" in inside


def test_a_changed_figure_changes_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    planted = text.replace("1.8", "1.7", 1)
    assert planted != text and written(planted) == text
    about = json.loads((CHECKPOINTS / "digits-gated.json").read_text(encoding="utf-8"))
    about["metrics"]["likelihood"]["kind"] = "bound"
    assert "≤ " in row("digits-gated", about)
    del about["metrics"]
    assert "| – | – | – |" in row("digits-gated", about)


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="needs the lines"):
        written("no marks here")
