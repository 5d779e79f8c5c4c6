"""A class's list, from any system that writes CSV: who should have handed something in."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Roster", "read_roster"]

KEYS = ("student", "student_id", "id", "username", "name")


class Roster(NamedTuple):
    """Who is in the class: by the name that their files have."""

    columns: tuple[str, ...]  # the other columns, as they are called there
    rows: Mapping[str, Mapping[str, str]]  # key -> its other columns

    def find(self, student: str) -> str:
        """Whose a submission is, or "". "KEY_…" is KEY's: platforms append a number to a name."""
        if student in self.rows:
            return student
        begun = [key for key in self.rows if student.startswith(f"{key}_")]
        return max(begun, key=len, default="")


def read_roster(path: Path) -> Roster:
    """Read a CSV with a line of headings; ValueError where it cannot be used.

    Names are those of the column `student` (or student_id, id, username, name), or else of the
    first column. Columns may be separated by commas, semicolons or tabs.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: save it again as CSV (UTF-8)") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    table = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if any(row)]
    if len(table) < 2:
        raise ValueError(f"{path} holds nobody: a line of headings and a line for each student")
    head = [name.strip() for name in table[0]]
    lower = [name.lower() for name in head]
    at = next((lower.index(key) for key in KEYS if key in lower), 0)
    rows: dict[str, dict[str, str]] = {}
    for row in table[1:]:
        key = row[at].strip() if at < len(row) else ""
        if not key:
            continue
        if key in rows:
            raise ValueError(
                f"{path}: {key!r} stands in it twice: use a column that tells them apart"
            )
        rows[key] = dict(zip(head, (cell.strip() for cell in row), strict=False))
    return Roster(tuple(name for i, name in enumerate(head) if i != at and name), rows)
