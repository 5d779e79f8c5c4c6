"""Checks for a student's own notebook: `from ddpm_lite.checks import check`.

They compare with numbers that come with the package; no solution does. What the grader asks later
is the same in kind, with other inputs.
"""

from __future__ import annotations

import base64
import inspect
import json
import sys
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..grading.compare import GENERIC, PROPERTIES, Fault, diagnose, fault
from ..grading.execute import MISSING, Outcome, Ref, perform
from ..grading.public import get
from ..grading.values import read_outcome, read_steps
from . import told

__all__ = ["CheckFailed", "case", "check", "names", "pack"]

FOLDER = Path(__file__).parent / "numbers"
WIDTH = 78  # of a printed line: notebooks and pages show so much without a scroll bar
UNCHANGED = (
    "this is still the program as given. What did you predict? Hints come once you change it"
)


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
    around = sys._getframe(1).f_globals
    if not isinstance(name, str):
        text, good = _turned(name, table), False
    else:
        entry = _entry(table, name)
        if answer is None:
            answer = around.get(entry["answer"], MISSING)
        lines, good = _Report(name, entry, answer, around).lines()
        text = "\n".join([name, *map(_wrapped, lines)])
    if strict and not good:
        raise CheckFailed(text)
    print(text)


def case(name: str, number: int, *, numbers: str = "") -> Any:
    """The inputs of a case that `check` speaks of, fresh, to try it by hand.

    For a function the arguments, so that `f(*case("name", 2))` is the call. For a class a list of
    what is done with it: pairs of a word ("build", "forward", …) and arguments; "load" has a state.

    Raises ValueError for an exercise or a case that there is not.
    """
    entry = _entry(_unpack(numbers) if numbers else _shipped(), name)
    if not 1 <= number <= len(entry["steps"]):
        raise ValueError(f"{name} has the cases 1 to {len(entry['steps'])}, and no {number}")
    given = told.given_code(entry["starter"], name)
    steps = read_steps(entry["steps"][number - 1], get)
    if len(steps) == 1:
        asked = inspect.signature(given[entry["answer"]]).bind(*steps[0].args, **steps[0].kwargs)
        return tuple(given[a.name] if isinstance(a, Ref) else a for a in asked.args)
    return [(s.op, s.kwargs["state"] if s.op == "load" else s.args) for s in steps]


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


def _entry(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in table:
        raise ValueError(f"no exercise {name!r}: known are {', '.join(sorted(table))}")
    entry: dict[str, Any] = table[name]
    return entry


def _turned(given: Any, table: Mapping[str, Any]) -> str:
    """What to write instead, where the exercise's name was left out."""
    name = getattr(given, "__name__", "")
    names = [n for n, entry in table.items() if name in (n, entry["answer"])] or ["NAME"]
    return f'the exercise\'s name comes first: check("{names[0]}", {name or "..."})'


def _wrapped(line: str) -> str:
    """A line cut to the width; what follows is set in as far as its text."""
    inner = line.lstrip()
    indent = " " * (len(line) - len(inner) + 2 * (inner[:1] in "✓✗"))
    return textwrap.fill(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


class _Report:
    """All cases performed, and what to say about them."""

    def __init__(
        self, name: str, entry: Mapping[str, Any], answer: Any, around: Mapping[str, Any]
    ) -> None:
        self.name, self.entry, self.answer = name, entry, answer
        self.given = told.given_code(entry["starter"], name)
        self.there = told.home(answer, around)
        self.steps = [read_steps(steps, get) for steps in entry["steps"]]
        self.errors: list[list[BaseException]] = [[] for _ in self.steps]
        self.checks = [c for c in entry["checks"] for _ in range(c["cases"])]
        expected = [read_outcome(written, get) for written in entry["expected"]]
        got = [
            perform(answer, self.given, steps, errors.append)
            for steps, errors in zip(self.steps, self.errors, strict=True)
        ]
        rows = zip(got, expected, self.checks, strict=True)
        self.faults = [fault(g, w, c["tolerance"]) for g, w, c in rows]
        untouched = told.as_given(answer, entry["answer"], self.given, self.there)
        self.hints = _hints(entry, got, expected, self.checks, self.faults)
        if untouched and any(f and f.hint != "unwritten" for f in self.faults):
            self.hints = dict.fromkeys(self.hints, "")
        self.last = ""  # hint that was given
        self.notes = self._notes(around) + ([f"  {UNCHANGED}"] if "" in self.hints.values() else [])

    def lines(self) -> tuple[list[str], bool]:
        """What to print, and whether all is well."""
        lines: list[str] = []
        whole = [True] * len(self.faults)  # cases with no fault so far
        for name in PROPERTIES[:-2]:
            bad = [i for i, f in enumerate(self.faults) if f and f.property == name]
            lines += self._bad(name, bad) if bad else [f"  ✓ {name}"]
            whole = [w and i not in bad for i, w in enumerate(whole)]
            if not any(whole):  # the further properties have nothing left to be seen in
                return [*lines, *self.notes], False
        start = 0
        for c in self.entry["checks"]:
            what = f"values: {c['title']}"
            own = range(start, start + c["cases"])
            start += c["cases"]
            bad = [i for i in own if self.faults[i] and whole[i]]
            before = [f.property for i in own if (f := self.faults[i]) and not whole[i]]
            if bad:
                lines += self._bad(what, bad)
            else:
                lines.append(f"  ✗ {what}: see {before[0]}" if before else f"  ✓ {what}")
        return [*lines, *self.notes], not any(self.faults)

    def _bad(self, what: str, bad: Sequence[int]) -> list[str]:
        """A property that fails, by the first of the cases in which it does."""
        found = self.faults[bad[0]]
        assert found is not None
        detail, where = found.detail, []
        if self.errors[bad[0]] and found.hint != "unwritten":
            detail, *where = told.raised(self.errors[bad[0]][0], self.there, self.given)
        lines = [f"  ✗ {what}: {detail}", *(f"      {line}" for line in where)]
        if found.hint not in ("unwritten", "exists"):
            said = told.inputs(self.steps[bad[0]], self.answer)
            lines.append(f"    case {bad[0] + 1}: {said}")
        hint = self.hints[bad[0]]
        if hint == GENERIC["runs"]:
            hint = f'to try it alone: case("{self.name}", {bad[0] + 1}) gives these inputs'
        if hint and hint not in (GENERIC["type"], self.last):  # not what has just been said
            lines.append(f"    hint: {hint}")
        self.last = hint
        return lines

    def _notes(self, around: Mapping[str, Any]) -> list[str]:
        found = []
        if any(self.faults) and self.answer is not MISSING:
            other = told.altered(self.entry["given"], self.given, self.there)
            if other:
                text = f"not what was given here, or not any more: {', '.join(other)}"
                found.append(f"  note: {text}. Run the exercise's own cell again")
        for name in told.unseen(self.entry["answer"], around):
            found.append(
                f"  note: {name} is changed by code that the grader does not run (it runs imports, "
                "functions, classes and constants): your answer will miss that"
            )
        return found


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
