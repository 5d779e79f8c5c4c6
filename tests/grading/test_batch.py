"""A class's submissions: files that are none, resume, kill, workers, a cluster, reports."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import FULL, GOOD, WRONG, during

from ddpm_lite.cli import main
from ddpm_lite.grading import batch, judge, notebook, pages, plan, reports, roster, source
from ddpm_lite.grading.execute import Outcome

EXERCISES = Path(__file__).resolve().parents[2] / "exercises"
CHAPTER = "01_factorization"
HOW = ["--insecure", "--chapter", CHAPTER]  # none of these comes to run anything
SECRET = "0123456789abcdef"
ELSEWHERE = {"chapter": "02_pixelcnn", "answers": ["colour_mask"], "texts": "0"}
DEE_NOTE = (
    "syntax error in code cell 1; "
    "none of the functions is defined: another chapter, or another variant?"
)


def cells(*sources: Any, **more: Any) -> dict[str, Any]:
    rows = [{"cell_type": "code", "source": s, "metadata": {}, "outputs": []} for s in sources]
    return {"cells": rows, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}


def write(folder: Path, student: str, *sources: Any, **more: Any) -> Path:
    path = folder / f"{student}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cells(*sources, **more)), encoding="utf-8")
    return path


@pytest.fixture
def exercises(tmp_path: Path) -> Path:
    """A private folder with one exercise: a batch of it takes seconds."""
    folder = tmp_path / "private"
    (folder / CHAPTER).mkdir(parents=True)
    shutil.copy(EXERCISES / CHAPTER / "bits_per_dim.py", folder / CHAPTER)
    return folder


@pytest.fixture
def run(exercises: Path, level: str) -> Callable[..., int]:
    def grade(folder: Path, out: Path, *words: str) -> int:
        given = ["--exercises", str(exercises), "--chapter", CHAPTER, "--out", str(out)]
        how = ["--insecure"] if level == "C" else ["--isolation", level]  # tame code only
        return main(["grade", str(folder), *given, *how, *words])

    return grade


def results(out: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in sorted((out / "students").glob("*.json"))}


# ---- files


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"print(1)", "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (json.dumps(cells(GOOD)).encode("utf-16"), "UTF-8"),
        (json.dumps({"worksheets": [], "nbformat": 3}).encode(), "old notebook format"),
        (b"{}", "not a notebook"),
        (b'{"cells": {}}', "not a notebook"),
        (json.dumps(cells({"a": 1})).encode(), "not a notebook"),
        (json.dumps(cells("x = 1\n" * 200_000)).encode(), "too much code"),
        (b" " * 5_000_001, "5 MB"),
    ],
)
def test_what_is_no_notebook_is_ungradable(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(data)
    opened = notebook.open_submission(path)
    assert why in opened.why and opened.cells == ()


def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    real = write(tmp_path, "real", GOOD)
    (tmp_path / "link.ipynb").symlink_to(real)
    os.mkfifo(tmp_path / "fifo.ipynb")
    assert "link" in notebook.open_submission(tmp_path / "link.ipynb").why
    assert "regular" in notebook.open_submission(tmp_path / "fifo.ipynb").why
    assert notebook.open_submission(real).cells == (GOOD,)
    (tmp_path / "away").symlink_to("/")
    found, _ = notebook.collect(tmp_path, CHAPTER)
    opened = {f.student: notebook.open_submission(f.path) for f in found if f.path}
    assert opened["away"].why and opened["link"].why and not opened["real"].why


def test_odd_names_are_told_with_what_to_do(tmp_path: Path) -> None:
    odd = ["<b>x</b>".replace("/", "∕"), "=cmd()", "-rf", "a\x1b[31m", "new\nline", "x" * 220]
    for name in [*odd, "anna", "Anna", ".hidden"]:
        write(tmp_path, name, GOOD)
    (tmp_path / ".DS_Store").write_text("")
    found, left = notebook.collect(tmp_path, CHAPTER)
    assert [f.student for f in found] == ["Anna"]
    why = {name.removesuffix(".ipynb"): said for name, said in left}
    assert {*why} == {*odd, "anna", ".hidden"}
    assert "Anna.ipynb" in why["anna"]  # names that differ in case share a file on some systems
    assert "too long" in why["x" * 220] and "allowed" in why["=cmd()"] and "rename" in why["-rf"]


@pytest.mark.parametrize(
    "name",
    [
        "Sean O'Brien_12347_assignsubmission_file_",
        "Sean O’Brien",
        "Lee (exchange)",
        "s14_dup (1)",
        "'t Hooft, G.",
        "Jose\u0301 Nu\u0301n\u0303ez",  # as macOS writes them
        "नीलम शर्मा",
        "a [group 3] & b",
    ],
)
def test_names_that_people_and_platforms_give_are_taken(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, GOOD)
    write(tmp_path / f"{name}_folder", "hw", GOOD)
    found, left = notebook.collect(tmp_path, CHAPTER)
    assert left == [] and len(found) == 2 and all(f.path for f in found)
    for f in found:  # and reports can be called like them
        batch.files.write(tmp_path / "out" / f"{f.student}.json", b"")


def test_nothing_vanishes(tmp_path: Path) -> None:
    for name in ("s13.zip", "s19.pdf", "s20.tar.gz", "s21"):
        (tmp_path / name).write_text("x")
    write(tmp_path, "s14", GOOD)
    write(tmp_path / "s14", "other", GOOD)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "s15").mkdir()
    (tmp_path / "s15" / "work.zip").write_text("x")
    found, left = notebook.collect(tmp_path, CHAPTER)
    assert {f.student: (f.why, f.others) for f in found} == {
        "s14": ("", ()),
        "s15": ("no notebook", ("work.zip",)),
    }
    why = dict(left)
    assert {*why} == {"s13.zip", "s14.ipynb", "s19.pdf", "s20.tar.gz", "s21"}
    assert "unpack" in why["s13.zip"] and "unpack" in why["s20.tar.gz"]
    assert "unpack" not in why["s19.pdf"] and "the same student as s14" in why["s14.ipynb"]


def test_layouts(tmp_path: Path) -> None:
    write(tmp_path / "a", CHAPTER, GOOD)
    write(tmp_path / "b" / "ps1", CHAPTER, GOOD)  # as nbgrader lays them out
    write(tmp_path / "c", f"{CHAPTER} (1)", GOOD)
    write(tmp_path / "d", "my homework", GOOD)
    write(tmp_path / "e", "one", GOOD)
    write(tmp_path / "e", "two", GOOD)
    (tmp_path / "f").mkdir()
    found = {f.student: f for f in notebook.collect(tmp_path, CHAPTER)[0]}
    assert all(found[name].path for name in "abcd")
    assert (found["e"].why, found["f"].why) == ("several notebooks", "no notebook")
    assert found["e"].others == ("one.ipynb", "two.ipynb")
    assert found["b"].file == f"b/ps1/{CHAPTER}.ipynb"


def test_of_several_notebooks_the_one_named_like_the_chapter_is_taken(tmp_path: Path) -> None:
    for student, names in {
        "a": [CHAPTER, f"{CHAPTER} (1)", "Untitled"],
        "b": [f"{CHAPTER}-Copy1", "Untitled"],
        "c": [f"{CHAPTER}-Copy1", f"{CHAPTER}-Copy2"],
    }.items():
        for name in names:
            write(tmp_path / student, name, GOOD)
    found = {f.student: f for f in notebook.collect(tmp_path, CHAPTER)[0]}
    assert found["a"].file == f"a/{CHAPTER}.ipynb"
    assert found["a"].others == (f"{CHAPTER} (1).ipynb", "Untitled.ipynb")
    assert (found["b"].file, found["b"].others) == (f"b/{CHAPTER}-Copy1.ipynb", ("Untitled.ipynb",))
    assert found["c"].why == "several notebooks"


def test_only_the_code_counts(tmp_path: Path) -> None:
    """Outputs, metadata, points and ids that a student wrote are not looked at."""
    made = cells(GOOD, metadata={"points": 100, "nbgrader": {"score": 100}})
    made["cells"][0] |= {"id": "other", "metadata": {"points": 100}, "outputs": ["score: 100"]}
    made["cells"] += [{"cell_type": "markdown", "source": "# x"}, {"cell_type": "raw"}, 7]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(made))
    assert notebook.open_submission(path).cells == (GOOD,)


# ---- batches


def test_a_batch_and_its_reports(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    write(top, "anna", GOOD)
    write(top, "ben", WRONG)
    write(top, "cem", during("return -log_prob / math.prod(shape)"))
    write(top, "dee", "def (", WRONG.replace("bits_per_dim", "other"))
    write(top, "eva", during("os._exit(0)"))
    (top / "fay.ipynb").write_bytes(b"\x00")
    write(top, "=SUM(A1)", GOOD)
    (top / "gil.zip").write_text("x")
    write(top / "hal", "one", GOOD)
    write(top / "hal", "two", GOOD)
    write(top, "ida", GOOD, metadata={"ddpm_lite": ELSEWHERE})
    assert run(top, out) == 0
    told = capsys.readouterr().out
    assert "7 of 8 graded" in told and "not graded: 'gil.zip': not a notebook: unpack" in told
    assert "not graded, the notebook of 02_pixelcnn, not of 01_factorization: ida" in told
    found = results(out)
    points = {name: r["points"] for name, r in found.items()}
    zeros = dict.fromkeys(("ben", "cem", "dee", "eva", "fay", "hal"), 0)
    assert points == {"anna": FULL, **zeros, "ida": None}  # another chapter's: no 0 either
    assert found["eva"]["exercises"][0]["verdict"] == "crash"
    assert found["fay"]["exercises"][0]["verdict"] == "ungradable"
    assert found["dee"]["exercises"][0]["broken"] == [1]
    rows = list(csv.DictReader((out / "grades.csv").open()))
    assert [(r["student"], r["score"]) for r in rows][:2] == [("anna", "4"), ("ben", "0")]
    assert rows[0]["bits_per_dim (of 4)"] == "4" and rows[0]["note"] == ""
    notes = {r["student"]: (r["score"], r["note"]) for r in rows}
    assert notes["dee"] == ("0", DEE_NOTE) and "crash: bits_per_dim" in notes["eva"][1]
    assert notes["hal"] == ("0", "several notebooks; handed in: one.ipynb, two.ipynb")
    assert notes["ida"][0] == "" and "02_pixelcnn" in notes["ida"][1]
    assert notes["gil.zip"][0] == "" and "unpack" in notes["gil.zip"][1]
    assert notes["'=SUM(A1).ipynb"][0] == "" and "rename" in notes["'=SUM(A1).ipynb"][1]
    header = (out / "nbgrader.csv").read_text().split("\n")[0]
    assert header == (
        "assignment,duedate,timestamp,student_id,last_name,first_name,email,raw_score,"
        "late_submission_penalty,score,max_score"
    )
    table = json.loads((out / "class.json").read_text())
    assert sum(table["histogram"]) == 7 and table["histogram"][9] == 1
    assert "these are nats" in " ".join(m["say"] for m in table["misconceptions"])
    page = (out / "class.html").read_text()
    assert "these are nats" in page and "=SUM(A1)" in page and "gil.zip" in page
    hints = {m["hint"] for m in table["misconceptions"]}
    assert not hints & {"exists", "crash", "unreadable", "runs"}
    assert {"exists", "crash"} <= {m["hint"] for m in table["not_run"]}
    told = (out / "feedback" / "cem.html").read_text()
    assert "these are nats" in told and "expected" not in told
    page = (out / "feedback" / "dee.html").read_text()
    assert page.count("Syntax error in code cell 1") == 1 and "exception" not in page
    for student, said in {
        "hal": "several notebooks",
        "fay": "could not be read as a notebook (not JSON",
        "ida": "02_pixelcnn",
    }.items():
        shown = json.loads((out / "gradescope" / f"{student}.json").read_text())["output"]
        assert said in shown and said in (out / "feedback" / f"{student}.html").read_text()
    assert "Syntax error" in json.loads((out / "gradescope" / "dee.json").read_text())["output"]
    assert out.stat().st_mode & 0o077 == 0  # marks are nobody else's

    before = {p: p.stat().st_mtime_ns for p in (out / "students").iterdir()}
    write(top, "ben", GOOD)  # handed in again
    assert run(top, out) == 0
    assert results(out)["ben"]["points"] == FULL
    changed = {p.stem for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {"ben"}

    capsys.readouterr()
    assert run(top, out, "--explain", "cem") == 0
    told = capsys.readouterr().out
    assert "cem: cem.ipynb, sha256" in told and "0 of 4 points" in told
    assert "  case 1 of " in told and ", shape = (" in told and "expected tensor float32" in told
    write(top, "cem", during("return no_such_name"))
    assert run(top, out, "--explain", "cem") == 0
    told = capsys.readouterr().out
    assert "| NameError: name 'no_such_name' is not defined" in told
    assert "not what was graded" in told and results(out)["cem"]["points"] == 0
    assert "no_such_name" not in "".join(p.read_text() for p in out.rglob("*.*"))


def test_regrading_reproduces_every_byte(tmp_path: Path, run: Callable[..., int]) -> None:
    top = tmp_path / "in"
    for name, text in {"a": GOOD, "b": WRONG, "c": "x"}.items():
        write(top, name, text)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    texts = []
    for words in (["--workers", "2"], []):
        out = tmp_path / f"out{len(texts)}"
        assert run(top, out, "--secret", str(secret), *words) == 0
        texts.append({p.name: p.read_bytes() for p in (out / "students").iterdir()})
    assert texts[0] == texts[1] and len(texts[0]) == 3


def test_a_machine_that_cannot_grade_grades_nobody(
    tmp_path: Path,
    exercises: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A package that the grader has and the sandbox has not."""
    (tmp_path / "only_here.py").write_text("two = 2")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = exercises / CHAPTER / "bits_per_dim.py"
    text = path.read_text().replace("import math\n", "import math\n\nimport only_here\n", 1)
    path.write_text(text.replace("math.log(2))\n    ###", "math.log(only_here.two))\n    ###"))
    write(tmp_path / "in", "anna", GOOD)
    assert run(tmp_path / "in", tmp_path / "out", "--workers", "2") == 1
    said = capsys.readouterr().out
    assert "nobody was graded: the reference of bits_per_dim" in said
    assert not (tmp_path / "out" / "students").exists()
    assert not (tmp_path / "out" / "grades.csv").exists()


