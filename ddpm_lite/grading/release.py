"""Notebooks from exercises: the students' (no solutions), the solutions', the instructor's."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import checks, files
from .autograder import autograder, finish
from .identity import KEY, identity, written
from .notebook import open_submission
from .public import dumps, public_numbers
from .source import HIDDEN, HIDDEN_END, Loaded

__all__ = [
    "course_of",
    "instructor",
    "numbers",
    "prose",
    "setup_source",
    "solutions",
    "student",
    "title_of",
    "write_all",
]

STARS = {1: "a warm-up", 2: "medium", 3: "hard", 4: "long"}
CHECK = "from ddpm_lite.checks import case, check"
DEVICE = """\

import torch

where = "cuda" if torch.cuda.is_available() else "cpu"
print(f"ddpm_lite {ddpm_lite.__version__}, torch {torch.__version__}, on {where}")"""

Cell = dict[str, Any]


def setup_source(repository: str, tag: str) -> str:
    """The set-up cell. pip leaves installed packages alone: the package's bounds are loose."""
    if repository:
        return (
            "# Set-up: installs the course's package where it is missing, as on Colab.\n"
            "try:\n    import ddpm_lite\n"
            "except ImportError:\n"
            f"    %pip install -q git+{repository}@{tag}\n"
            "    import ddpm_lite\n" + DEVICE
        )
    return (
        "# Set-up: finds the course's package.\n"
        "try:\n    import ddpm_lite\n"
        "except ImportError as missing:\n"
        '    how = "run `pip install .` in the folder that holds the course, then restart"\n'
        '    raise ImportError(f"ddpm_lite is not installed: {how}") from missing\n' + DEVICE
    )


def student(exercises: Sequence[Loaded], setup: str, packed: str = "", title: str = "") -> Cell:
    """The students' notebook of a chapter. `packed`: numbers that the package does not have."""
    cells = _head(exercises, setup, packed, title)
    for e in exercises:
        cells.append(_markdown(prose(e), f"{e.name}-text"))
        cells.append(_code(e.starter, f"{e.name}-code"))
        if e.spec.checks:
            cells.append(_checking(e, packed))
    return _notebook(cells, exercises)


def solutions(exercises: Sequence[Loaded], setup: str, packed: str = "", title: str = "") -> Cell:
    """The same notebook, solved."""
    cells = _head(exercises, setup, packed, title, " (solutions)")
    for e in exercises:
        cells.append(_markdown(prose(e), f"{e.name}-text"))
        cells.append(_code(e.solved, f"{e.name}-code"))
        if e.spec.checks:
            cells.append(_checking(e, packed))
    return _notebook(cells, exercises)


def instructor(exercises: Sequence[Loaded], setup: str, packed: str = "", title: str = "") -> Cell:
    """The source in nbgrader's conventions: marked solutions, hidden tests, points."""
    cells = _head(exercises, setup, packed, title, " (instructor's copy)")
    for e in exercises:
        cells.append(_markdown(prose(e), f"{e.name}-text"))
        solution = _code(e.solution.replace("### STARTER", "# starter instead:"), f"{e.name}-code")
        solution["metadata"]["nbgrader"] = _nbgrader(e.name, solution=True)
        cells.append(solution)
        if e.spec.checks:
            hidden = e.file.partition(f"\n{HIDDEN}\n")[2].partition(HIDDEN_END)[0].strip()
            source = f"{_check(e, packed)}\n{HIDDEN}\n{hidden}\n{HIDDEN_END}"
            tests = _code(source, f"{e.name}-check")
            tests["metadata"]["nbgrader"] = _nbgrader(f"{e.name}-tests", points=e.spec.points)
            cells.append(tests)
    return _notebook(cells, exercises)


def numbers(exercises: Sequence[Loaded]) -> dict[str, Any]:
    """The public numbers of a chapter."""
    return {e.name: public_numbers(e) for e in exercises if e.spec.checks}


def write_all(
    chapters: dict[str, list[Loaded]],
    out: Path,
    course: Path,
    teachers: bool = True,
    package: Path | None = None,
) -> list[Path]:
    """Write every chapter's notebook; for teachers also in out/solutions and out/instructor.

    All is made before the first file is written: a full disk or Ctrl-C leaves no half of a set.
    course: course.toml, if there is one. package: folder for the numbers, where the exercises are
    the course's own; otherwise the notebooks carry them. ValueError where `out` holds another set.
    """
    if teachers:
        _refuse_others(chapters, out)
    repository, tag = course_of(course)
    setup = setup_source(repository, tag)
    source = f"git+{repository}@{tag}" if repository else ""
    made: dict[files.Name, bytes] = {}
    graders: list[Path] = []
    for chapter, exercises in chapters.items():
        table = numbers(exercises)
        packed = checks.pack(table) if package is None else ""
        kinds = {"": student}
        if teachers:
            kinds |= {"solutions": solutions, "instructor": instructor}
        for folder, make in kinds.items():
            cells = make(exercises, setup, packed, title_of(chapter, course.parent / "book"))
            text = json.dumps(cells, indent=1, sort_keys=True, ensure_ascii=False)
            made[out / folder / f"{chapter}.ipynb"] = f"{text}\n".encode()
        if teachers:
            graders.append(out / "gradescope" / chapter)
            made |= autograder(exercises, graders[-1], source)
        if package is not None:
            made[package / f"{chapter}.json"] = dumps(table).encode()
    with files.uninterrupted():
        files.write_all(made)
        for grader in graders:
            finish(grader, made)
    return [Path(path) for path in made]


