"""Read an exercise from its file: the student's part as text, the hidden part as Python.

    \"\"\"# Title, then the text, in Markdown\"\"\"
    imports, given helpers, the answer with ### BEGIN SOLUTION … ### END SOLUTION
    ### BEGIN HIDDEN TESTS
    EXERCISE = Exercise(...)
    ### END HIDDEN TESTS

Inside a solution, lines after ### STARTER are what the student gets in its place, commented out
(a broken version to mend); without them it is `raise NotImplementedError`.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .execute import MISSING, Outcome, Step, perform
from .spec import Check, Exercise, Mutant, Random, steps_of

__all__ = ["ExerciseError", "Loaded", "chapters", "find", "namespace", "parse", "read", "read_all"]

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STARTER = "### STARTER"
HIDDEN, HIDDEN_END = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
UNWRITTEN = "raise NotImplementedError  # your code"


class ExerciseError(ValueError):
    """An exercise's file is not as it must be; the message says where and what to do."""


@dataclass(frozen=True)
class Loaded:
    """An exercise as read: `spec` is its hidden part, the rest is text."""

    name: str  # "bits_per_dim"
    chapter: str  # "01_factorization"
    title: str
    text: str  # Markdown, without the title
    solution: str  # the student's part, solved, markers and all
    spec: Exercise
    file: str  # the file as read, variant included

    @property
    def hash(self) -> str:
        """Of the file as read."""
        return hashlib.sha256(self.file.encode()).hexdigest()

    @property
    def answer(self) -> str:
        """Name of the function or class that is asked for."""
        return self.spec.answer or self.name

    @property
    def starter(self) -> str:
        """The student's part as the student gets it."""
        return _replace(self.solution, solved=False)

    @property
    def solved(self) -> str:
        """The student's part solved, without markers."""
        return _replace(self.solution, solved=True)

    @property
    def definitions(self) -> dict[str, str]:
        """Each function, class or constant that the starter defines, and its code."""
        found = {}
        for node in ast.parse(self.starter).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            for name in [*names, *(t.id for t in targets if isinstance(t, ast.Name))]:
                found[name] = ast.unparse(node)
        return found

    def mutated(self, mutant: Mutant) -> str:
        """Source of a wrong answer."""
        if mutant.source:
            return mutant.source
        found = self.solved.count(mutant.old)
        if found != 1 or not mutant.old:
            text = f"{self.name}: the mutant's {mutant.old!r} occurs {found} times in the solution"
            raise ExerciseError(f"{text}, not once")
        return self.solved.replace(mutant.old, mutant.new)

    def cases(self, *key: int, public: bool = False) -> list[tuple[Check, list[tuple[Step, ...]]]]:
        """The checks with their cases for a key of random inputs."""
        return [
            (check, [steps_of(case) for case in check.cases(Random(*key, number))])
            for number, check in enumerate(self.spec.checks)
            if check.public or not public
        ]

    def outcomes(self, source: str, cases: Sequence[Sequence[Step]]) -> list[Outcome]:
        """Run trusted source (a reference, a mutant) through cases, in this process."""
        answer = namespace(source, self.name).get(self.answer, MISSING)
        given = namespace(self.starter, self.name)
        return [perform(answer, given, steps) for steps in cases]


def read(path: Path, variant: str | None = None) -> Loaded:
    """Read an exercise; its chapter is the folder's name. ExerciseError where the file is amiss."""
    text = path.read_text(encoding="utf-8")
    return parse(text if variant is None else _varied(text, path, variant), path)


def parse(text: str, path: Path) -> Loaded:
    """`read`, of text that is at hand."""
    head, hidden, tail = text.partition(f"\n{HIDDEN}\n")
    if not hidden or tail.count(HIDDEN_END) != 1 or tail.partition(HIDDEN_END)[2].strip():
        raise ExerciseError(f"{path}: needs {HIDDEN} and, as its last line, {HIDDEN_END}")
    try:
        tree = ast.parse(head)
    except SyntaxError as error:
        raise ExerciseError(f"{path}, line {error.lineno}: {error.msg}") from error
    prose = ast.get_docstring(tree) or ""
    title, _, body = prose.partition("\n")
    if not title.startswith("# "):
        raise ExerciseError(f"{path}: the docstring must begin with '# Title'")
    code = "\n".join(head.split("\n")[tree.body[0].end_lineno :]).strip("\n") + "\n"
    _replace(code, solved=False)  # finds unbalanced markers
    spec = namespace(text, path.stem).get("EXERCISE")
    if not isinstance(spec, Exercise):
        raise ExerciseError(f"{path}: the hidden part must define EXERCISE = Exercise(...)")
    chapter = path.parent.name
    return Loaded(path.stem, chapter, title[2:].strip(), body.strip(), code, spec, text)


