"""What keeps a lecturer from slips: sets told apart, folders of their own, notes, a roster."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm_lite.cli import grade, main
from ddpm_lite.cli.release import _once
from ddpm_lite.grading import folder, notebook, pages, plan, release, reports, source, words
from ddpm_lite.grading.identity import KEY, Origin, foreign, identity, origin
from ddpm_lite.grading.notebook import Left, Submission
from ddpm_lite.grading.roster import read_roster
from ddpm_lite.grading.source import Loaded

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = ROOT / "exercises"
CHAPTER = "01_factorization"


@pytest.fixture
def exercises(tmp_path: Path) -> Path:
    """A private folder with one exercise, which has a variant."""
    top = tmp_path / "private"
    (top / CHAPTER).mkdir(parents=True)
    text = (EXERCISES / CHAPTER / "bits_per_dim.py").read_text(encoding="utf-8")
    text, found = re.subn(r'"bits_per_pixel", "code_length"', '"loss_in_bits"', text)
    text = text.replace('vary={"bits_per_dim": ["bits_per_dim", ', 'vary={"bits_per_dim": [')
    assert found == 1
    (top / CHAPTER / "bits_per_dim.py").write_text(text, encoding="utf-8")
    return top


@pytest.fixture
def bits(exercises: Path) -> list[Loaded]:
    return source.read_all(exercises, CHAPTER)


def result(**more: Any) -> dict[str, Any]:
    """A result in full, as `plan` makes it, of one exercise with one check."""
    check = {"title": "values", "points": 2, "of": 2, "verdict": "pass", "property": "", "hint": ""}
    row = {"name": "a", "title": "A", "points": 2, "of": 2, "verdict": "pass", "say": ""}
    row = {**row, "broken": [], "left_out": [], "unchanged": False}
    wrong = {key: more.pop(key) for key in ("verdict", "property", "hint") if key in more}
    if wrong:
        wrong["points"] = 0
    marks = {key: more.pop(key) for key in ("broken", "left_out", "unchanged") if key in more}
    row = {**row, **marks, **{k: wrong[k] for k in ("verdict", "points") if k in wrong}}
    row["checks"] = [{**check, **wrong, "say": wrong.get("hint", "")}]
    rest = {"student": "s", "chapter": CHAPTER, "isolation": "A", "final": True, "unreadable": ""}
    rest |= {"foreign": "", "outdated": False, "file": "s.ipynb", "others": []}
    return {**rest, "points": row["points"], "of": 2, "exercises": [row], **more}


# ---- which exercises a notebook was made from


def test_a_released_notebook_says_what_it_was_made_from(bits: list[Loaded]) -> None:
    made = [make(bits, "") for make in (release.student, release.solutions, release.instructor)]
    for one in made:
        assert origin(one["metadata"]) == identity(bits)
    assert made[0] == release.student(bits, "")
    assert identity(bits).answers == ("bits_per_dim",)


def test_a_course_notebook_says_so_too() -> None:
    for path in sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb")):
        said = origin(json.loads(path.read_text(encoding="utf-8"))["metadata"])
        assert said == identity(source.read_all(EXERCISES, path.stem)), "ddpm-lite release --course"


def test_a_mended_check_leaves_the_set_as_it_is_and_another_variant_does_not(
    exercises: Path, bits: list[Loaded]
) -> None:
    mine = identity(bits)
    other = identity(source.read_all(exercises, CHAPTER, "autumn"))
    assert other.answers != mine.answers and "does not ask for" in foreign(other, mine)
    assert "02" in foreign(mine._replace(chapter="02_x"), mine)
    assert foreign(None, mine) == foreign(mine, mine) == ""
    more = mine._replace(answers=(*mine.answers, "chain_rule"))
    assert foreign(more, mine) == ""  # who assigns a part grades that part
    path = exercises / CHAPTER / "bits_per_dim.py"
    path.write_text(path.read_text().replace("points=2", "points=3"))
    assert identity(source.read_all(exercises, CHAPTER)) == mine
    path.write_text(path.read_text().replace('"""# ', '"""# Anew: '))
    changed = identity(source.read_all(exercises, CHAPTER))
    assert changed != mine and foreign(mine, changed) == ""


@pytest.mark.parametrize(
    "said",
    [
        None,
        7,
        {},
        {"chapter": "a", "answers": "b", "texts": "c"},
        {"chapter": "a", "answers": ["b"] * 51, "texts": "c"},
        {"chapter": "a" * 81, "answers": ["b"], "texts": "c"},
        {"chapter": "a\x1b[31m", "answers": ["b"], "texts": "c"},
        {"chapter": "\ud800", "answers": ["b"], "texts": "c"},
        {"chapter": "a", "answers": [["b"]], "texts": "c"},
    ],
)
def test_whatever_a_student_writes_there_is_no_error(said: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [], "metadata": {KEY: said}}))
    opened = notebook.open_submission(path)
    assert opened.origin is None and opened.why == ""
    path.write_text(json.dumps({"cells": [], "metadata": [said]}))
    assert notebook.open_submission(path).origin is None


