"""Results as tables for other systems: CSV, nbgrader's columns, Gradescope."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import files
from .compare import GENERIC
from .notebook import Left
from .roster import Roster
from .words import feedback, note, notices, remarks

__all__ = ["feedback", "gradescope", "summary", "tables", "write_gradescope", "write_summary"]

NBGRADER = [
    "assignment",
    "duedate",
    "timestamp",
    "student_id",
    "last_name",
    "first_name",
    "email",
    "raw_score",
    "late_submission_penalty",
    "score",
    "max_score",
]
PERSONAL = NBGRADER[4:7]

Result = Mapping[str, Any]


def tables(
    results: Sequence[Result], out: Path, left: Sequence[Left] = (), roster: Roster | None = None
) -> None:
    """Write grades.csv, one column per exercise, and nbgrader.csv. An error leaves a blank.

    What was `left` has a row without a score; so has who is on the roster and handed nothing in.
    """
    of = {row["name"]: row["of"] for r in results for row in r["exercises"]}
    people = roster or Roster((), {})
    names = [f"{name} (of {points:g})" for name, points in of.items()]
    start = ["student", "chapter", "score", "max_score"]
    grades = [[*start, *names, "isolation", "note", "file", *people.columns]]
    nbgrader = [NBGRADER]
    seen = set()
    for r in results:
        each = {row["name"]: _number(row["points"]) for row in r["exercises"]}
        score, most = _number(r["points"]), _number(r["of"])
        key = people.find(r["student"])
        person = people.rows.get(key, {})
        said = note(r) if key or roster is None else f"not on the roster; {note(r)}"
        seen.add(key)
        columns = [*(each.get(name, "") for name in of), r["isolation"], said.removesuffix("; ")]
        more = [r["file"], *(person.get(name, "") for name in people.columns)]
        grades.append([r["student"], r["chapter"], score, most, *columns, *more])
        known = [person.get(name, "") for name in PERSONAL]
        late = "0" if score else ""
        row = [r["chapter"], "", "", key or r["student"], *known, score, late, score, most]
        nbgrader.append(row)
    blank = [""] * (len(start) - 1 + len(of) + 1)
    rest = [""] * len(people.columns)
    grades += [[name, *blank, f"not graded: {why}", name, *rest] for name, why in left]
    for key, person in people.rows.items():
        if key not in seen:
            row = [person.get(name, "") for name in people.columns]
            grades.append([key, *blank, "handed nothing in", "", *row])
    files.write(out / "grades.csv", _csv(grades))
    files.write(out / "nbgrader.csv", _csv(nbgrader))


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(c) for c in row] for row in rows])
    return text.getvalue().encode("utf-8", "replace")


def _cell(text: str) -> str:
    """A spreadsheet takes a cell that begins with one of these for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def gradescope(result: Result) -> dict[str, Any]:
    """A result as Gradescope's results.json; `output` stands above the tests."""
    tests = [
        {
            "name": f"{row['title']}: {check['title']}",
            "score": check["points"],
            "max_score": check["of"],
            "output": feedback(check),
            "output_format": "text",
            "visibility": "visible",
        }
        for row in result["exercises"]
        for check in row["checks"]
    ]
    said = [
        *notices(result),
        *(f"{row['title']}: {text}" for row in result["exercises"] for text in remarks(row)),
        f"Run in a sandbox of level {result['isolation']}.",
    ]
    return {
        "score": result["points"] or 0.0,
        "output": "\n".join(said),
        "output_format": "text",
        "tests": tests,
    }


def write_gradescope(results: Sequence[Result], out: Path) -> None:
    """Write gradescope/STUDENT.json for everybody who was graded."""
    for r in results:
        if r["final"]:
            text = json.dumps(gradescope(r), indent=1, sort_keys=True, ensure_ascii=False)
            files.write(out / "gradescope" / f"{r['student']}.json", f"{text}\n".encode())


def summary(results: Sequence[Result], left: Sequence[Left] = ()) -> dict[str, Any]:
    """The class in numbers: how many, how well, which hints were given most, who did not get far.

    A misconception is a hint for an answer that ran, or a hint of the exercise's own. What says
    only that there is no answer, or none that runs, is `not_run`.
    """
    graded = [r for r in results if r["points"] is not None]
    shares = [r["points"] / r["of"] if r["of"] else 0.0 for r in graded]
    bins = Counter(min(9, int(share * 10)) for share in shares)
    hints: Counter[tuple[str, str, str]] = Counter()
    idle: Counter[tuple[str, str, str]] = Counter()
    verdicts: Counter[str] = Counter()
    exercises: dict[str, dict[str, Any]] = {}
    for r in graded:
        for row in r["exercises"]:
            entry = exercises.setdefault(
                row["name"], {"title": row["title"], "full": 0, "sum": 0.0}
            )
            entry["of"], entry["full"] = row["of"], entry["full"] + (row["points"] == row["of"])
            entry["sum"] += row["points"]
            verdicts[row["verdict"]] += 1
            told = [c for c in row["checks"] if c["hint"] and c["hint"] != "unreadable"]
            if row["unchanged"] and told:
                idle[row["title"], "unchanged", UNCHANGED] += 1
                continue
            for table, wanted in ((hints, True), (idle, False)):  # each student once for each
                found = [c for c in told if _misconception(c) is wanted]
                table.update({(row["title"], c["hint"], c["say"]) for c in found})
    return {
        "students": len(results),
        "graded": len(graded),
        "mean": sum(shares) / len(shares) if shares else None,
        "histogram": [bins[i] for i in range(10)],
        "exercises": exercises,
        "verdicts": dict(sorted(verdicts.items())),
        "misconceptions": _ranked(hints),
        "not_run": _ranked(idle),
        "left": [list(row) for row in left],
    }


UNCHANGED = "still the code that was given"


def _misconception(check: Result) -> bool:
    return check["verdict"] == "wrong" or check["hint"] not in GENERIC


def _ranked(counted: Counter[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Most frequent first."""
    return [
        {"exercise": title, "hint": hint, "say": say, "students": n}
        for (title, hint, say), n in sorted(counted.items(), key=lambda kv: (-kv[1], kv[0]))
    ]


def write_summary(
    results: Sequence[Result], out: Path, left: Sequence[Left] = ()
) -> dict[str, Any]:
    """Write class.json; returns it."""
    found = summary(results, left)
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
    files.write(out / "class.json", f"{text}\n".encode())
    return found
