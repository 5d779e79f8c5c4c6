"""What students get: notebooks without solutions, and checks that name the misconception."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ddpm_lite import checks
from ddpm_lite.cli import main
from ddpm_lite.grading import release, source
from ddpm_lite.grading.source import Loaded

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = ROOT / "exercises"
NUMBERS = ROOT / "ddpm_lite" / "checks" / "numbers"
NOTEBOOKS = ROOT / "notebooks" / "exercises"
CHAPTERS = {name: source.read_all(EXERCISES, name) for name in source.chapters(EXERCISES)}
ALL = [exercise for group in CHAPTERS.values() for exercise in group]
CHECKED = [exercise for exercise in ALL if exercise.spec.checks]

sys.path.insert(0, str(ROOT / "book" / "_tools"))
import stamp  # noqa: E402


def code(notebook: Any) -> str:
    return "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")


def near(a: Any, b: Any) -> bool:
    """Equal, but for the last digits of numbers: they differ between processors."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= 1e-5 * max(1.0, abs(b)) or (a != a and b != b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(near(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(near, a, b))
    return bool(a == b)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_is_checked_in_is_what_release_makes(chapter: str, tmp_path: Path) -> None:
    """After a change: ddpm-lite release --course."""
    made = {chapter: CHAPTERS[chapter]}
    release.write_all(made, tmp_path, ROOT / "course.toml", False, tmp_path)
    course = stamp.read(ROOT)
    new = nbformat.read(tmp_path / f"{chapter}.ipynb", as_version=4)
    old = nbformat.read(NOTEBOOKS / f"{chapter}.ipynb", as_version=4)
    nbformat.validate(old)
    assert stamp.stamped(new, f"exercises/{chapter}.ipynb", course) == old
    numbers = json.loads((tmp_path / f"{chapter}.json").read_text())
    assert near(numbers, json.loads((NUMBERS / f"{chapter}.json").read_text()))


def test_nothing_is_left_over() -> None:
    assert {p.stem for p in NOTEBOOKS.glob("*.ipynb")} == set(CHAPTERS)
    assert {p.stem for p in NUMBERS.glob("*.json")} == set(CHAPTERS)


def test_the_launch_badge_is_stamped() -> None:
    course = stamp.Course("https://github.com/example/course", "main", "v9")
    notebook = nbformat.read(NOTEBOOKS / "01_factorization.ipynb", as_version=4)
    text = json.dumps(stamp.stamped(notebook, "exercises/01_factorization.ipynb", course))
    assert "github/example/course/blob/v9/notebooks/exercises/01_factorization.ipynb" in text
    assert "git+https://github.com/example/course@v9" in text


def secrets(exercise: Loaded) -> list[str]:
    """Lines that only a solution or a hidden test has, without spaces at their ends."""
    kept = {line.strip() for line in exercise.starter.split("\n")}
    kept |= {line.strip() for other in ALL for line in other.starter.split("\n")}
    kept |= {line.strip() for line in exercise.text.split("\n")}
    hidden = exercise.file.partition(source.HIDDEN)[2].partition("hints=")[0]
    lines = [*exercise.solved.split("\n"), *hidden.split("\n")]
    plain = {line.strip() for line in lines} - kept
    telling = {line for line in plain if (len(line) > 12 and "=" in line) or "return " in line}
    return sorted(line for line in telling if not any(line in row for row in kept))


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_no_solution_and_no_hidden_test_in_what_students_get(exercise: Loaded) -> None:
    found = secrets(exercise)
    assert found or not exercise.spec.checks
    artefacts = [*NOTEBOOKS.glob("*.ipynb"), *NUMBERS.glob("*.json")]
    assert artefacts
    for path in artefacts:
        text = path.read_text(encoding="utf-8")
        shown = code(json.loads(text)) if path.suffix == ".ipynb" else text
        for line in found:
            assert line not in {row.strip() for row in shown.split("\n")}, f"{path.name}: {line}"
            assert json.dumps(line)[1:-1] not in text or len(line) < 20, f"{path.name}: {line}"
        assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text and "Mutant" not in text


