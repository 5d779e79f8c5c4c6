"""How an equation finds its check, and that one without a check stops the build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from equations import checks, checks_of

ROOT = Path(__file__).resolve().parents[2]
CONF = """\
import sys
sys.path.insert(0, {ext!r})
extensions = ["equations"]
"""
PAGE = """\
Page
====

.. math:: p(x) = 1
   :label: {label}
"""


def test_an_equation_finds_its_checks_by_name(tmp_path: Path) -> None:
    names = ("test_eq_mean", "test_eq_mean__in_float64", "test_eq_mean_of_squares", "test_other")
    (tmp_path / "test_01.py").write_text("".join(f"def {name}(): ...\n" for name in names))
    known = checks(tmp_path)
    assert [c.partition("::")[2] for c in checks_of("eq-mean", known)] == list(names[:2])
    assert checks_of("eq-variance", known) == []


@pytest.mark.parametrize(("label", "code"), [("eq-known", 0), ("eq-unknown", 1), ("known", 1)])
def test_a_labelled_equation_needs_a_check(tmp_path: Path, label: str, code: int) -> None:
    (tmp_path / "tests" / "equations").mkdir(parents=True)
    (tmp_path / "tests" / "equations" / "test_01.py").write_text("def test_eq_known(): ...\n")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "course.toml").write_text('repository = ""\nbranch = ""\ntag = ""\n')
    (tmp_path / "conf.py").write_text(CONF.format(ext=str(ROOT / "book" / "_ext")))
    (tmp_path / "index.rst").write_text(PAGE.format(label=label))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", tmp_path, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode != 0) == bool(code), done.stderr
    if code:
        assert label in done.stderr
    else:
        assert "test_eq_known" in (tmp_path / "out" / "index.html").read_text()
