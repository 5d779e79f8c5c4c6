"""Results as pages: one per student, and one for the class. All text in them is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from .. import files
from .words import feedback, heading, note, notices, remarks

__all__ = ["class_page", "student_page", "write_pages"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto;
       padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
         border-bottom: 1px solid #bbb; }
td.n, th.n { text-align: right; white-space: nowrap; }
.pass { color: #0a5c2b; } .fail { color: #8c1d18; }
.bar { background: #3f5f8f; height: 1rem; display: inline-block; vertical-align: middle; }
"""

Result = Mapping[str, Any]


def student_page(result: Result, when: str = "") -> str:
    """The feedback page of one student. `when`: the day of grading."""
    parts = [f"<p>{_points(result['points'], result['of'])}</p>"]
    parts += [f"<p class=fail>{_text(said)}</p>" for said in notices(result)]
    if not result["final"]:
        parts.append("<p>The grader failed here; this is not your fault and no score.</p>")
    for row in result["exercises"]:
        parts.append(f"<h2>{_text(row['title'])}: {_points(row['points'], row['of'])}</h2>")
        parts += [f"<p class=fail>{_text(said)}</p>" for said in remarks(row)]
        rows = [
            f"<tr><td>{_mark(check)}</td><td>{_text(check['title'])}</td>"
            f"<td>{_text(feedback(check))}</td>"
            f"<td class=n>{check['points']:g} / {check['of']:g}</td></tr>"
            for check in row["checks"]
        ]
        head = "<tr><th></th><th>What is checked</th><th>Result</th><th class=n>Points</th></tr>"
        parts.append(f"<table>{head}{''.join(rows)}</table>")
    file = f"{result['file']}, " if result["file"] else ""
    day = f"on {when} " if when else ""
    foot = f"Graded: {file}{day}in a sandbox of level {result['isolation']}."
    return _page(f"{heading(result['chapter'])}, {result['student']}", parts, foot)


def class_page(results: Sequence[Result], found: Mapping[str, Any]) -> str:
    """The lecturer's page: scores, what went wrong most, and who needs a look."""
    mean = "–" if found["mean"] is None else f"{found['mean']:.0%}"
    parts = [f"<p>{found['graded']} of {found['students']} graded, mean score {mean}.</p>"]
    most = max([*found["histogram"], 1])
    rows = [
        f"<tr><th scope=row class=n>{10 * i}–{10 * i + 10} %</th><td class=n>{n}</td>"
        f"<td><span class=bar style='width:{20 * n / most:.2f}rem'></span></td></tr>"
        for i, n in enumerate(found["histogram"])
    ]
    head = "<tr><th class=n>Score</th><th class=n>Students</th><th></th></tr>"
    parts.append(f"<h2>Scores</h2><table>{head}{''.join(rows)}</table>")
    rows = [
        f"<tr><td>{_text(e['title'])}</td><td class=n>{e['full']}</td>"
        f"<td class=n>{e['sum'] / max(1, found['graded']):.2f} / {e['of']:g}</td></tr>"
        for e in found["exercises"].values()
    ]
    head = "<tr><th>Exercise</th><th class=n>Full marks</th><th class=n>Mean</th></tr>"
    parts.append(f"<h2>Exercises</h2><table>{head}{''.join(rows)}</table>")
    parts.append(_hints("Misconceptions, most frequent first", found["misconceptions"]))
    parts.append(_hints("Not attempted, or nothing that runs", found["not_run"]))
    errors = [r["student"] for r in results if not r["final"]]
    notes = [f"{r['student']}: {note(r)}" for r in results if r["final"] and note(r)]
    parts += [
        _list("Grader errors: grade these again", errors),
        _list("Not graded: nobody's notebook as it stands", [": ".join(x) for x in found["left"]]),
        _list("Worth a look", notes),
    ]
    title = "Class summary" + (f", {heading(results[0]['chapter'])}" if results else "")
    level = results[0]["isolation"] if results else "–"
    return _page(title, parts, f"Graded in sandboxes of level {level}.")


def _hints(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of hints; those that one student alone was given are folded."""
    if not rows:
        return ""
    often = [row for row in rows if row["students"] > 1]
    once = rows[len(often) :]
    table = _hint_table(often or once)
    if often and once:
        table += f"<details><summary>Once each: {len(once)}</summary>{_hint_table(once)}</details>"
    return f"<h2>{title}</h2>{table}"


def _hint_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"<tr><td class=n>{row['students']}</td><td>{_text(row['exercise'])}</td>"
        f"<td>{_text(row['say'])}</td></tr>"
        for row in rows
    ]
    head = "<tr><th class=n>Students</th><th>Exercise</th><th>Hint they were given</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def write_pages(results: Sequence[Result], found: Mapping[str, Any], out: Path) -> None:
    """Write class.html, and feedback/STUDENT.html for everybody, with the day of the result."""
    for result in results:
        record = out / "students" / f"{result['student']}.json"
        when = date.fromtimestamp(record.stat().st_mtime).isoformat() if record.exists() else ""
        page = student_page(result, when)
        files.write(out / "feedback" / f"{result['student']}.html", page.encode())
    files.write(out / "class.html", class_page(results, found).encode())


def _text(text: Any) -> str:
    """Text as HTML, without the characters that steer a terminal."""
    return escape("".join(c if c.isprintable() else "�" for c in str(text)))


def _points(points: float | None, of: float) -> str:
    return "not graded" if points is None else f"{points:g} of {of:g} points"


def _mark(check: Result) -> str:
    good = check["verdict"] == "pass"
    return f"<span class={'pass' if good else 'fail'}>{'✓' if good else '✗'}</span>"


def _list(title: str, items: Sequence[str]) -> str:
    rows = "".join(f"<li>{_text(item)}</li>" for item in items)
    return f"<h2>{title}</h2><ul>{rows}</ul>" if items else ""


def _page(title: str, parts: Sequence[str], foot: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<h1>{_text(title)}</h1>{''.join(parts)}<p>{_text(foot)}</p></html>\n"
    )
