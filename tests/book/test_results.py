"""The {result} role, and whether this build's numbers agree with the committed ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from results import lookup, render

ROOT = Path(__file__).resolve().parents[2]
FRESH, COMMITTED = ROOT / "_build" / "results", ROOT / "ddpm_lite" / "results"


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    new, old = tmp_path / "new", tmp_path / "old"
    for folder, value in ((new, 12.3), (old, 9.0)):
        folder.mkdir()
        record = {
            "value": value,
            "unit": "bits/dim",
            "interval": [value - 0.4, value + 0.5],
            "n": 5,
        }
        table = {"fd": record}
        if folder == old:
            table |= {"old": {"value": -2.5}, "curve": {"value": {"ddim": [1.5, 0.25]}}}
        (folder / "05.json").write_text(json.dumps(table))
    return [new, old]


def test_value_interval_and_field(places: list[Path]) -> None:
    assert render("05/fd:.2f", places)[0] == "12.30"
    assert render("05/fd±:.1f", places)[0] == "12.3 [11.9,\N{NO-BREAK SPACE}12.8]"
    assert render("05/fd@n", places)[0] == "5"
    assert render("05/curve@ddim/1:.2f", places)[0] == "0.25"
    assert "bits/dim" in render("05/fd:.2f", places)[1]


def test_fresh_results_come_first_then_committed_ones(places: list[Path]) -> None:
    assert lookup("05/fd", places)["value"] == 12.3
    assert lookup("05/fd", places[1:])["value"] == 9.0
    assert render("05/old:.1f", places)[0] == "−2.5"


@pytest.mark.parametrize(
    "text",
    [
        "05/unknown:.2f",
        "06/fd",
        "05/old±:.1f",
        "05/fd@m",
        "05/curve",
        "05/curve@ddim/2",
        "a b",
        "05/fd:q",
    ],
)
def test_what_cannot_be_shown_is_an_error(text: str, places: list[Path]) -> None:
    with pytest.raises((LookupError, ValueError, TypeError)):
        render(text, places)


def test_fresh_and_committed_results_agree() -> None:
    apart = []
    for path in sorted(COMMITTED.glob("[0-9][0-9].json")):
        fresh = FRESH / path.name
        if not fresh.is_file():
            continue
        new = json.loads(fresh.read_text())
        for key, old in json.loads(path.read_text()).items():
            if key in new and isinstance(old, dict) and old.get("interval"):
                low, high = old["interval"]
                if not low <= new[key]["value"] <= high:
                    apart.append(f"{key}: {new[key]['value']} outside [{low}, {high}]")
    assert not apart, "\n".join(apart)
