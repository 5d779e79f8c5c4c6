"""Is an exercise fit to be given out? Right answers full, empty 0, every mutant caught."""

from __future__ import annotations

from .compare import GENERIC
from .public import public_numbers
from .scoring import Expected, Score, score
from .source import ExerciseError, Loaded, namespace

__all__ = ["problems", "score_source"]

KEYS = (1, 2, 3)  # of the random inputs that everything is tried on
MAX_PUBLIC = 40_000  # characters of a check's numbers: they travel with the package


def problems(exercise: Loaded) -> list[str]:
    """What is wrong with an exercise, in sentences; none where it may be given out.

    Runs the file's own code in this process.
    """
    spec, found = exercise.spec, []
    if not 1 <= spec.difficulty <= 4:
        found.append("difficulty must be 1 to 4")
    if not exercise.text:
        found.append("there is no text below the title")
    if not spec.checks and not spec.rubric:
        found.append("there is neither a check nor a rubric")
    if not spec.checks:
        return found
    known = {*spec.hints, *GENERIC}
    used = {m.hint for m in spec.mutants} | {c.hint for c in spec.checks if c.hint}
    found += [f"there is no hint {name!r}" for name in sorted(used - known)]
    found += [f"nothing gives the hint {name!r}" for name in sorted({*spec.hints} - used)]
    if len(spec.mutants) < 5:
        found.append(f"{len(spec.mutants)} mutants: at least 5 are needed")
    if len(spec.rights) < 2:
        found.append(f"{len(spec.rights)} right variants: at least 2 are needed")
    if found:
        return found
    try:
        return _tried(exercise) or _public(exercise)
    except ExerciseError as error:
        return [str(error)]


def _tried(exercise: Loaded) -> list[str]:
    found = []
    if exercise.answer not in namespace(exercise.starter, exercise.name):
        found.append(f"the starter does not define {exercise.answer}")
    for key in KEYS:
        expected = Expected(exercise, key)
        full = score_source(expected, exercise.solved)
        if full.points != full.of:
            found.append(f"key {key}: the reference fails {_failed(full)}")
        empty = score_source(expected, exercise.starter)
        if empty.points:
            found.append(f"key {key}: the starter gets {empty.points:g} points, not 0")
        for number, source in enumerate(exercise.spec.rights, 1):
            right = score_source(expected, source)
            if right.points != right.of:
                found.append(f"key {key}: right variant {number} fails {_failed(right)}")
        for number, (hint, outcomes) in enumerate(expected.mistakes, 1):
            wrong = score(expected, outcomes)
            name = f"mutant {number} ({hint})"
            if wrong.points == wrong.of:
                found.append(f"key {key}: {name} is not caught")
            elif hint not in wrong.hints:
                found.append(f"key {key}: {name} gets {', '.join(wrong.hints)}")
    return found


def _public(exercise: Loaded) -> list[str]:
    size = len(str(public_numbers(exercise)))
    if size > MAX_PUBLIC:
        return [f"its public numbers take {size:,} characters: smaller inputs, or public=False"]
    return []


def score_source(expected: Expected, source: str) -> Score:
    """Score trusted source in this process."""
    return score(expected, expected.exercise.outcomes(source, expected.flat))


def _failed(score: Score) -> str:
    rows = [f"{m.title!r} ({m.property}: {m.hint})" for m in score.marks if m.hint]
    return "; ".join(rows)
