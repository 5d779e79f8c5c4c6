"""Arguments and outcomes as JSON values. Tensors go where `put` says, and come back by `get`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .execute import MAX_ITEMS, Outcome, Ref, Result, Step

__all__ = ["read", "read_outcome", "read_steps", "write", "write_outcome", "write_steps"]

Put = Callable[[Tensor], Any]
Get = Callable[[Any], Tensor]
_FORM = re.compile(r"tensor|number|array|tuple of \d{1,2}|other: [A-Za-z_]{1,40}( at \d{1,2})?")


def write(given: Any, put: Put) -> Any:
    """A value as JSON holds it: plain, or a one-letter tag with its content."""
    if isinstance(given, Tensor):
        return {"a": put(given)}
    if isinstance(given, Ref):
        return {"r": given.name}
    if isinstance(given, tuple):
        return {"t": [write(item, put) for item in given]}
    if isinstance(given, list):
        return [write(item, put) for item in given]
    if isinstance(given, dict):
        return {"d": {key: write(item, put) for key, item in given.items()}}
    if given is None or isinstance(given, bool | int | float | str):
        return given
    raise TypeError(f"a case may hold tensors and plain values, not a {type(given).__name__}")


def read(written: Any, get: Get) -> Any:
    """The value that `write` wrote."""
    if isinstance(written, list):
        return [read(item, get) for item in written]
    if not isinstance(written, Mapping):
        return written
    ((tag, content),) = written.items()
    if tag == "a":
        return get(content)
    if tag == "r":
        return Ref(content)
    if tag == "t":
        return tuple(read(item, get) for item in content)
    return {key: read(item, get) for key, item in content.items()}


def write_steps(steps: Sequence[Step], put: Put) -> list[Any]:
    """A case's steps."""
    return [
        [s.op, write(s.args, put), write(dict(s.kwargs), put), s.wrt, write(s.along, put)]
        for s in steps
    ]


def read_steps(written: Sequence[Any], get: Get) -> tuple[Step, ...]:
    """The steps that `write_steps` wrote."""
    return tuple(
        Step(op, read(args, get), read(kwargs, get), wrt, read(along, get))
        for op, args, kwargs, wrt, along in written
    )


def write_outcome(outcome: Outcome, put: Put) -> list[Any]:
    """An outcome; `put` gets its tensors in order."""
    rows = [[result.form, [put(item) for item in result.items]] for result in outcome.results]
    return [rows, outcome.stopped, outcome.mutated]


def read_outcome(written: Any, get: Get) -> Outcome:
    """The outcome that `write_outcome` wrote; ValueError or TypeError for anything else.

    What is read may come from a hostile process: `get` has its own checks.
    """
    rows, stopped, mutated = written
    if not isinstance(stopped, str) or not re.fullmatch(r"[A-Za-z ]{0,40}", stopped):
        raise ValueError("no outcome")
    results = []
    for form, items in rows:
        if not _FORM.fullmatch(form) or len(items) > MAX_ITEMS:
            raise ValueError("no result")
        expected = int(form[9:]) if form.startswith("tuple") else int(not form.startswith("other"))
        if len(items) != expected:
            raise ValueError("another number of items than said")
        results.append(Result(form, tuple(get(item) for item in items)))
    return Outcome(tuple(results), stopped, mutated is True)
