"""Every exercise: right answers full, the empty release 0, each mutant caught with its hint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpm_lite.grading import judge, sandbox, source, validate
from ddpm_lite.grading.scoring import Expected
from ddpm_lite.grading.source import ExerciseError

EXERCISES = Path(__file__).resolve().parents[2] / "exercises"
FILES = sorted(EXERCISES.glob("[0-9]*/[a-z]*.py"))
PROVEN = ["bits_per_dim", "leaking_mask", "ddim_step"]  # a function, a module, a given helper


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_is_fit_to_be_given_out(path: Path) -> None:
    exercise = source.read(path)
    assert validate.problems(exercise) == []
    assert len({p.stem for p in FILES}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_its_variants_are_fit_too(path: Path) -> None:
    if not source.read(path).spec.vary:
        pytest.skip("the same for every class")
    keys = ("spring", "autumn")
    assert [validate.problems(source.read(path, key)) for key in keys] == [[], []]


@pytest.mark.parametrize("name", PROVEN)
def test_the_sandbox_gives_what_validation_gives(name: str, box: sandbox.Sandbox) -> None:
    """All mutants and right variants of three exercises, by the way that submissions go."""
    exercise = source.find(EXERCISES, name)
    spec, expected = exercise.spec, Expected(exercise, 3)
    for text in (exercise.solved, *spec.rights):
        got = judge.grade(box, exercise, [text], 3, 30).score
        assert got.points == spec.points, got
    assert judge.grade(box, exercise, [exercise.starter], 3, 30).score.points == 0
    for mutant in spec.mutants:
        got = judge.grade(box, exercise, [exercise.mutated(mutant)], 3, 30).score
        assert got == validate.score_source(expected, exercise.mutated(mutant))
        assert got.points < spec.points and mutant.hint in got.hints


GOOD = (EXERCISES / "01_factorization" / "bits_per_dim.py").read_text(encoding="utf-8")

SIGN = 'Mutant("sign", "-log_prob", "log_prob")'
BEGIN = "### BEGIN SOLUTION"


def problems(tmp_path: Path, old: str, new: str) -> str:
    folder = tmp_path / "01_factorization"
    folder.mkdir()
    assert old in GOOD
    (folder / "bits_per_dim.py").write_text(GOOD.replace(old, new), encoding="utf-8")
    return "; ".join(validate.problems(source.read(folder / "bits_per_dim.py")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tolerance", "tolerance", ""),
        (BEGIN, f"{BEGIN}\n    shape = (2, *shape)", "right variant 1 fails"),
        (SIGN, 'Mutant("sign", "prod(shape)", "prod(shape) ")', "is not caught"),
        (SIGN, 'Mutant("sign", " * math.log(2))", ")")', "gets nats"),  # the same as another
        ('Mutant("nats", " * math.log(2))", ")"),', "", "nothing gives the hint 'nats'"),
        ('"nats": "', '"knots": "', "there is no hint 'nats'"),
        ("### BEGIN SOLUTION\n", "### BEGIN SOLUTION\n    ### STARTER\n    # return -log_prob / "
         "(math.prod(shape) * math.log(2))\n    ### END SOLUTION\n    ### BEGIN SOLUTION\n",
         "the starter gets 4 points"),
        ("rng.whole(2, 6))", "300)", "public numbers"),
    ],
)  # fmt: skip
def test_validation_finds_what_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    if not said:
        assert problems(tmp_path, "minutes=5", "minutes=6") == ""
    else:
        assert said in problems(tmp_path, old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("### END SOLUTION", "", "END SOLUTION is missing"),
        ("### BEGIN SOLUTION", "", "in the wrong place"),
        ("### END HIDDEN TESTS", "", "as its last line"),
        ('"""# Bits', '"""Bits', "must begin with"),
        ("EXERCISE = Exercise(", "OTHER = Exercise(", "must define EXERCISE"),
        ("import math\n", "import math)\n", "line"),
    ],
)
def test_a_file_that_is_amiss_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ExerciseError, match=said):
        problems(tmp_path, old, new)


def test_lookups_list_what_there_is() -> None:
    with pytest.raises(ExerciseError, match=r"known are.*bits_per_dim"):
        source.find(EXERCISES, "bits")
    with pytest.raises(ExerciseError, match="known are 01_factorization"):
        source.read_all(EXERCISES, "01")
    with pytest.raises(ExerciseError, match="--exercises"):
        source.chapters(EXERCISES / "nowhere")


def test_inputs_are_the_same_for_a_key_and_differ_between_keys() -> None:
    exercise = source.find(EXERCISES, "leaking_mask")

    def told(key: int) -> str:
        return json.dumps([[str(s) for s in g] for _, g in exercise.cases(key)])

    assert told(5) == told(5) != told(6)
