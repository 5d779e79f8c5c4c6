"""Checks for a student's own notebook: `from ddpm_lite.checks import check`.

They compare with numbers that come with the package; no solution does. What the grader asks later
is the same in kind, with other inputs.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..grading.compare import GENERIC, PROPERTIES, Fault, diagnose, fault
from ..grading.execute import MISSING, Outcome, perform
from ..grading.public import get
from ..grading.values import read_outcome, read_steps

__all__ = ["CheckFailed", "check", "names", "pack"]

FOLDER = Path(__file__).parent / "numbers"


class CheckFailed(AssertionError):
    """Raised by `check(..., strict=True)`; the message is what would have been printed."""


def check(name: str, answer: Any = None, *, numbers: str = "", strict: bool = False) -> None:
    """Check an answer and print one line per property, ✓ or ✗, and a hint where one fails.

    name: of the exercise. answer: the function or class; by default what the notebook calls so.
    numbers: those of a class's own variant, as its notebook holds them.
    strict: raise CheckFailed where a property fails, instead of printing only.

    Raises ValueError, listing the names, for an exercise that is not known.
    """
    table = _unpack(numbers) if numbers else _shipped()
    if name not in table:
        raise ValueError(f"no exercise {name!r}: known are {', '.join(sorted(table))}")
    entry = table[name]
    around = sys._getframe(1).f_globals
    if answer is None:
        answer = around.get(entry["answer"], MISSING)
    lines, good = _lines(entry, answer, around)
    text = "\n".join([name, *lines])
    if strict and not good:
        raise CheckFailed(text)
    print(text)


def names() -> list[str]:
    """The exercises that the package has numbers for."""
    return sorted(_shipped())


def pack(table: Mapping[str, Any]) -> str:
    """Numbers as a notebook holds them."""
    return base64.b85encode(zlib.compress(json.dumps(table).encode(), 9)).decode()


def _unpack(text: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(zlib.decompress(base64.b85decode(text)))
    return table


def _shipped() -> dict[str, Any]:
    table: dict[str, Any] = {}
    for path in sorted(FOLDER.glob("*.json")):
        table |= json.loads(path.read_text(encoding="utf-8"))
    return table


def _lines(
    entry: Mapping[str, Any], answer: Any, around: Mapping[str, Any]
) -> tuple[list[str], bool]:
    """What to say, and whether all is well."""
    expected = [read_outcome(written, get) for written in entry["expected"]]
    missing = [name for name in entry["given"] if name not in around]
    if missing and answer is not MISSING:
        return [f"  ✗ exists: {', '.join(missing)} is gone: run the exercise's cell again"], False
    got = [perform(answer, around, read_steps(steps, get)) for steps in entry["steps"]]
    checks = [c for c in entry["checks"] for _ in range(c["cases"])]
    faults = [fault(g, w, c["tolerance"]) for g, w, c in zip(got, expected, checks, strict=True)]
    hints = _hints(entry, got, expected, checks, faults)
    lines: list[str] = []
    for name in PROPERTIES[:-2]:
        first = next((i for i, f in enumerate(faults) if f and f.property == name), None)
        if first is not None:
            return [*lines, *_bad(name, faults[first], hints[first])], False
        lines.append(f"  ✓ {name}")
    start = 0
    for c in entry["checks"]:
        own = range(start, start + c["cases"])
        start += c["cases"]
        first = next((i for i in own if faults[i]), None)
        if first is None:
            lines.append(f"  ✓ values: {c['title']}")
        else:
            lines += _bad(f"values: {c['title']}", faults[first], hints[first])
    return lines, not any(faults)


def _bad(what: str, found: Fault | None, hint: str) -> list[str]:
    assert found is not None
    return [f"  ✗ {what}: {found.detail}", f"    hint: {hint}"]


def _hints(
    entry: Mapping[str, Any],
    got: Sequence[Outcome],
    expected: Sequence[Outcome],
    checks: Sequence[Mapping[str, Any]],
    faults: Sequence[Fault | None],
) -> dict[int, str]:
    """Failing case -> its hint: a known mistake's, else the property's or the check's own."""
    mistakes = [
        (
            hint,
            [w if o is None else read_outcome(o, get) for o, w in zip(row, expected, strict=True)],
        )
        for hint, row in entry["mistakes"]
    ]
    failing = [i for i, found in enumerate(faults) if found]
    known = diagnose(got, [c["tolerance"] for c in checks], failing, mistakes)
    said = GENERIC | entry["hints"]
    hints = {}
    for i in failing:
        found = faults[i]
        assert found is not None
        own = checks[i]["hint"] if found.hint == "values" else ""
        hints[i] = said[known.get(i) or own or found.hint]
    return hints
