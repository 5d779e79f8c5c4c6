"""Recorded numbers: shown, written with provenance, never half-written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_lite import record as module
from ddpm_lite.record import committed, record, results


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPM_LITE_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_what_is_shown_and_written(directory: Path, capsys: pytest.CaptureFixture) -> None:
    value = record("05/fd_ar", 12.34567, "units", interval=(11.5, 13.25), n=5000, seed=3)
    assert value == 12.34567
    assert capsys.readouterr().out == "05/fd_ar = 12.35 units [11.5, 13.25] (n = 5,000)\n"
    entry = json.loads((directory / "05.json").read_text())["fd_ar"]
    versions = entry.pop("versions")
    assert versions["torch"] == torch.__version__ and versions["ddpm_lite"]
    assert entry == {
        "value": 12.34567,
        "unit": "units",
        "interval": [11.5, 13.25],
        "n": 5000,
        "seed": 3,
    }


def test_entries_join_their_chapter(directory: Path) -> None:
    record("01/a", 1)
    record("01/b", [1, 2.5, "x"])
    record("02/a", True)
    record("01/a", 3)
    assert {k: v["value"] for k, v in results("01", directory).items()} == {
        "a": 3,
        "b": [1, 2.5, "x"],
    }
    assert sorted(p.name for p in directory.iterdir()) == ["01.json", "02.json"]


def test_without_a_directory_it_only_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("DDPM_LITE_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    record("01/a", 0.000123456, "s")
    assert capsys.readouterr().out == "01/a = 0.0001235 s\n" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(1.5), 1.5),
        (np.float64(2.5), 2.5),
        (np.int64(3), 3),
        (torch.tensor([1, 2]), [1, 2]),
        ((1.0, (2, 3)), [1.0, [2, 3]]),
        ({5: np.array([0.5])}, {"5": [0.5]}),
    ],
)
def test_kinds_of_values(value: object, expected: object, directory: Path) -> None:
    record("01/a", value)
    assert results("01", directory)["a"]["value"] == expected


@pytest.mark.parametrize("key", ["a", "01/", "/a", "01/a/b", "../x/a", "01/a b", "", None, 3])
def test_bad_keys(key: object, directory: Path) -> None:
    with pytest.raises(ValueError, match="chapter/name"):
        record(key, 1)  # type: ignore[arg-type]
    assert not directory.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")], object()])
def test_bad_values(value: object, directory: Path) -> None:
    with pytest.raises(ValueError, match="01/a"):
        record("01/a", value)
    assert not directory.exists()


def test_a_damaged_chapter_is_not_overwritten(directory: Path) -> None:
    directory.mkdir()
    path = directory / "01.json"
    for text in ("{", "[1]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="measure again"):
            record("01/a", 1)
        assert path.read_text() == text


def test_a_failed_write_changes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("01/a", 1)
    before = (directory / "01.json").read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        record("01/b", 2)
    assert [p.read_bytes() for p in directory.iterdir()] == [before]


def test_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMITTED", tmp_path)
    (tmp_path / "05.json").write_text('{"fd": {"value": 3.5, "n": 10}}')
    assert committed("05/fd") == 3.5 and results("05")["fd"]["n"] == 10
    with pytest.raises(ValueError, match="known are fd"):
        committed("05/fdd")
    with pytest.raises(ValueError, match="known are 05"):
        results("06")
