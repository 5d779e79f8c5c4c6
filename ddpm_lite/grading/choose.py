"""Which of a notebook's code is run: definitions, not the training loops around them.

This parses what a student wrote, so it runs in the sandbox (and, for `check`, in the student's own
notebook). It is a convenience, not the defence.
"""

from __future__ import annotations

import ast
import dis
import re
from collections.abc import Callable, Iterator, Sequence
from types import CodeType

__all__ = ["chosen", "left_out", "without_magics"]

_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|\w+\s*=\s*[%!].*|[\w.]+\?{1,2}\s*)$")
_LITERAL = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp),
    *(ast.operator, ast.unaryop, ast.expr_context),
)
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OWN_NAMES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOKS = ("LOAD_GLOBAL", "LOAD_NAME")
_CHANGING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "clear"}


def chosen(cells: Sequence[str], answer: str) -> tuple[list[ast.stmt], list[int]]:
    """The statements to run, in order, and the numbers of the cells that do not parse.

    Taken: imports (also inside try and if), functions, classes, literal assignments, and such
    other assignments as the answer needs.
    """
    body, broken = _read(cells)
    needed = _needed([node for _, node in body], answer)
    return [node for _, node in body if _taken(node, needed)], broken


def left_out(cells: Sequence[str], answer: str) -> list[tuple[int, str]]:
    """(cell, name): what the answer uses, and a statement of that cell changes but is not run."""
    body, _ = _read(cells)
    needed = _needed([node for _, node in body], answer)
    taken = [node for _, node in body if _taken(node, needed)]
    last = {node.name: node for node in taken if isinstance(node, _DEFINED)}
    valid = [n for n in taken if not isinstance(n, _DEFINED) or last[n.name] is n]
    used = _reached(valid, answer, _looked_up)
    found: list[tuple[int, str]] = []
    for number, node in body:
        if not _taken(node, needed):
            found += [(number, name) for name in sorted(set(_changed(node)) & used)]
        elif not isinstance(node, ast.AugAssign):  # defined anew: what was before does not matter
            anew = set(_changed(node))
            found = [(at, name) for at, name in found if name not in anew]
    return found


def without_magics(cell: str) -> str:
    """The cell with IPython's own lines replaced by `pass`."""
    lines = [_MAGIC.sub(r"\1pass", line) for line in cell.split("\n")]
    return "\n".join(lines)


def _read(cells: Sequence[str]) -> tuple[list[tuple[int, ast.stmt]], list[int]]:
    """The statements with their cells' numbers, and the numbers of the cells that do not parse."""
    body: list[tuple[int, ast.stmt]] = []
    broken = []
    for number, cell in enumerate(cells, 1):
        tree = _parse(cell)
        if tree is None:
            broken.append(number)
        else:
            body += [(number, node) for node in tree.body]
    return body, broken


def _parse(cell: str) -> ast.Module | None:
    for text in (cell, without_magics(cell)):  # a % may also begin a line of ordinary code
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def _taken(node: ast.stmt, needed: set[str]) -> bool:
    return _definition(node) or bool(_names(node) & needed)


def _definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Try | ast.If):
        inner = [*node.body, *node.orelse]
        return all(isinstance(n, ast.Import | ast.ImportFrom | ast.Pass) for n in inner)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return node.value is not None and all(isinstance(n, _LITERAL) for n in ast.walk(node.value))
    return isinstance(node, (ast.Import, ast.ImportFrom, *_DEFINED))


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
    return _reached(body, answer, _inside)


def _reached(
    body: Sequence[ast.stmt], answer: str, within: Callable[[ast.stmt], set[str]]
) -> set[str]:
    """The answer's name, what stands within its definition, within the definition of that, …"""
    uses: dict[str, set[str]] = {}
    for node in body:
        for name in _names(node) or {getattr(node, "name", "")}:
            uses[name] = uses.get(name, set()) | within(node)
    found, fresh = set(), {answer}
    while fresh:
        found |= fresh
        fresh = set().union(*(uses.get(name, set()) for name in fresh)) - found
    return found


def _inside(node: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _looked_up(node: ast.stmt) -> set[str]:
    """Names that a statement's code looks up outside of itself: not its own variables."""
    try:
        codes = [compile(ast.Module([node], []), "<notebook>", "exec")]
    except (SyntaxError, ValueError, RecursionError):
        return set()
    found: set[str] = set()
    for code in codes:  # grows while it is gone through
        found |= {i.argval for i in dis.get_instructions(code) if i.opname in _LOOKS}
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return found


def _changed(node: ast.AST) -> Iterator[str]:
    """Names that a statement which is not run would bind, delete or change in place."""
    if isinstance(node, _DEFINED):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Subscript | ast.Attribute):
        method = node.attr if isinstance(node, ast.Attribute) else ""
        if not isinstance(node.ctx, ast.Load) or method in _CHANGING or method[-1:] == "_":
            yield _root(node)
    if not isinstance(node, (*_DEFINED, *_OWN_NAMES)):
        for inner in ast.iter_child_nodes(node):
            yield from _changed(inner)


def _root(node: ast.expr) -> str:
    """The name at the beginning of a.b[c].d, or "" where it begins otherwise."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