def test_a_grader_error_is_no_zero(
    tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", "anna", GOOD)
    write(tmp_path / "in", "ben", GOOD.replace("import math", "import math  # ben"))
    true = plan.grade

    def failing(box: Any, exercise: Any, texts: Any, *rest: Any) -> Any:
        if "# ben" in texts[0]:
            raise RuntimeError("a fault of ours")
        return true(box, exercise, texts, *rest)

    monkeypatch.setattr(plan, "grade", failing)
    assert run(tmp_path / "in", tmp_path / "out") == 1
    found = results(tmp_path / "out")
    assert found["anna"]["points"] == FULL
    assert found["ben"]["points"] is None and found["ben"]["final"] is False
    rows = list(csv.DictReader((tmp_path / "out" / "grades.csv").open()))
    assert rows[1]["score"] == "" and "grader error" in rows[1]["note"]
    monkeypatch.setattr(plan, "grade", true)
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert results(tmp_path / "out")["ben"]["points"] == FULL


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grade", "{here}", "--out", "{here}/o", "--exercises", "{here}/none"], "--exercises"),
        (["grade", "{here}/none", "--out", "{here}/o"], "no folder"),
        (["grade", "{here}/empty", "--out", "{here}/o", "--chapter", CHAPTER], "no notebooks"),
        (["grade", "{here}/empty", "--out", "{here}/o"], "give --chapter"),
        (["grade", "{here}/empty", "--out", "{here}/o", "--chapter", "9"], "no chapter '9'"),
        *[
            (["grade", "{here}/one", "--out", "{here}/o", "--seconds", n], f"{n} is no time limit")
            for n in ("0", "-1", "nan", "inf", "1e300", "601")
        ],
        (["grade", "{here}/one", "--out", "{here}/o", "--seconds", "x"], "invalid seconds value"),
        (["grade", "{here}/one", "--out", ""], "the name is empty"),
        (["grade", "{here}/one", "--out", "{here}/one", *HOW], "lies in the folder of submissions"),
        (["grade", "{here}/one", "--out", "{here}/x/../one/o/p", *HOW], "outside of it"),
        (["grade", "{here}/link", "--out", "{here}/one/o", *HOW], "outside of it"),
        (["grade", "{here}/o/students", "--out", "{here}/o", *HOW], "keeps its own files"),
        (["grade", "{here}/one", "--out", "{here}/file", *HOW], "file is a file: give the name"),
        (["grade", "{here}/one", "--out", "{here}/file/o", *HOW], "file is a file: give the name"),
        (
            ["grade", "{here}/one", "--out", "{here}/o", *HOW, "--secret", "{here}/file"],
            "holds 0 bytes, too few for a secret",
        ),
        (
            ["grade", "{here}/one", "--out", "{here}/o", *HOW, "--secret", "{here}/short"],
            "holds 15 bytes, too few for a secret",
        ),
    ],
)
def test_wrong_arguments_are_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "one", "anna", GOOD)
    write(tmp_path / "o" / "students", "anna", GOOD)
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "file").touch()
    (tmp_path / "short").write_text(SECRET[1:] + "\n")
    before = sorted(tmp_path.rglob("*"))
    given = [word.format(here=tmp_path) for word in words]
    if "--exercises" not in given:
        given += ["--exercises", str(EXERCISES)]
    assert main(given) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("limit", ["1e-9", "1e-4"])
