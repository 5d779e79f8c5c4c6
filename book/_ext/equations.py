"""Equations that run: a numbered equation needs a check of the same name.

The equation labelled `eq-chain-rule` is checked by `test_eq_chain_rule` (further checks of the same
equation: `test_eq_chain_rule__any_order`) in `tests/equations/`. The page names the check under the
equation; a labelled equation without one is a warning, and warnings fail the build.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from course_repo import find_root, read
from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def checks(folder: Path) -> dict[str, str]:
    """Name of each check -> "file::name", read without running anything."""
    found = {}
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_eq_"):
                found[node.name] = f"tests/equations/{path.name}::{node.name}"
    return found


def checks_of(label: str, known: dict[str, str]) -> list[str]:
    """The checks of one equation, the one that bears exactly its name first."""
    name = "test_" + re.sub(r"\W", "_", label)
    return [
        known[name] for name in sorted(n for n in known if n == name or n.startswith(f"{name}__"))
    ]


def _mark(app: Any, doctree: nodes.document, docname: str) -> None:
    root = find_root(Path(app.confdir))
    known, course = checks(root / "tests" / "equations"), read(root)
    for block in list(doctree.findall(nodes.math_block)):
        label = block.get("label")
        if not label:
            continue
        where = checks_of(label, known)
        if not label.startswith("eq-"):
            logger.warning("equation label %r must begin with 'eq-'", label, location=block)
        if not where:
            expected = "test_" + re.sub(r"\W", "_", label)
            message = "equation %r has no check: write %s in tests/equations/"
            logger.warning(message, label, expected, location=block)
            continue
        file, _, test = where[0].partition("::")
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        title = f"{file}::{test}{more}"
        mark: nodes.Node = nodes.literal("", test)
        if course.repository:
            mark = nodes.reference("", "", mark, refuri=course.blob(file), internal=False)
        tick = nodes.abbreviation("", "✓ checked", explanation=title)
        line = nodes.paragraph("", "", tick, nodes.Text(" by "), mark, classes=["equation-check"])
        block.parent.insert(block.parent.index(block) + 1, line)


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-resolved", _mark)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