def test_the_search_would_find_a_solution() -> None:
    exercise = source.find(EXERCISES, "bits_per_dim")
    assert "return -log_prob / (math.prod(shape) * math.log(2))" in secrets(exercise)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_untouched_notebook_runs_to_its_end_with_a_cross_everywhere(
    chapter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text())
    exec(compile(code(notebook), chapter, "exec"), {"__name__": "notebook"})
    asked = [exercise for exercise in CHAPTERS[chapter] if exercise.spec.checks]
    starts = "|".join(exercise.name for exercise in asked)
    parts = re.split(rf"^(?:{starts})$", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    for exercise, part in zip(asked, parts, strict=True):
        mend = "NotImplementedError" not in exercise.starter  # no hint before the first change
        assert "✗" in part and ("hint:" in part) != mend
        assert (checks.UNCHANGED in plain(part)) == mend


def said(name: str, code_of_answer: str, capsys: pytest.CaptureFixture[str]) -> str:
    exercise = next(e for e in ALL if e.name == name)
    around: dict[str, Any] = {}
    exec(exercise.starter + "\nfrom ddpm_lite.checks import check", around)
    exec(f"{code_of_answer}\ncheck({name!r}, {exercise.answer})", around)
    return plain(capsys.readouterr().out)


def plain(text: str) -> str:
    """Without the line breaks of a notebook's width."""
    return " ".join(text.split())


@pytest.mark.parametrize("exercise", CHECKED, ids=lambda e: e.name)
def test_the_notebooks_check_agrees(exercise: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    for right in (exercise.solved, *exercise.spec.rights):
        assert "✗" not in said(exercise.name, right, capsys)
    hidden = any(not check.public for check in exercise.spec.checks)
    for mutant in exercise.spec.mutants:
        out = said(exercise.name, exercise.mutated(mutant), capsys)
        if not hidden:
            hint = exercise.spec.hints.get(mutant.hint) or checks.GENERIC[mutant.hint]
            assert hint in out, f"{mutant}: {out}"


BITS = "def bits_per_dim(log_prob, shape):\n    "


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("raise NotImplementedError", ["✓ exists", "✗ runs: not written yet"]),
        ("1 / 0", ["✓ exists", "✗ runs: ZeroDivisionError: division by zero"]),
        ("return 'x'", ["✓ runs", "✗ type: expected one tensor [4], got a str"]),
        ("return log_prob[:1]", ["✓ type", "✗ shape: expected"]),
        ("return log_prob > 0", ["✓ shape", "✗ dtype: expected float, got bool"]),
        ("return -log_prob / math.prod(shape)", ["✗ values", "at index [0]", "largest error",
                                                   "divide by log 2 as well: these are nats"]),
        ("return log_prob * float('nan')", ["✗ values", "NaN"]),
        ("return -log_prob / 1000", ["✗ values", "bits/dim is"]),
    ],
)  # fmt: skip
def test_lines_come_in_order_with_a_hint(
    body: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = said("bits_per_dim", BITS + body, capsys)
    places = [out.find(line) for line in lines]
    assert -1 not in places and places == sorted(places), out


def test_a_name_can_be_left_out_or_missing(capsys: pytest.CaptureFixture[str]) -> None:
    around: dict[str, Any] = {}
    exec("from ddpm_lite.checks import check\ncheck('bits_per_dim')", around)
    assert "✗ exists: not defined" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"known are.*bits_per_dim"):
        checks.check("bits")


def test_strict_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(checks.CheckFailed, match="not defined"):
        checks.check("bits_per_dim", strict=True)
    assert capsys.readouterr().out == ""


def test_checks_hold_numbers_only() -> None:
    for path in (ROOT / "ddpm_lite" / "checks").rglob("*"):
        assert path.is_dir() or path.suffix in (".py", ".json", ".pyc")
    names = {
        node.name
        for path in (ROOT / "ddpm_lite" / "checks").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert "check" in names and not names & {exercise.answer for exercise in ALL}


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., Path]:
    folder = tmp_path / "private" / "01_factorization"
    folder.mkdir(parents=True)
    shutil.copy(EXERCISES / "01_factorization" / "bits_per_dim.py", folder)

    def make(*words: str) -> Path:
        out = tmp_path / "-".join(["out", *words])
        given = ["--exercises", str(folder.parent), "--chapter", "01_factorization"]
        assert main(["release", "--out", str(out), *given, *words]) == 0
        return out

    return make


def test_a_class_gets_variants_of_its_own(
    released: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = set()
    for key in ("spring", "summer", "autumn"):
        out = released("--variant", key)
        made = json.loads((out / "solutions" / "01_factorization.ipynb").read_text())
        texts.add(code(made))
        capsys.readouterr()
        exec(compile(code(made), key, "exec"), {"__name__": "notebook"})
        told = capsys.readouterr().out
        assert "✓ values" in told and "✗" not in told  # its numbers are in the notebook
    assert len(texts) > 1


def test_the_instructors_copy_follows_nbgrader(released: Callable[..., Path]) -> None:
    made = nbformat.read(released() / "instructor" / "01_factorization.ipynb", as_version=4)
    nbformat.validate(made)
    about = [c.metadata.nbgrader for c in made.cells if "nbgrader" in c.metadata]
    assert sum(a.get("points", 0) for a in about) == 4
    text = code(made)
    assert "### BEGIN SOLUTION" in text and "### BEGIN HIDDEN TESTS" in text
    ids = [a.grade_id for a in about]
    assert len(ids) == len(set(ids))