def chapters(folder: Path) -> list[str]:
    """Names of the chapters that have exercises; ExerciseError where there are none."""
    found = sorted({path.parent.name for path in folder.glob("[0-9]*/[a-z]*.py")})
    if not found:
        raise ExerciseError(
            f"no exercises in {folder}: run this in the course's checkout or give --exercises DIR"
        )
    return found


def read_all(folder: Path, chapter: str, variant: str | None = None) -> list[Loaded]:
    """A chapter's exercises, by difficulty and then by name."""
    found = [read(path, variant) for path in sorted((folder / chapter).glob("[a-z]*.py"))]
    if not found:
        known = ", ".join(chapters(folder))
        raise ExerciseError(f"no chapter {chapter!r} in {folder}: known are {known}")
    answers = [exercise.answer for exercise in found]
    if double := {name for name in answers if answers.count(name) > 1}:
        raise ExerciseError(f"{chapter}: two exercises ask for {', '.join(sorted(double))}")
    given: dict[str, tuple[str, str]] = {}
    for exercise in found:
        for name, text in exercise.definitions.items():
            other, before = given.setdefault(name, (exercise.name, text))
            if text != before:  # in a notebook the later one would take the other's place
                raise ExerciseError(
                    f"{chapter}: {other} and {exercise.name} both define {name}, each its own"
                )
    return sorted(found, key=lambda e: (e.spec.difficulty, e.name))


def find(folder: Path, name: str, variant: str | None = None) -> Loaded:
    """The exercise of this name; ExerciseError, listing the names, where there is none."""
    paths = {path.stem: path for path in sorted(folder.glob("[0-9]*/[a-z]*.py"))}
    if name not in paths:
        raise ExerciseError(f"no exercise {name!r}: known are {', '.join(paths) or 'none'}")
    return read(paths[name], variant)


def namespace(source: str, name: str) -> dict[str, Any]:
    """What trusted source defines."""
    module = types.ModuleType(f"exercise_{name}")
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module.__dict__


def _replace(code: str, solved: bool) -> str:
    """The student's part with or without its solutions, markers removed."""
    out: list[str] = []
    starter: list[str] | None = None
    inside, found = False, 0
    for line in code.split("\n"):
        mark, indent = line.strip(), line[: len(line) - len(line.lstrip())]
        if mark == BEGIN and not inside:
            inside, starter, found = True, None, found + 1
        elif mark == STARTER and inside and starter is None:
            starter = []
        elif mark == END and inside:
            out += [] if solved else [f"{indent}{UNWRITTEN}"] if starter is None else starter
            inside = False
        elif mark in (BEGIN, STARTER, END):
            raise ExerciseError(f"{mark} in the wrong place")
        elif inside and starter is not None:
            starter.append(re.sub(r"^(\s*)# ?", r"\1", line))
        elif not inside or solved:
            out.append(line)
    if inside or not found:
        raise ExerciseError(f"{END} is missing" if inside else f"there is no {BEGIN}")
    return "\n".join(out)


def _varied(text: str, path: Path, key: str) -> str:
    """The file with the words of its `vary` replaced, chosen by the class's key."""
    choices: Mapping[str, Sequence[str]] = namespace(text, path.stem)["EXERCISE"].vary
    words = {}
    for word, others in choices.items():
        pick = hmac.new(key.encode(), f"{path.stem}/{word}".encode(), hashlib.sha256).digest()
        words[word] = others[int.from_bytes(pick[:8], "big") % len(others)]
    if not words:
        return text
    pattern = "|".join(rf"(?<![\w.]){re.escape(word)}(?![\w.])" for word in words)
    return re.sub(pattern, lambda found: words[found.group()], text)