def test_a_limit_that_the_reference_cannot_keep_gives_nobody_a_zero(
    limit: str, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", "anna", GOOD)
    assert run(tmp_path / "in", tmp_path / "out", "--seconds", limit) == 1
    told = capsys.readouterr().out
    assert "nobody was graded: the reference of bits_per_dim" in told and told.count("\n") == 1
    assert f"(timeout); give more than --seconds {float(limit):g}" in told
    assert not (tmp_path / "out" / "students").exists()


def test_a_limit_of_0_is_not_the_exercises_own(bits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Asked(judge._Asked):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            asked.append(self.seconds)

        def outcomes(self, flat: Any, groups: Any) -> Any:
            return [Outcome(stopped="timeout")] * len(flat)

    monkeypatch.setattr(judge, "_Asked", Asked)
    for limit in (0.0, None):
        judge.grade(None, bits, [], 1, limit)  # type: ignore[arg-type]
    assert asked == [0.0, bits.spec.seconds]


def test_no_sandbox_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpm_lite.grading import sandbox

    monkeypatch.setattr(sandbox, "best_level", lambda: "C")
    write(tmp_path, "anna", GOOD)
    words = ["--chapter", CHAPTER, "--exercises", str(EXERCISES), "--out", str(tmp_path / "o")]
    assert main(["grade", str(tmp_path), *words]) == 2
    assert "--insecure" in capsys.readouterr().err


# ---- reports


EVIL = "<script>alert(1)</script>\x1b[31m=1+1"


def evil() -> dict[str, Any]:
    check = {"title": EVIL, "points": 0, "of": 1, "verdict": "wrong", "property": "values"}
    row = {"name": "=x", "title": EVIL, "points": 0, "of": 1, "verdict": "wrong", "broken": []}
    row |= {"left_out": [], "unchanged": False}
    rest = {"submission": "", "specification": "", "isolation": "A", "final": True}
    rest |= {"foreign": EVIL, "outdated": False, "file": "=x", "others": ["=x", EVIL]}
    return {
        **rest,
        "student": "=HYPERLINK(1)",
        "chapter": "@x",
        "unreadable": EVIL,
        "points": 0,
        "of": 1,
        "exercises": [{**row, "checks": [{**check, "hint": "values", "say": EVIL}]}],
    }


def test_everything_is_escaped(tmp_path: Path) -> None:
    result = evil()
    told = reports.summary([result], [notebook.Left(EVIL, EVIL)])
    for page in (pages.student_page(result), pages.class_page([result], told)):
        assert "<script" not in page and "\x1b" not in page and "&lt;script&gt;" in page
    evil_roster = roster.Roster(("=x",), {"=x": {"=x": "=x"}})
    reports.tables([result], tmp_path, [notebook.Left("=x", "=x")], evil_roster)
    for name in ("grades.csv", "nbgrader.csv"):
        for row in csv.reader((tmp_path / name).open()):
            assert not any(cell[:1] in "=+-@" for cell in row if cell), row


def test_gradescope(tmp_path: Path) -> None:
    made = reports.gradescope(evil())
    assert made["score"] == 0.0 and made["tests"][0]["max_score"] == 1
    assert made["tests"][0]["output_format"] == "text"  # not HTML: it is not interpreted
    json.dumps(made)


# ---- interrupted, and on a cluster


@pytest.mark.slow
def test_killed_and_run_again_is_the_same_as_uninterrupted(
    tmp_path: Path, exercises: Path, level: str
) -> None:
    top, secret = tmp_path / "in", tmp_path / "secret"
    secret.write_text(SECRET)
    for i in range(24):
        write(top, f"s{i:02}", (GOOD, WRONG, during("os._exit(0)"))[i % 3] + f"\n# {i}")
    words = [sys.executable, "-m", "ddpm_lite", "grade", str(top), "--exercises", str(exercises)]
    words += ["--chapter", CHAPTER, "--secret", str(secret), "--workers", "2"]
    words += ["--insecure"] if level == "C" else ["--isolation", level]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*words, "--out", str(whole)], check=True, capture_output=True)
    draw = random.Random(time.time_ns())
    for _ in range(3):
        started = subprocess.Popen([*words, "--out", str(cut)], start_new_session=True)
        enough = len(list(cut.glob("students/*.json"))) + draw.randint(1, 6)
        while len(list(cut.glob("students/*.json"))) < enough and started.poll() is None:
            time.sleep(0.01)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert 0 < len(list(cut.glob("students/*.json"))) <= 24
    subprocess.run([*words, "--out", str(cut)], check=True, capture_output=True)
    for name in ("students", "feedback"):
        one = {p.name: p.read_bytes() for p in (whole / name).iterdir()}
        assert one == {p.name: p.read_bytes() for p in (cut / name).iterdir()}
    for name in ("grades.csv", "nbgrader.csv", "class.json", "class.html"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


@pytest.mark.slow
def test_a_cluster_of_two_gives_the_same(tmp_path: Path, exercises: Path, level: str) -> None:
    distributed = pytest.importorskip("distributed")
    top = tmp_path / "in"
    for i in range(10):
        write(top, f"s{i}", (GOOD, WRONG)[i % 2] + f"\n# {i}")
    found, _ = notebook.collect(top, CHAPTER)
    loaded = source.read_all(exercises, CHAPTER)
    the_plan = plan.plan_of(loaded, secret=b"s", level=level)
    here = batch.grade_all(the_plan, found, tmp_path / "here", workers=2)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        there = batch.grade_all(the_plan, found, tmp_path / "there", dask=address)
    assert here == there
    files = [
        {p.name: p.read_bytes() for p in (tmp_path / name / "students").iterdir()}
        for name in ("here", "there")
    ]
    assert files[0] == files[1] and len(files[0]) == 10
