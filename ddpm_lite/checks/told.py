"""What `check` says about one case in the student's own notebook: its inputs, and what was raised.

Here the text of an exception may be shown, since it is the reader's own. The grader never does.
"""

from __future__ import annotations

import dis
import inspect
import linecache
import traceback
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor

from ..grading.choose import left_out
from ..grading.execute import MISSING, Ref, Step

__all__ = ["altered", "as_given", "given_code", "home", "inputs", "raised", "unseen"]

WIDTH = 90  # of a line of source
SHOWN = 300  # characters of a message or of a case's inputs
JUMPS = {*dis.hasjrel, *dis.hasjabs}
SILENT = ("PUSH_NULL", "CACHE", "EXTENDED_ARG", "NOP")
FRAMES = 3  # of the student's own, innermost


def given_code(source: str, name: str) -> dict[str, Any]:
    """What an exercise's starter defines; its lines can be shown where one of them raises."""
    file = f"<as given: {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": f"given_{name}"}
    exec(compile(source, file, "exec", dont_inherit=True), space)
    return space


def home(answer: Any, around: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names that an answer sees: those of the notebook or of the module it comes from."""
    inner = [v for v in vars(answer).values() if inspect.isfunction(v)] if _class(answer) else []
    found: Mapping[str, Any] = getattr(inner[0] if inner else answer, "__globals__", around)
    return found


def as_given(answer: Any, name: str, given: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether nothing that the starter defines has been changed yet, comments apart."""
    own = {n: thing for n, thing in given.items() if _class(thing) or inspect.isfunction(thing)}
    made = {n for n, thing in own.items() if thing.__module__ == given["__name__"]}
    return _alike(answer, given[name]) and all(
        n not in there or _alike(there[n], own[n]) for n in made - {name}
    )


def altered(names: Sequence[str], given: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Helpers of the exercise that the notebook has lost, or calls something else by now."""
    return [n for n in names if not _alike(there.get(n, MISSING), given[n])]


def unseen(answer: str, around: Mapping[str, Any]) -> list[str]:
    """Names that the answer uses and that cells of this session change where no grader looks."""
    cells = around.get("In")  # IPython keeps what was run
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
        return []
    return sorted({name for _, name in left_out(cells, answer)})


def raised(error: BaseException, there: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The message, and the notebook's lines that led to it."""
    text = _cut(" ".join(str(error).split()))
    name = type(error).__name__
    lines = [f"{name}: {text}" if text else name]
    frames = [
        (frame.f_code, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_globals is there or frame.f_globals is given
    ]
    for code, number in frames[-FRAMES:]:
        source = linecache.getline(code.co_filename, number).strip()[:WIDTH]
        lines.append(f"line {number} of {code.co_name}{': ' if source else ''}{source}")
    return lines


def inputs(steps: Sequence[Step], answer: Any) -> str:
    """A case in words: what the answer is called with; small tensors in full."""
    said = []
    for step in steps:
        args = list(map(_plain, step.args))
        if step.op in ("call", "build") or len(steps) == 1:
            args = _named(answer, args)
        args += [f"{name} = {_plain(value)}" for name, value in step.kwargs.items()]
        text = ", ".join(args)
        if step.op == "load":
            text = f"{', '.join(step.kwargs['state'])} loaded"
        elif step.op == "overwrite":
            text = "all these tensors overwritten"
        elif step.op == "gradient":
            wrt = step.wrt if isinstance(step.wrt, str) else f"argument {step.wrt}"
            text = f"gradient in {wrt} at {text}"
        said.append(text)
    return _cut("; then ".join(said))


def _named(answer: Any, args: Sequence[str]) -> list[str]:
    try:
        names = list(inspect.signature(answer).parameters)
    except (TypeError, ValueError):
        names = []
    names += [""] * (len(args) - len(names))
    return [f"{n} = {a}" if n else a for n, a in zip(names, args, strict=False)]


def _plain(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() <= 4 and value.ndim < 2:
            return str(_rounded(value.tolist()))
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Ref):
        return value.name
    if isinstance(value, tuple | list):
        text = ", ".join(map(_plain, value))
        return f"({text})" if isinstance(value, tuple) else f"[{text}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_plain(v)}' for k, v in value.items())}}}"
    return str(_rounded(value)) if isinstance(value, float) else repr(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def _class(thing: Any) -> bool:
    return isinstance(thing, type)


def _alike(a: Any, b: Any) -> bool:
    """Whether two functions or classes have the same code, names and constants."""
    if isinstance(a, FunctionType) and isinstance(b, FunctionType):
        return _content(a.__code__) == _content(b.__code__)
    if _class(a) and _class(b):
        return all(
            _alike(vars(a).get(n), v) for n, v in vars(b).items() if isinstance(v, FunctionType)
        )
    return a is b


def _content(code: CodeType) -> list[tuple[str, Any]]:
    """What a code does. A module's functions are called in two ways, as its import is compiled
    along or, in a notebook, before: they are one here."""
    found: list[tuple[str, Any]] = []
    for step in dis.get_instructions(code):
        value = _content(step.argval) if isinstance(step.argval, CodeType) else repr(step.argval)
        if step.opcode in JUMPS:
            value = ""
        if step.opname not in SILENT:
            found.append((step.opname.replace("METHOD", "ATTR"), value))
    return found
