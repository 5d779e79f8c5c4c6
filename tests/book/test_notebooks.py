"""The rules every committed notebook keeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from course_repo import Course, read
from stamp import setup_source, stamped

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXAMPLE = Course("https://github.com/example/course", "main", "v9.9.9")
PATHS = re.compile(r"(?<![\w:/.])/(?:home|root|tmp|usr|opt|work|Users|var|content)/[\w.-]+")


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook: Any, tag: str) -> list[Any]:
    return [cell for cell in code(notebook) if tag in cell.metadata.get("tags", [])]


def test_there_is_a_notebook_for_every_chapter() -> None:
    chapters = {p.stem for p in (ROOT / "book").glob("[0-9][0-9]_*.md")}
    assert chapters and chapters == {p.stem for p in NOTEBOOKS}


def test_first_cells_are_as_stamped(path: Path, notebook: Any) -> None:
    assert stamped(notebook, path.name, read(ROOT)) == notebook, "run `make stamp`"


def test_a_published_course_opens_and_installs_on_colab(path: Path, notebook: Any) -> None:
    public = stamped(notebook, path.name, EXAMPLE)
    address = f"github/example/course/blob/v9.9.9/notebooks/{path.name}"
    assert f"(https://colab.research.google.com/{address})" in public.cells[0].source
    setup = tagged(public, "setup")[0].source
    assert "%pip install -q git+https://github.com/example/course@v9.9.9" in setup
    # nothing of Colab's is replaced: pip upgrades only what it is told to
    assert not re.search(r"--upgrade|\s-U\b|--force-reinstall|==", setup)
    assert stamped(public, path.name, EXAMPLE) == public
    again = stamped(public, path.name, read(ROOT))
    assert again == stamped(notebook, path.name, read(ROOT)), "stamping must be reversible"


def test_what_the_package_asks_for_is_met_by_colab() -> None:
    import tomllib

    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for needed in table["project"]["dependencies"]:
        bounds = needed.partition(";")[0]  # behind it stands for which machines
        assert re.fullmatch(r"[\w-]+>=[\d.]+", bounds), f"{needed}: lower bounds only"
    assert "ipywidgets>=7.7" in table["project"]["optional-dependencies"]["book"]


def test_setup_is_python_without_a_repository() -> None:
    ast.parse(setup_source(Course("", "main", "v1")))


def test_parameters_default_to_the_fast_profile(notebook: Any) -> None:
    (cell,) = tagged(notebook, "parameters")
    names: dict[str, Any] = {}
    exec(cell.source, names)
    assert names["profile"] == "fast"
    assert names["device"] == "auto"
    assert isinstance(names["seed"], int)


def test_it_is_short_enough_to_read(notebook: Any) -> None:
    assert len(code(notebook)) <= 30
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert len(lines) <= 20, f"cell {number} has {len(lines)} lines: {lines[0]}"


def test_it_was_run_from_top_to_bottom_without_an_error(notebook: Any) -> None:
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"
    kinds = {output.output_type for cell in code(notebook) for output in cell.outputs}
    assert kinds, "no outputs"
    assert "error" not in kinds


def test_figures_are_pictures_with_words_for_those_who_cannot_see_them(notebook: Any) -> None:
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "image/svg+xml" not in data, f"cell {number}: PNG only"
            if "image/png" in data:
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) >= 15, f'cell {number}: metadata mystnb: {{"image": {{"alt": …}}}}'


def test_it_needs_neither_the_book_nor_this_machine(path: Path, notebook: Any) -> None:
    for number, cell in enumerate(notebook.cells):
        assert "myst_nb" not in cell.source, f"cell {number}"
        for output in cell.get("outputs", []):
            shown = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            assert not PATHS.search(shown), f"cell {number} shows {PATHS.search(shown)}"
    assert "papermill" not in notebook.metadata
    assert str(ROOT) not in path.read_text(encoding="utf-8")
