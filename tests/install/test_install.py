"""The package alone, as a reader of the README would install it: no book, no course environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ("ddpm_lite", "pyproject.toml", "README.md", "LICENSE", "LICENSE-text")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's `bin`, with the checkout installed and nothing of the course's pins."""
    folder = tmp_path_factory.mktemp("install")
    for name in PACKAGED:  # a copy: building in the checkout would leave traces in it
        source = ROOT / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / "checkout" / name, ignore=skip)
        else:
            (folder / "checkout").mkdir(exist_ok=True)
            shutil.copy(source, folder / "checkout" / name)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    tools = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    # constraints choose versions and install nothing: they keep pip from the largest torch there is
    pip = [tools / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.txt"]
    subprocess.run([*pip, folder / "checkout"], check=True)
    return tools


def run(tools: Path, folder: Path, *command: str) -> str:
    names = ("PATH", "HOME", "SYSTEMROOT", "TEMP", "OMP_NUM_THREADS")
    env = {key: os.environ[key] for key in names if key in os.environ}
    done = subprocess.run(
        [tools / command[0], *command[1:]], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_command_draws_digits(fresh: Path, tmp_path: Path) -> None:
    words = ["sample", "--model", "digits-unet", "--n", "16", "--out", "grid.png"]
    run(fresh, tmp_path, "ddpm-lite", *words)
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_import_needs_nothing_of_the_book(fresh: Path, tmp_path: Path) -> None:
    code = "import sys, ddpm_lite; print(sorted({'sphinx', 'matplotlib'} & set(sys.modules)))"
    assert run(fresh, tmp_path, "python", "-c", code).strip() == "[]"
    probe = "import importlib.util as u; print([n for n in ('sphinx', 'pytest') if u.find_spec(n)])"
    assert run(fresh, tmp_path, "python", "-c", probe).strip() == "[]"
