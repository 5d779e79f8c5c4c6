"""Gradescope's folder, run as Gradescope runs it, in folders of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_lite.grading import release, source
from ddpm_lite.grading.autograder import write_autograder

EXERCISES = Path(__file__).resolve().parents[2] / "exercises"
CHAPTER = "01_factorization"


@pytest.fixture
def exercises(tmp_path: Path) -> Path:
    """A private folder with one exercise."""
    folder = tmp_path / "private"
    (folder / CHAPTER).mkdir(parents=True)
    shutil.copy(EXERCISES / CHAPTER / "bits_per_dim.py", folder / CHAPTER)
    return folder


def test_a_notebook_of_any_name_gets_its_results(
    tmp_path: Path, exercises: Path, level: str
) -> None:
    if level == "C":
        pytest.skip("NO SANDBOX HERE: install bubblewrap")
    top = tmp_path / "autograder"
    found = source.read_all(exercises, CHAPTER)
    write_autograder(found, top / "source", "")
    made = json.dumps(release.solutions(found, release.setup_source("", "")))
    (top / "submission").mkdir()
    (top / "submission" / f"{CHAPTER} (1).ipynb").write_text(made, encoding="utf-8")
    script = (top / "source" / "run_autograder").read_text(encoding="utf-8")
    command = "/opt/course/bin/ddpm-lite"
    assert command in script
    script = script.replace(command, f"{sys.executable} -m ddpm_lite")
    script = script.replace("/autograder/", f"{top}/")
    subprocess.run(["bash", "-c", script], check=True, capture_output=True, timeout=300)
    results = json.loads((top / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["score"] == sum(test["max_score"] for test in results["tests"]) > 0


def test_where_the_package_comes_from(tmp_path: Path, exercises: Path) -> None:
    found = source.read_all(exercises, CHAPTER)
    for package, word in (("git+https://github.com/o/r@v1", "git+https"), ("", "/source/*.whl")):
        write_autograder(found, tmp_path, package)
        setup = (tmp_path / "setup.sh").read_text(encoding="utf-8")
        assert f"pip install $PIP_FLAGS {package}" in setup and word in setup
        subprocess.run(["bash", "-n", str(tmp_path / "setup.sh")], check=True)
