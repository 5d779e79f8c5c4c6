"""Which of a notebook's code is run: definitions, not the training loops around them.

This parses what a student wrote, so it runs in the sandbox. It is a convenience, not the defence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

__all__ = ["chosen", "without_magics"]

_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|\w+\s*=\s*[%!].*|[\w.]+\?{1,2}\s*)$")
_LITERAL = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp),
    *(ast.operator, ast.unaryop, ast.expr_context),
)


def chosen(cells: Sequence[str], answer: str) -> tuple[list[ast.stmt], list[int]]:
    """The statements to run, in order, and the numbers of the cells that do not parse.

    Taken: imports (also inside try and if), functions, classes, literal assignments, and such
    other assignments as the answer needs.
    """
    body: list[ast.stmt] = []
    broken = []
    for number, cell in enumerate(cells, 1):
        tree = _parse(cell)
        if tree is None:
            broken.append(number)
        else:
            body += tree.body
    needed = _needed(body, answer)
    return [node for node in body if _definition(node) or _names(node) & needed], broken


def without_magics(cell: str) -> str:
    """The cell with IPython's own lines replaced by `pass`."""
    lines = [_MAGIC.sub(r"\1pass", line) for line in cell.split("\n")]
    return "\n".join(lines)


def _parse(cell: str) -> ast.Module | None:
    for text in (cell, without_magics(cell)):  # a % may also begin a line of ordinary code
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def _definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Try | ast.If):
        inner = [*node.body, *node.orelse]
        return all(isinstance(n, ast.Import | ast.ImportFrom | ast.Pass) for n in inner)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return node.value is not None and all(isinstance(n, _LITERAL) for n in ast.walk(node.value))
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds)


def _names(node: ast.stmt) -> set[str]:
    """What a top-level statement defines by assignment."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def _needed(body: Sequence[ast.stmt], answer: str) -> set[str]:
    """Names that the answer uses, directly or through what it uses."""
    uses: dict[str, set[str]] = {}
    for node in body:
        defined = _names(node) or {getattr(node, "name", "")}
        inside = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for name in defined:
            uses[name] = uses.get(name, set()) | inside
    found, fresh = set(), {answer}
    while fresh:
        found |= fresh
        fresh = set().union(*(uses.get(name, set()) for name in fresh)) - found
    return found