def _refuse_others(chapters: dict[str, list[Loaded]], out: Path) -> None:
    """ValueError where the folder holds another set's notebook: one of them would be mixed up."""
    for chapter, exercises in chapters.items():
        there, mine = open_submission(out / f"{chapter}.ipynb").origin, identity(exercises)
        if there and there.answers != mine.answers:
            raise ValueError(
                f"{out / chapter}.ipynb asks for {', '.join(there.answers)}, and not for "
                f"{', '.join(mine.answers)}: another set or variant; give each an --out of its own"
            )


def course_of(course: Path) -> tuple[str, str]:
    """Address and tag in course.toml; "" where there are none."""
    table = tomllib.loads(course.read_text(encoding="utf-8")) if course.is_file() else {}
    repository = str(table.get("repository", "")).rstrip("/").removesuffix(".git")
    return repository, str(table.get("tag", ""))


def _head(
    exercises: Sequence[Loaded], setup: str, packed: str, title: str, which: str = ""
) -> list[Cell]:
    number = exercises[0].chapter.partition("_")[0]
    text = (
        f"# Exercises {int(number)}: {title}{which}\n\n{_amount(exercises)} "
        "Write your answers where "
        "`NotImplementedError` stands, or mend what is there, and run the check below each. Keep "
        "the names and arguments: the grader calls your functions with other numbers. Where a "
        'check fails it says in which case; `case("NAME", 2)` gives you the inputs of case 2.'
    )
    start = f"{CHECK}\n\nNUMBERS = {packed!r}" if packed else CHECK
    cells = [_markdown(text, "title"), _code(setup, "setup"), _code(start, "check")]
    cells[1]["metadata"]["tags"] = ["setup", "nbval-ignore-output"]
    return cells


def _amount(exercises: Sequence[Loaded]) -> str:
    """How much there is to do; a project is counted by itself."""
    short = [e for e in exercises if e.spec.checks]
    parts = []
    if short:
        many = f"{len(short)} exercise{'s' * (len(short) > 1)}"
        parts.append(f"{many}, about {sum(e.spec.minutes for e in short)} minutes")
    for e in exercises:
        if not e.spec.checks:
            hours = f"about {e.spec.minutes / 60:.0f} hours"
            parts.append(
                f"a project ({hours}, in a notebook of its own, if your course asks for it)"
            )
    return ", and ".join(parts).capitalize() + "."


def title_of(chapter: str, book: Path) -> str:
    """The title of a chapter's page; the folder's own name where the book has no such page."""
    page = book / f"{chapter}.md"
    if page.is_file():
        lines = page.read_text(encoding="utf-8").split("\n")
        return next(line[2:] for line in lines if line.startswith("# "))
    return chapter.partition("_")[2].replace("_", " ")


def prose(e: Loaded) -> str:
    """The cell above an exercise: title, difficulty, minutes, points, text, rubric."""
    points = "graded by a person" if not e.spec.checks else f"{e.spec.points:g} points"
    about = f"*{STARS[e.spec.difficulty].capitalize()}, about {e.spec.minutes} minutes, {points}.*"
    rows = "".join(f"| {what} | {of:g} |\n" for what, of in e.spec.rubric)
    rubric = f"\n\n| What is judged | Points |\n|:--|--:|\n{rows}" if rows else ""
    return f"## {e.title}\n\n{about}\n\n{e.text}{rubric}".rstrip()


def _checking(e: Loaded, packed: str) -> Cell:
    cell = _code(_check(e, packed), f"{e.name}-check")
    cell["metadata"]["tags"] = ["nbval-ignore-output"]
    return cell


def _check(e: Loaded, packed: str) -> str:
    return f'check("{e.name}", {e.answer}{", numbers=NUMBERS" if packed else ""})'


def _markdown(source: str, name: str) -> Cell:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _split(source)}


def _code(source: str, name: str) -> Cell:
    rest: Cell = {"execution_count": None, "metadata": {}, "outputs": []}
    return {"cell_type": "code", "id": name, **rest, "source": _split(source)}


def _split(source: str) -> list[str]:
    return source.strip("\n").splitlines(keepends=True)


def _nbgrader(name: str, solution: bool = False, points: float = 0) -> Cell:
    about = {"grade_id": name, "schema_version": 3, "locked": not solution, "task": False}
    more = {} if solution else {"points": points}
    return {**about, "solution": solution, "grade": not solution, **more}


def _notebook(cells: list[Cell], exercises: Sequence[Loaded]) -> Cell:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    about[KEY] = written(identity(exercises))  # grading asks for it
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
