"""The `{result}` role: every measured number in the prose comes from a recorded file.

    {result}`05/fd_ar:.2f`       the value, formatted as Python would
    {result}`05/fd_ar±:.2f`      the value with its interval: 12.30 [11.90, 12.80]
    {result}`05/fd_ar@n`         another field of the record: n, unit, seed, ...
    {result}`05/curve@ddim/10:.2f`   an entry of a recorded table or list
    {result}`times/01_factorization:.0f`   seconds a notebook took in this build

The fresh results of this build (`$DDPM_LITE_RESULTS`, else `_build/results`) come first, then the
committed ones (`ddpm_lite/results`). An unknown key is a warning, and warnings fail the build.
Pointing at the number shows its unit, interval and sample size.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from course_repo import find_root
from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)
SYNTAX = re.compile(r"(?P<key>[^:±@\s]+)(@(?P<field>[\w./-]+))?(?P<interval>±)?(:(?P<format>.+))?")


def folders(root: Path) -> list[Path]:
    """Where results are looked up, first one first."""
    fresh = os.environ.get("DDPM_LITE_RESULTS") or root / "_build" / "results"
    return [Path(fresh), root / "ddpm_lite" / "results"]


def lookup(key: str, places: list[Path]) -> dict[str, Any]:
    """The record of `key` ("05/fd_ar" is in "05.json"); KeyError where nobody recorded it."""
    chapter, _, name = key.partition("/")
    for folder in places:
        path = folder / f"{chapter}.json"
        if path.is_file():
            table = json.loads(path.read_text(encoding="utf-8"))
            if name in table:
                record: dict[str, Any] = table[name]
                return record
    raise KeyError(key)


def _dig(record: dict[str, Any], field: str) -> Any:
    """`record[field]`, or the entry of its value that the parts of `field` name."""
    if field in record:
        return record[field]
    found = record["value"]
    for part in field.split("/"):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def _written(value: Any, form: str) -> str:
    text = format(value, form)
    return text.replace("-", "\N{MINUS SIGN}") if isinstance(value, int | float) else text


def render(text: str, places: list[Path]) -> tuple[str, str]:
    """What stands in the page and what pointing at it shows."""
    match = SYNTAX.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"cannot read {text!r}; write key:format, key±:format or key@field")
    key, field, form = match["key"], match["field"], match["format"] or ""
    record = lookup(key, places)
    value = _dig(record, field) if field else record["value"]
    if isinstance(value, list | dict):
        raise ValueError(f"{key} holds a table: name an entry, {key}@entry")
    shown = _written(value, form)
    bounds = record.get("interval")
    if match["interval"]:
        if not bounds:
            raise ValueError(f"{key} was recorded without an interval")
        shown += " [{},\N{NO-BREAK SPACE}{}]".format(*(_written(bound, form) for bound in bounds))
    notes = [f"measured: {key}"]
    if not field:  # these describe the value, not what else was recorded with it
        notes += [str(record["unit"])] if "unit" in record else []
        notes += ["interval {:.4g} to {:.4g}".format(*bounds)] if bounds else []
        notes += [f"n = {record['n']}"] if "n" in record else []
    return shown, "; ".join(note for note in notes if note)


def result_role(
    name: str,
    rawtext: str,
    text: str,
    lineno: int,
    inliner: Any,
    options: Any = None,
    content: Any = (),
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    env = inliner.document.settings.env
    try:
        shown, title = render(text, folders(find_root(Path(env.app.confdir))))
    except (LookupError, ValueError, TypeError) as error:
        reason = f"no recorded result {error}" if isinstance(error, KeyError) else str(error)
        logger.warning("result: %s", reason, location=(env.docname, lineno))
        return [nodes.strong(rawtext, f"?? {text} ??")], []
    return [nodes.abbreviation(rawtext, shown, explanation=title, classes=["result"])], []


def setup(app: Any) -> dict[str, Any]:
    app.add_role("result", result_role)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
