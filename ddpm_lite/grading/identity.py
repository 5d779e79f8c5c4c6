"""Which exercises a notebook was made from: written into it at its release, asked at its grading.

Students can write there what they like. So it never gives a point: it tells a notebook of another
chapter, set or variant from one without answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from .source import Loaded

__all__ = ["KEY", "Origin", "foreign", "identity", "origin", "written"]

KEY = "ddpm_lite"  # in a notebook's metadata
MOST, LONG = 50, 80  # answers, characters


class Origin(NamedTuple):
    """The exercises behind a notebook."""

    chapter: str
    answers: tuple[str, ...]  # names of the functions and classes that are asked for
    texts: str  # hash of what students see of the exercises


def identity(exercises: Sequence[Loaded]) -> Origin:
    """The origin of a notebook made from these: the same wherever and whenever it is made."""
    seen = [[e.name, e.answer, e.title, e.text, e.starter] for e in exercises]
    digest = hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]
    answers = tuple(e.answer for e in exercises if e.spec.checks)
    return Origin(exercises[0].chapter, answers, digest)


def written(made: Origin) -> dict[str, Any]:
    """An origin as a notebook's metadata hold it, under `KEY`."""
    return made._asdict() | {"answers": list(made.answers)}


def origin(metadata: Any) -> Origin | None:
    """What a notebook's metadata say; None where they say nothing that could be meant."""
    said = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(said, dict):
        return None
    chapter, answers, texts = (said.get(name) for name in Origin._fields)
    if not isinstance(answers, list) or len(answers) > MOST:
        return None
    words = [chapter, texts, *answers]
    if not all(isinstance(word, str) and len(word) <= LONG for word in words):
        return None
    if not all(word.isprintable() for word in words):
        return None
    return Origin(str(chapter), tuple(answers), str(texts))


def foreign(claimed: Origin | None, asked: Origin) -> str:
    """Why a notebook does not belong to the exercises that are graded; "" if it may."""
    if claimed is None:
        return ""
    if claimed.chapter != asked.chapter:
        return f"the notebook of {claimed.chapter}, not of {asked.chapter}"
    if missing := [name for name in asked.answers if name not in claimed.answers]:
        return f"made from other exercises or another variant: it does not ask for {missing[0]}" + (
            f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        )
    return ""