def test_a_forgotten_variant_gives_nobody_a_zero(
    tmp_path: Path, exercises: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    words_of = ["--exercises", str(exercises)]
    made = tmp_path / "released"
    assert main(["release", *words_of, "--out", str(made), "--variant", "autumn"]) == 0
    told = capsys.readouterr().out
    assert f"{CHAPTER}/bits_per_dim: bits_per_dim is called loss_in_bits" in told
    assert ".whl" in told or "wheel" in told  # no address: Gradescope would find no package
    for name in ("s1", "s2"):
        files = tmp_path / "in" / f"{name}.ipynb"
        files.parent.mkdir(exist_ok=True)
        shutil.copy(made / "solutions" / f"{CHAPTER}.ipynb", files)
    how = ["--insecure"] if level == "C" else ["--isolation", level]
    words_of += ["grade", str(tmp_path / "in"), "--chapter", CHAPTER, *how]
    words_of = [*words_of[2:], *words_of[:2]]
    assert main([*words_of, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().out
    assert "0 of 2 graded" in told and "the right --variant?" in told
    rows = list(csv.DictReader((tmp_path / "out" / "grades.csv").open()))
    assert [row["score"] for row in rows] == ["", ""]
    assert all("does not ask for bits_per_dim" in row["note"] for row in rows)
    right = ["--out", str(tmp_path / "right"), "--variant", "autumn"]
    assert main([*words_of, *right]) == 0
    assert "2 of 2 graded" in capsys.readouterr().out
    assert main([*words_of, "--out", str(tmp_path / "right")]) == 2  # a folder of another set
    assert "loss_in_bits" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "right" / "grades.csv").open()))
    assert [row["score"] for row in rows] == ["4", "4"]


# ---- folders


def test_a_folder_belongs_to_one_set(tmp_path: Path, bits: list[Loaded]) -> None:
    first = plan.plan_of(bits, secret=b"", level="A")
    out = tmp_path / "graded"
    folder.open_folder(out, tmp_path / "submitted")
    assert out.stat().st_mode & 0o777 == 0o700
    folder.claim(out, first)
    folder.claim(out, first._replace(level="B", seconds=9.0))
    for other in (Origin("02_x", ("bits_per_dim",), ""), Origin(CHAPTER, ("chain_rule",), "")):
        with pytest.raises(ValueError, match="an --out of its own"):
            folder.claim(out, first._replace(origin=other))
    assert folder.about(out)["answers"] == ["bits_per_dim"]


