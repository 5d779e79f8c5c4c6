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

__all__ = ["gradescope", "summary", "tables", "write_gradescope", "write_summary"]

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

Result = Mapping[str, Any]
NO_ANSWER = ("unwritten", "unreadable")  # hints that tell of no misconception


def tables(results: Sequence[Result], out: Path) -> None:
    """Write grades.csv, one column per exercise, and nbgrader.csv. An error leaves a blank."""
    names = list(dict.fromkeys(row["name"] for r in results for row in r["exercises"]))
    grades = [["student", "chapter", "score", "max_score", *names, "isolation", "note"]]
    nbgrader = [NBGRADER]
    for r in results:
        each = {row["name"]: _number(row["points"]) for row in r["exercises"]}
        score, of = _number(r["points"]), _number(r["of"])
        note = r["unreadable"] or ("" if r["final"] else "grader error: not graded")
        columns = [each.get(name, "") for name in names]
        grades.append([r["student"], r["chapter"], score, of, *columns, r["isolation"], note])
        late = "0" if score else ""
        row = [r["chapter"], "", "", r["student"], "", "", "", score, late, score, of]
        nbgrader.append(row)
    files.write(out / "grades.csv", _csv(grades))
    files.write(out / "nbgrader.csv", _csv(nbgrader))


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(c) for c in row] for row in rows])
    return text.getvalue().encode()


def _cell(text: str) -> str:
    """A spreadsheet takes a cell that begins with one of these for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def gradescope(result: Result) -> dict[str, Any]:
    """A result as Gradescope's results.json."""
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
    said = f"isolation level {result['isolation']}"
    return {"score": result["points"] or 0.0, "output": said, "tests": tests}


def write_gradescope(results: Sequence[Result], out: Path) -> None:
    """Write gradescope/STUDENT.json for everybody who was graded."""
    for r in results:
        if r["final"]:
            text = json.dumps(gradescope(r), indent=1, sort_keys=True, ensure_ascii=False)
            files.write(out / "gradescope" / f"{r['student']}.json", f"{text}\n".encode())


def feedback(check: Result) -> str:
    """What a student reads about one hidden check: the category and the hint."""
    if check["verdict"] == "pass":
        return "passed"
    where = f", {check['property']}" if check["property"] else ""
    return f"{check['verdict']}{where}: {check['say']}"


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The class in numbers: how many, how well, and which hints were given most."""
    graded = [r for r in results if r["final"]]
    shares = [r["points"] / r["of"] if r["of"] else 0.0 for r in graded]
    bins = Counter(min(9, int(share * 10)) for share in shares)
    hints: Counter[tuple[str, str, str]] = Counter()
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
            told = {
                (row["title"], c["hint"], c["say"])
                for c in row["checks"]
                if c["hint"] and c["hint"] not in NO_ANSWER
            }
            hints.update(told)  # each student counts once for each
    return {
        "students": len(results),
        "graded": len(graded),
        "mean": sum(shares) / len(shares) if shares else None,
        "histogram": [bins[i] for i in range(10)],
        "exercises": exercises,
        "verdicts": dict(sorted(verdicts.items())),
        "misconceptions": [
            {"exercise": title, "hint": hint, "say": say, "students": n}
            for (title, hint, say), n in sorted(hints.items(), key=lambda kv: (-kv[1], kv[0]))
        ],
    }


def write_summary(results: Sequence[Result], out: Path) -> dict[str, Any]:
    """Write class.json; returns it."""
    found = summary(results)
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
    files.write(out / "class.json", f"{text}\n".encode())
    return found
