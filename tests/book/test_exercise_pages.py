"""The pages about exercises: made from the files, complete, and true of what the grader does."""

from __future__ import annotations

import dataclasses
import html as markup
import json
from pathlib import Path

import exercise_pages
import graded
import pytest
import yaml
from course_repo import Course

from ddpm_lite.grading import notebook, plan, reports, source, validate
from ddpm_lite.grading.source import Loaded

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
EXAMPLE = BOOK / "_examples" / "01_factorization" / "to_levels.py"
PLANS = yaml.safe_load((BOOK / "plans.yml").read_text(encoding="utf-8"))
NOWHERE = Course("", "main", "v1")


@pytest.fixture(scope="module")
def found() -> dict[str, list[Loaded]]:
    return exercise_pages.chapters(ROOT)


def test_the_table_has_every_exercise_and_the_solutions_too(found: dict[str, list[Loaded]]) -> None:
    table, solved = exercise_pages.exercise_table(found, NOWHERE), exercise_pages.worked(found)
    files = {path.stem for path in (ROOT / "exercises").glob("*/*.py")}
    assert files == {e.name for group in found.values() for e in group}
    for e in (e for group in found.values() for e in group):
        (row,) = [line for line in table.split("\n") if f"<worked-{e.name}>" in line]
        assert f"| {e.spec.minutes} |" in row
        assert f"| {e.title} |" in row  # the title is no link to its solution
        assert f"(worked-{e.name})=\n### {e.title}\n" in solved and e.solved.strip() in solved
    assert "BEGIN SOLUTION" not in solved and "HIDDEN TESTS" not in solved


def test_a_changed_file_changes_the_table(found: dict[str, list[Loaded]]) -> None:
    chapter, group = next(iter(found.items()))
    longer = dataclasses.replace(group[0].spec, minutes=777)
    other = [dataclasses.replace(group[0], spec=longer), *group[1:]]
    assert "777" in exercise_pages.exercise_table({chapter: other}, NOWHERE)
    assert "777" not in exercise_pages.exercise_table({chapter: group}, NOWHERE)


def test_launch_links_stand_where_the_address_is_known(found: dict[str, list[Loaded]]) -> None:
    assert "Colab" not in exercise_pages.exercise_table(found, NOWHERE)
    known = Course("https://github.com/owner/repo", "main", "v1")
    table = exercise_pages.exercise_table(found, known)
    address = "https://colab.research.google.com/github/owner/repo/blob/v1/notebooks/exercises/"
    assert all(f"{address}{chapter}.ipynb" in table for chapter in found)


def test_plans_are_as_long_as_they_say_and_the_longest_leaves_nothing_out(
    found: dict[str, list[Loaded]],
) -> None:
    assert all(length == len(weeks) for length, weeks in PLANS.items())
    given = [name for week in PLANS[12] for name in week.get("exercises", [])]
    graded_ones = {e.name for group in found.values() for e in group if e.spec.checks}
    assert graded_ones <= set(given) and len(given) == len(set(given))
    for length in PLANS:
        assert exercise_pages.plan(found, PLANS, str(length)).count("\n") == length + 1


@pytest.mark.parametrize(
    "marker",
    [
        "<!-- exercises: unknown -->",
        "<!-- plan: 7 -->",
        "<!-- graded: nobody -->",
        "<!-- check: bits_per_dim unknown -->",
        "<!-- check: unknown nats -->",
    ],
)
def test_a_marker_that_cannot_be_filled_is_an_error(marker: str) -> None:
    with pytest.raises((LookupError, ValueError, OSError)):
        exercise_pages.filled(f"before\n{marker}\nafter", ROOT, ROOT)


def test_pages_ask_for_what_is_generated() -> None:
    for page, markers in {
        "exercises": ["exercises: table", "check: bits_per_dim nats"],
        "solutions": ["exercises: solutions"],
        "instructor": [f"plan: {length}" for length in PLANS],
        "grading": ["graded: class", "graded: s03"],
    }.items():
        text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
        assert all(f"\n<!-- {marker} -->\n" in text for marker in markers)
        assert "<!--" not in exercise_pages.filled(text, ROOT, ROOT)


def test_the_built_pages_show_every_exercise(found: dict[str, list[Loaded]], html: Path) -> None:
    for page in ("exercises", "solutions"):
        text = markup.unescape((html / "book" / f"{page}.html").read_text(encoding="utf-8"))
        assert all(e.title in text for group in found.values() for e in group)


# ---- the worked example of a new exercise


def test_the_example_may_be_given_out() -> None:
    assert validate.problems(source.read(EXAMPLE)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-1.5, 1.5", "-1, 1"),
        ('"wrapped", ".clamp(0, levels - 1)", ".remainder(levels)"', None),
        ("    hints={", "    # {"),
    ],
)
def test_what_the_page_says_of_the_stages_is_so(old: str, new: str | None) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert text.count(old) == 1
    if new is None:
        new = '"wrapped", ".clamp(0, levels - 1)", " % levels"'
    if old.startswith("    hints"):
        text = text[: text.index(old)] + ")\n### END HIDDEN TESTS\n"
        said = validate.problems(source.parse(text, EXAMPLE))
    else:
        said = validate.problems(source.parse(text.replace(old, new), EXAMPLE))[:1]
    page = (BOOK / "writing-exercises.md").read_text(encoding="utf-8")
    assert said and f"to_levels: {'; '.join(said)}" in page


# ---- the reports that the book shows


def results() -> list[dict[str, object]]:
    paths = sorted((graded.SHOWN / "students").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def test_the_reports_shown_are_of_todays_exercises_and_todays_form(tmp_path: Path) -> None:
    exercises = source.read_all(graded.EXERCISES, graded.CHAPTER)
    now = plan.plan_of(exercises, secret=b"", level="A").specification
    shown = results()
    again = "run python book/_tools/graded.py"
    assert {r["specification"] for r in shown} == {now}, again
    summed = json.loads((graded.SHOWN / "class.json").read_text(encoding="utf-8"))
    left = [notebook.Left(*row) for row in summed["left"]]
    assert left  # one with a name that is refused
    reports.tables(shown, tmp_path, left)
    reports.write_gradescope(shown, tmp_path)
    reports.write_summary(shown, tmp_path, left)
    made = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert len(made) == len(shown) + 3
    for path in made:
        kept = graded.SHOWN / path.relative_to(tmp_path)
        assert kept.read_bytes() == path.read_bytes(), again


def test_the_reports_shown_hold_no_secret_and_no_hidden_input() -> None:
    names = {path.name for path in graded.SHOWN.rglob("*")}
    assert "secret" not in names and "class.html" in names
    assert {r["isolation"] for r in results()} <= {"A", "B"}


@pytest.mark.slow
def test_graded_again_they_are_the_same(tmp_path: Path) -> None:
    level = {"isolation": ""}  # may be another on this machine
    assert [r | level for r in graded.grade(tmp_path)] == [r | level for r in results()]
