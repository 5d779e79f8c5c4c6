"""Measured numbers: shown where they are made, written down with where they come from.

A key is "chapter/name", such as "05/fd_ar". Where the environment names a directory in
$DDPM_LITE_RESULTS, `record` adds to its file `05.json`; the prose reads its numbers from there.
Results of long runs come with the package, and `committed` reads them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from . import files, require
from .provenance import versions

__all__ = ["committed", "record", "results"]

COMMITTED = Path(__file__).parent / "results"
_KEY = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+")

T = TypeVar("T")


def record(
    key: str,
    value: T,
    unit: str = "",
    interval: Sequence[float] | None = None,
    n: int | None = None,
    **more: Any,
) -> T:
    """Show a measured value, and write it down where $DDPM_LITE_RESULTS says. Returns the value.

    Args:
        key: "chapter/name".
        value: a number, text, or a list or table of such (0-d tensors and numpy numbers too).
        unit: such as "bits/dim", "s", "images/s"; "" for a pure number.
        interval: (low, high) of the interval to state beside it.
        n: how many images or repeats it is made of.
        more: what else belongs to it, such as seed, profile, device, floor.

    Raises ValueError for a key of another form and for values that JSON cannot hold, NaN and
    infinities among them.
    """
    chapter, name = _parts(key)
    if not isinstance(unit, str):
        raise ValueError(f"{key}: unit must be text, such as 'bits/dim', not {unit!r}")
    if n is not None:
        require.whole(f"{key}: n", n)
    entry = {"value": _plain(value, key)}
    if interval is not None:
        try:
            low, high = (float(v) for v in interval)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: interval must be (low, high), not {interval!r}") from error
        if low > high:
            raise ValueError(f"{key}: interval must be (low, high), not ({low}, {high})")
        entry["interval"] = _plain([low, high], key)
    for field, given in {"unit": unit, "n": n, **more}.items():
        if field in ("interval", "versions"):
            raise ValueError(f"{key}: {field!r} is not a name for more")
        if given not in ("", None):
            entry[field] = _plain(given, key)
    entry["versions"] = versions()
    print(_shown(key, entry))
    if directory := os.environ.get("DDPM_LITE_RESULTS"):
        path = Path(directory) / f"{chapter}.json"
        table = (_table(path) if path.is_file() else {}) | {name: entry}
        text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False)
        files.write(path, f"{text}\n".encode())
    return value


def results(chapter: str, directory: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """All entries of a chapter: name -> {"value", "unit", "interval", "n", …}.

    They are the committed ones, or those that `record` wrote under `directory`. Raises ValueError,
    listing the chapters there are, for any other.
    """
    folder = COMMITTED if directory is None else Path(directory)
    path = folder / f"{chapter}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise ValueError(f"no results of chapter {chapter!r} in {folder.name}/: known are {known}")
    return _table(path)


def committed(key: str) -> Any:
    """The value that the package holds under `key`; `results` has what belongs to it.

    Raises ValueError, listing the chapter's names, for a key that nobody committed.
    """
    chapter, name = _parts(key)
    table = results(chapter)
    if name not in table:
        raise ValueError(f"no committed result {key!r}: known are {', '.join(sorted(table))}")
    return table[name]["value"]


def _parts(key: str) -> tuple[str, str]:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f'a key is "chapter/name", such as "05/fd_ar", not {key!r}')
    chapter, _, name = key.partition("/")
    return chapter, name


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: remove it and measure again ({error})") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} holds no table of results: remove it and measure again")
    return table


def _plain(value: Any, key: str) -> Any:
    """`value` as JSON holds it."""
    if hasattr(value, "tolist"):  # tensors, numpy arrays and numpy numbers
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v, key) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, key) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}: {value} is not a finite number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"{key}: cannot write down a {type(value).__name__}: give numbers or text")


def _shown(key: str, entry: dict[str, Any]) -> str:
    """One line, rounded to four digits: the same on machines that differ in the last ones."""
    value = entry["value"]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, list | dict):
        text = f"{len(value)} entries"
    text += f" {entry['unit']}" if "unit" in entry else ""
    if "interval" in entry:
        text += " [{:.4g}, {:.4g}]".format(*entry["interval"])
    return f"{key} = {text}" + (f" (n = {entry['n']:,})" if "n" in entry else "")
