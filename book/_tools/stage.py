"""Lay out under `_build/src` what the book is built from: pages, configuration, run notebooks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nbformat
from execute import EXECUTED, ROOT, clean

SOURCE = ROOT / "_build" / "src"


def hide(cell: nbformat.NotebookNode) -> None:
    """Fold the set-up cell: every notebook has the same one, and the page is for the rest."""
    tags = cell.metadata.get("tags", [])
    if "setup" in tags and "hide-cell" not in tags:
        cell.metadata["tags"] = [*tags, "hide-cell"]


def rename_figure(cell: nbformat.NotebookNode) -> None:
    """The label of a figure belongs to the page that shows it (`_ext/nbfigures.py`)."""
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    if "name" in figure:
        figure["name"] = f"cell-{figure['name']}"


def stage() -> Path:
    """Returns the staged folder; FileNotFoundError where a notebook has not been executed."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    ignored = shutil.ignore_patterns("_tools", "__pycache__", "*.pyc", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "book", SOURCE / "book", ignore=ignored)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, SOURCE / name)
    exercises = Path("notebooks", "exercises")  # to take away: they are no pages
    shutil.copytree(ROOT / exercises, SOURCE / exercises, ignore=ignored)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = EXECUTED / path.name
        if not executed.is_file():
            raise FileNotFoundError(f"{path.name} has not been executed: run execute.py first")
        notebook = clean(nbformat.read(executed, as_version=4))
        for cell in notebook.cells:
            hide(cell)
            rename_figure(cell)
        nbformat.write(notebook, SOURCE / "notebooks" / path.name)
    return SOURCE


if __name__ == "__main__":
    print(stage().relative_to(ROOT))
    sys.exit(0)
