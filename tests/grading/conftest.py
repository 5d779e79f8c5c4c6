"""A sandbox for all tests, at the best isolation that this machine allows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddpm_lite.grading import judge, sandbox, source
from ddpm_lite.grading.source import Loaded

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = ROOT / "exercises"
PATIENT = 30.0  # seconds for what must not time out, on however busy a machine


@pytest.fixture(scope="session")
def level() -> str:
    """$DDPM_LITE_ISOLATION asks for one; otherwise the best there is."""
    return os.environ.get("DDPM_LITE_ISOLATION") or sandbox.best_level()


@pytest.fixture(scope="session")
def box(level: str) -> Iterator[sandbox.Sandbox]:
    if level == "C":
        pytest.skip("NO SANDBOX HERE: install bubblewrap; nothing that runs code is tested")
    with sandbox.Sandbox(level, closed=[EXERCISES]) as made:
        made.start()
        yield made


@pytest.fixture(scope="session")
def bits() -> Loaded:
    return source.find(EXERCISES, "bits_per_dim")


@pytest.fixture(scope="session")
def marked(box: sandbox.Sandbox, bits: Loaded) -> Callable[..., judge.Graded]:
    """Grade cells as a submission to the exercise bits_per_dim."""

    def grade(*cells: str, seconds: float = PATIENT, key: int = 7) -> judge.Graded:
        return judge.grade(box, bits, cells, key, seconds)

    return grade
