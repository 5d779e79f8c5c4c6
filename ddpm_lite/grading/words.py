"""What reports say: to the student in plain words, to the lecturer in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["feedback", "heading", "note", "notices", "reason", "remarks"]

Result = Mapping[str, Any]

CATEGORY = {  # a property that fails, as a student reads it
    "exists": "not found",
    "runs": "does not run",
    "type": "wrong type",
    "shape": "wrong shape",
    "dtype": "wrong dtype",
    "values": "wrong numbers",
    "input": "changes its input",
}
REASONS = {
    "no notebook": "There is no notebook (a file that ends in .ipynb) in what was handed in",
    "several notebooks": "There are several notebooks and none is named like the chapter, so that "
    "nobody can tell which one is meant: hand in one",
    "too many files": "There are more than a hundred notebooks: hand in one",
    "larger than 5 MB": "The notebook is larger than 5 MB: clear its outputs and save it again",
}


def heading(chapter: str) -> str:
    """A chapter as the title of its notebook has it: "Exercises 1: factorization"."""
    number, _, topic = chapter.partition("_")
    topic = topic.replace("_", " ")
    return f"Exercises {int(number)}: {topic}" if number.isdecimal() and topic else chapter


def feedback(check: Result) -> str:
    """What a student reads about one hidden check: the category and the hint."""
    if check["verdict"] == "pass":
        return "passed"
    if check["hint"] == "unreadable":
        return "not graded: see above"
    if check["hint"] in ("exists", "unwritten", "time", "crash"):  # these say it all
        return str(check["say"])
    return f"{CATEGORY.get(check['property'], 'not right')}: {check['say']}"


def remarks(row: Result) -> list[str]:
    """What a student reads about an exercise besides its checks."""
    found = []
    if row["left_out"] and row["points"] != row["of"]:
        found.append(
            f"Left out, though it changes what your answer uses: {_cells(row['left_out'])}. "
            "Only imports, functions, classes and constants are run."
        )
    if row["unchanged"]:
        found.append("This is still the code that you were given.")
    return found


def reason(result: Result) -> str:
    """Why a whole submission was not graded, as a sentence; "" where it was."""
    if result["foreign"]:
        return f"Not graded: this is {result['foreign']}."
    why = result["unreadable"]
    if not why:
        return ""
    return (
        REASONS.get(why)
        or f"The file could not be read as a notebook ({why}): save it as .ipynb and hand it in "
        "again"
    ) + "."


def notices(result: Result) -> list[str]:
    """What a student reads about the whole submission, before its exercises."""
    found = [reason(result)] if reason(result) else []
    if cells := broken(result):
        what, it = ("cells", "they are") if len(cells) > 1 else ("cell", "it is")
        found.append(
            f"Syntax error in code {what} {_numbers(cells)} (counted from 1, text cells left out): "
            f"{it} left out, all others count."
        )
    if result["others"]:
        what = "Not looked at" if result["file"] else "What was handed in"
        found.append(f"{what}: {', '.join(result['others'])}.")
    return found


def note(result: Result) -> str:
    """What a lecturer should know of a submission, in one line; mostly nothing."""
    if not result["final"]:
        return "grader error: not graded"
    found = [f"not graded: {result['foreign']}" if result["foreign"] else result["unreadable"]]
    if cells := broken(result):
        found.append(f"syntax error in code cell {_numbers(cells)}")
    rows = [] if result["unreadable"] else result["exercises"]
    missing = [row["name"] for row in rows if _all(row, "exists")]
    empty = [row["name"] for row in rows if row["unchanged"] or _all(row, "unwritten")]
    if rows and len(missing) == len(rows):
        found.append("none of the functions is defined: another chapter, or another variant?")
    elif missing:
        found.append(f"not defined: {', '.join(missing)}")
    if empty:
        found.append(f"as given out: {', '.join(empty)}")
    for verdict in ("timeout", "crash"):
        if names := [row["name"] for row in rows if row["verdict"] == verdict]:
            found.append(f"{verdict}: {', '.join(names)}")
    if names := [row["name"] for row in rows if row["left_out"] and row["points"] != row["of"]]:
        found.append(f"code left out that matters: {', '.join(names)}")
    if result["outdated"] and not result["foreign"]:
        found.append("made from other texts than the exercises have now")
    if result["others"]:
        what = "not looked at" if result["file"] else "handed in"
        found.append(f"{what}: {', '.join(result['others'])}")
    return "; ".join(part for part in found if part)


def broken(result: Result) -> list[int]:
    """The code cells of a submission that are no Python, counted from 1."""
    return sorted({int(n) for row in result["exercises"] for n in row["broken"]})


def _all(row: Result, hint: str) -> bool:
    return bool(row["checks"]) and all(check["hint"] == hint for check in row["checks"])


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _cells(numbers: Sequence[int]) -> str:
    return f"code cell {_numbers(numbers)}, counted from 1"