def test_who_withdrew_is_put_aside_and_not_lost(tmp_path: Path) -> None:
    for kind, suffix in folder.KINDS.items():
        for name in ("s1", "s2"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{name}{suffix}").write_text(name)
    assert folder.put_aside(tmp_path, {"s1"}) == ["s2"]
    assert folder.put_aside(tmp_path, {"s1"}) == []
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    here = {f"{kind}/s1{suffix}" for kind, suffix in folder.KINDS.items()}
    assert left == here | {f"old/{kind}/s2{suffix}" for kind, suffix in folder.KINDS.items()}


def test_release_mixes_no_sets(
    tmp_path: Path, exercises: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words_of = ["release", "--exercises", str(exercises), "--out", str(tmp_path / "out")]
    assert main(words_of) == 0
    assert main(words_of) == 0
    made = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    capsys.readouterr()
    assert main([*words_of, "--variant", "autumn"]) == 2
    assert "an --out of its own" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")} == made


@pytest.mark.parametrize(
    ("out", "said"), [("", "the name is empty"), ("a", "a is a file"), ("a/b", "a is a file")]
)
def test_a_release_needs_a_folder(
    out: str,
    said: str,
    tmp_path: Path,
    exercises: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["release", "--exercises", str(exercises), "--out", out]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop", [full, interrupt])
@pytest.mark.parametrize("course", [False, True])
def test_a_release_is_written_whole_or_not_at_all(
    stop: Callable[[], None],
    course: bool,
    tmp_path: Path,
    exercises: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever file it is at which the disk is full or Ctrl-C comes."""
    out, numbers = tmp_path / "out", tmp_path / "numbers"
    text = (exercises / CHAPTER / "bits_per_dim.py").read_text(encoding="utf-8")
    path = Path(CHAPTER, "bits_per_dim.py")
    loaded = [source.parse(text.replace("points=2", f"points={n}"), path) for n in (2, 3)]

    def write(e: Loaded) -> None:
        how = (False, numbers) if course else (True, None)
        release.write_all({CHAPTER: [e]}, out, tmp_path / "course.toml", *how)

    def there() -> dict[str, bytes]:
        every = [p for folder in (out, numbers) for p in folder.rglob("*") if p.is_file()]
        return {str(p.relative_to(tmp_path)): p.read_bytes() for p in every}

    true, calls = os.fsync, 0

    def stopping(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            stop()
        true(handle)

    write(loaded[1])
    new = there()
    at, ends = 0, 0
    assert len(new) == (2 if course else 6)
    monkeypatch.setattr(os, "fsync", stopping)
    for first in (None, loaded[0]):  # into an empty folder, and over an earlier release
        for number in range(1, len(new) + 1):
            at, calls = 0, 0
            shutil.rmtree(out)
            shutil.rmtree(numbers, ignore_errors=True)
            if first:
                write(first)
            before = there()
            assert before != new
            at, calls = number, 0
            with pytest.raises((OSError, KeyboardInterrupt)):
                write(loaded[1])
            assert there() == (before if stop is full else new)
            ends += 1
    assert ends == 2 * len(new)


def test_gradescopes_folder_keeps_no_exercise_of_before(tmp_path: Path, bits: list[Loaded]) -> None:
    from ddpm_lite.grading.autograder import write_autograder

    old = tmp_path / "exercises" / CHAPTER / "old.py"
    old.parent.mkdir(parents=True)
    for path in (old, tmp_path / "ddpm_lite.whl", tmp_path / "secret"):
        path.write_text("x")
    write_autograder(bits, tmp_path, "")
    assert not old.exists() and (tmp_path / "ddpm_lite.whl").exists()
    assert (tmp_path / "secret").exists()
    setup = (tmp_path / "setup.sh").read_text(encoding="utf-8")
    found = next(line for line in setup.split("\n") if line.startswith("ls "))
    found = found.replace("/autograder/source", str(tmp_path))
    assert subprocess.run(["bash", "-c", found], capture_output=True).returncode == 0
    (tmp_path / "ddpm_lite.whl").unlink()
    told = subprocess.run(["bash", "-c", found], capture_output=True, text=True)
    assert told.returncode == 1 and "wheel" in told.stdout


# ---- what reports say


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"unreadable": "several notebooks", "others": ["a", "b"], "file": ""}, "handed in: a, b"),
        ({"others": ["a (1).ipynb"]}, "not looked at: a (1).ipynb"),
        ({"broken": [5]}, "syntax error in code cell 5"),
        ({"foreign": "the notebook of 02"}, "not graded: the notebook of 02"),
        ({"outdated": True}, "made from other texts"),
        ({"verdict": "timeout", "property": "runs", "hint": "time"}, "timeout: a"),
        ({"verdict": "exception", "property": "exists", "hint": "exists"}, "another chapter"),
        ({"verdict": "exception", "property": "runs", "hint": "unwritten"}, "as given out: a"),
        ({"verdict": "wrong", "hint": "x", "unchanged": True, "property": ""}, "as given out: a"),
        ({"verdict": "wrong", "hint": "x", "left_out": [2], "property": ""}, "code left out"),
        ({"final": False}, "grader error"),
    ],
)
def test_notes(more: dict[str, Any], said: str) -> None:
    told = words.note(result(**more))
    assert said in told and bool(said) == bool(told)


def test_a_student_reads_no_jargon() -> None:
    one = result(verdict="exception", property="runs", hint="runs", broken=[3])
    text = pages.student_page(one, "2026-01-02")
    assert "does not run: runs" in text and "Syntax error in code cell 3" in text
    assert "exception" not in text and "on 2026-01-02" in text and "s.ipynb" in text
    assert "Exercises 1: factorization" in text
    shown = reports.gradescope(result(unreadable="no notebook", others=["a.zip"], file=""))
    assert "There is no notebook" in shown["output"] and "a.zip" in shown["output"]


def test_what_was_given_is_no_misconception(bits: list[Loaded]) -> None:
    (e,) = bits
    assert plan.unchanged(e, ["import torch", e.starter + "\n"])
    assert not plan.unchanged(e, ["import torch"])
    assert not plan.unchanged(e, [e.starter.replace("raise NotImplementedError", "return 1")])
    assert not plan.unchanged(e, [e.starter, e.solved])  # mended in a cell of one's own
    assert not plan.unchanged(e, [e.starter, "bits_per_dim = mine"])
    given = result(verdict="wrong", property="values", hint="leak", unchanged=True)
    tried = result(verdict="wrong", property="values", hint="leak")
    raised = result(verdict="exception", property="runs", hint="runs")
    told = reports.summary([given, tried, tried, raised])
    assert [(m["hint"], m["students"]) for m in told["misconceptions"]] == [("leak", 2)]
    assert {m["hint"] for m in told["not_run"]} == {"unchanged", "runs"}


def test_hints_given_once_are_folded() -> None:
    often, once = (result(verdict="wrong", property="values", hint=h) for h in ("often", "once"))
    every = [often, often, once]
    page = pages.class_page(every, reports.summary(every))
    assert page.index("often") < page.index("<details>") < page.index("<td>once")
    assert "<details>" not in pages.class_page([once], reports.summary([once]))


# ---- a class's list


def test_the_roster_is_joined(tmp_path: Path) -> None:
    path = tmp_path / "class.csv"
    path.write_text(
        "﻿Last_name;student;email\nO'Brien;Sean O'Brien;s@x\nLee;lee;l@x\nNo;none;n@x\n",
        encoding="utf-8",
    )
    people = read_roster(path)
    assert people.find("Sean O'Brien_12347_assignsubmission_file_") == "Sean O'Brien"
    assert people.find("leeds") == ""
    names = ("Sean O'Brien_12347_assignsubmission_file_", "lee", "stranger")
    every = [result(student=name) for name in names]
    reports.tables(every, tmp_path, [Left("x.zip", "not a notebook: unpack it")], people)
    rows = list(csv.DictReader((tmp_path / "grades.csv").open()))
    assert [(r["score"], r["note"], r["email"]) for r in rows] == [
        ("2", "", "s@x"),
        ("2", "", "l@x"),
        ("2", "not on the roster", ""),
        ("", "not graded: not a notebook: unpack it", ""),
        ("", "handed nothing in", "n@x"),
    ]
    rows = list(csv.DictReader((tmp_path / "nbgrader.csv").open()))
    assert [r["student_id"] for r in rows] == ["Sean O'Brien", "lee", "stranger"]
    assert rows[0]["email"] == "s@x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "nobody"),
        (b"student\n", "nobody"),
        (b"student\na\na\n", "twice"),
        (b"\xff\xfe", "UTF"),
    ],
)
def test_a_roster_that_is_none(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(text)
    with pytest.raises(ValueError, match=said):
        read_roster(tmp_path / "c.csv")


# ---- the commands


def test_chapters_are_told_by_names_anywhere(tmp_path: Path) -> None:
    known = [CHAPTER, "02_pixelcnn"]
    (tmp_path / f"{CHAPTER} (1).ipynb").write_text("")
    assert grade._chapter(tmp_path, known) == CHAPTER
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "02_pixelcnn.ipynb").write_text("")
    with pytest.raises(ValueError, match=f"notebooks of {CHAPTER} and 02_pixelcnn"):
        grade._chapter(tmp_path, known)


BAR = """
from ddpm_lite.cli import grade
with grade._progress(12) as told:
    told(0, 12)
    told(5, 12)
    raise KeyboardInterrupt
"""


def test_the_bar_is_seen_on_any_terminal() -> None:
    """Even on one that does not know how wide it is, like a fresh pty."""
    ours, theirs = os.openpty()
    around = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    subprocess.run([sys.executable, "-c", BAR], stderr=theirs, env=around, timeout=120)
    os.close(theirs)
    said = os.read(ours, 20_000).decode()
    os.close(ours)
    assert "testing this machine" in said and "grading" in said and "5/12" in said
    assert "5 of 12 are graded and kept: the same command goes on" in said


def test_a_problem_is_told_once() -> None:
    wrong = ["key 1: m", "key 1: n", "key 2: m", "key 3: m", "a: the mutant's text"]
    assert _once("a", wrong) == ["key 1: m (keys 2, 3 too)", "key 1: n", "the mutant's text"]


def test_the_plan_of_two_weeks_can_be_copied_from_the_page() -> None:
    weeks = yaml.safe_load((ROOT / "book" / "plans.yml").read_text(encoding="utf-8"))[2]
    page = (ROOT / "book" / "instructor.md").read_text(encoding="utf-8")
    for number, week in enumerate(weeks, 1):
        line = f"cp exercises/*/{{{','.join(week['exercises'])}}}.py autumn/{number:02}_week/"
        assert line in page
        assert all(list(EXERCISES.glob(f"*/{name}.py")) for name in week["exercises"])


def test_a_submission_says_where_it_came_from(bits: list[Loaded]) -> None:
    the_plan = plan.plan_of(bits, secret=b"", level="A")
    handed = Submission("h", origin=Origin("02_x", (), ""), file="s/a.ipynb", others=("b",))
    made = plan._result(the_plan, bits, None, plan.Job("s", handed))  # type: ignore[arg-type]
    assert (made["points"], made["of"], made["final"]) == (None, 4, True)
    assert (made["file"], made["others"], made["exercises"]) == ("s/a.ipynb", ["b"], [])
