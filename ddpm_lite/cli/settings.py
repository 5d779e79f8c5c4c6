"""`--set NAME=VALUE`: arguments of a model, as Python writes them."""

from __future__ import annotations

import ast
from typing import Any


def settings(pairs: list[str]) -> dict[str, Any]:
    """width=40 mults=1,2 head=logistic -> {"width": 40, "mults": (1, 2), "head": "logistic"}."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set takes NAME=VALUE, not {pair!r}: KIND comes before --set")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
        except (RecursionError, MemoryError) as error:
            raise ValueError(f"--set {name}: {text:.20}… is too deeply nested") from error
    return found
