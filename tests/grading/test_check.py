"""What the check tells a student: in the notebook everything that helps, as IPython runs cells."""

from __future__ import annotations

import ast
import itertools
import json
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_lite import checks
from ddpm_lite.grading import source, validate
from ddpm_lite.grading.choose import left_out
from ddpm_lite.grading.judge import Graded
from ddpm_lite.grading.scoring import Expected
from ddpm_lite.grading.source import ExerciseError

EXERCISES = Path(__file__).resolve().parents[2] / "exercises"
NUMBER = itertools.count(1)


class Notebook:
    """Runs cells as IPython does: each statement by itself, the source kept for tracebacks."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.names: dict[str, Any] = {"__name__": "__main__", "In": [""]}
        self.run("from ddpm_lite.checks import case, check")

    def run(self, cell: str) -> str:
        """What the cell prints, in one line."""
        file = f"<cell {next(NUMBER)}>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        self.names["In"].append(cell)
        for node in ast.parse(cell).body:
            exec(compile(ast.Module([node], []), file, "exec", dont_inherit=True), self.names)
        return " ".join(self.capsys.readouterr().out.split())

    def given(self, *names: str) -> None:
        for name in names:
            self.run(source.find(EXERCISES, name).starter)


@pytest.fixture
def notebook(capsys: pytest.CaptureFixture[str]) -> Notebook:
    return Notebook(capsys)


BITS = "import math\ndef bits_per_dim(log_prob, shape):\n    "
RIGHT = "return -log_prob / (math.prod(shape) * math.log(2))"


def test_an_exception_comes_with_its_message_line_and_inputs(notebook: Notebook) -> None:
    notebook.run(f"{BITS}top = log_prob[7]\n    return top")
    out = notebook.run("check('bits_per_dim', bits_per_dim)")
    assert "✗ runs: IndexError: index 7 is out of bounds" in out
    assert "line 3 of bits_per_dim: top = log_prob[7]" in out
    assert "case 1: log_prob = [" in out and "shape = (1, 6, 10)" in out
    assert 'case("bits_per_dim", 1)' in out
    with pytest.raises(IndexError):  # the inputs that it speaks of do it
        notebook.run('bits_per_dim(*case("bits_per_dim", 1))')


def test_one_crash_does_not_hide_the_other_cases(notebook: Notebook) -> None:
    notebook.run(f"{BITS}assert len(log_prob) != 4, 'four'\n    {RIGHT}")
    out = notebook.run("check('bits_per_dim', bits_per_dim)")
    assert "✗ runs: AssertionError: four" in out and "✓ type" in out
    assert "✗ values: bits/dim of a batch, grey and colour: see runs" in out
    assert "✓ values: a uniform model pays log2 K" in out
    notebook.run(f"{BITS}assert len(log_prob) != 4\n    return -log_prob / math.prod(shape)")
    out = notebook.run("check('bits_per_dim', bits_per_dim)")
    assert "these are nats per dimension" in out and "case 3:" in out


def test_a_line_of_a_given_helper_is_shown_too(notebook: Notebook) -> None:
    notebook.given("ddim_step")
    notebook.run("def ddim_step(denoise, x, level, to):\n    return denoise(x, 1, level)")
    out = notebook.run("check('ddim_step', ddim_step)")
    assert "line 2 of ddim_step: return denoise(x, 1, level)" in out
    assert "of expected_noise: variance =" in out


def test_long_messages_and_inputs_are_cut(notebook: Notebook) -> None:
    notebook.run(f"{BITS}raise ValueError('x' * 5000)")
    assert len(notebook.run("check('bits_per_dim', bits_per_dim)")) < 1500


def test_lines_fit_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    checks.check("bits_per_dim", lambda log_prob, shape: log_prob)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8 and max(map(len, lines)) <= checks.WIDTH


def test_inputs_of_a_case(notebook: Notebook) -> None:
    log_prob, shape = checks.case("bits_per_dim", 2)
    assert isinstance(log_prob, torch.Tensor) and len(shape) == 3
    model = checks.case("completion", 1)[0]
    assert callable(model) and model.__name__ == "ties"
    assert checks.case("ancestral", 6)[4] < 1  # a keyword argument in its place
    steps = checks.case("leaking_mask", 1)
    assert [what for what, _ in steps] == ["build", "load", "forward"]
    assert sorted(steps[1][1]) == ["bias", "weight"]
    for number in (0, 99):
        with pytest.raises(ValueError, match="the cases 1 to 7"):
            checks.case("bits_per_dim", number)


MEND = [e for p in sorted(EXERCISES.glob("*/*.py")) if "### STARTER" in (e := source.read(p)).file]


@pytest.mark.parametrize("exercise", MEND, ids=lambda e: e.name)
def test_a_program_as_given_gets_numbers_and_no_hint(
    exercise: source.Loaded, notebook: Notebook
) -> None:
    """Until its first change; a comment is none."""
    asked = f"check('{exercise.name}', {exercise.answer})"
    for text in (exercise.starter, exercise.starter.replace("\n\n", "\n\n# hm\n\n")):
        notebook.run(text)
        out = notebook.run(asked)
        assert checks.UNCHANGED in out and "hint:" not in out and "✗" in out
        assert not any(hint in out for hint in exercise.spec.hints.values())
    mutant = exercise.mutated(exercise.spec.mutants[0])
    notebook.run(mutant)
    out = notebook.run(asked)
    assert checks.UNCHANGED not in out and "hint:" in out


def test_a_change_that_changes_no_number_is_a_change(notebook: Notebook) -> None:
    text = source.find(EXERCISES, "frechet_scores").starter
    notebook.run(text.replace("mean = x.mean(0)", "mean = x.sum(0) / n"))  # not in `scores` itself
    out = notebook.run("check('frechet_scores', scores)")
    assert checks.UNCHANGED not in out and "hint:" in out


def test_a_helper_that_another_cell_replaced_does_not_spoil_a_right_answer(
    notebook: Notebook,
) -> None:
    notebook.given("ddim_step")
    notebook.run(source.find(EXERCISES, "ddim_step").solved)
    for other in ("def expected_noise(x, alpha, sigma):\n    return x", "expected_noise = 3",
                  "del expected_noise"):  # fmt: skip
        notebook.run(other)
        out = notebook.run("check('ddim_step', ddim_step)")
        assert "✗" not in out and "✓ values" in out


@pytest.mark.parametrize("other", ["def fillings(levels, m):\n    return 1", "fillings = 3",
                                   "del fillings"])  # fmt: skip
def test_a_helper_that_the_answer_misses_is_named(other: str, notebook: Notebook) -> None:
    exercise = source.find(EXERCISES, "completion")
    notebook.run(exercise.solved)
    notebook.run(other)
    assert "not any more: fillings. Run" in notebook.run("check('completion', completions)")
    notebook.run(exercise.solved)
    assert "note:" not in notebook.run("check('completion', completions)")


def test_two_exercises_of_a_notebook_may_not_give_two_things_one_name(tmp_path: Path) -> None:
    folder = tmp_path / "05_tradeoff"
    folder.mkdir()
    for name in ("ddim_step", "two_m_step"):
        text = source.find(EXERCISES, name).file
        text = text.replace("expected_noise", "gaussian").replace("expected_image", "gaussian")
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.raises(ExerciseError, match="ddim_step and two_m_step both define gaussian"):
        source.read_all(tmp_path, "05_tradeoff")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("arithmetic_code", "def code_word(counts, symbols):\n    1",
         "got None: is there a return?"),
        ("bits_per_dim", f"{BITS}return log_prob.numpy()", "a NumPy array: torch.from_numpy makes"),
        ("bits_per_dim", f"{BITS}return lambda: 1", "got an object"),
        ("four_targets", "def both(y, x, alpha, sigma, predicts):\n    return y, x",
         "expected one tensor [2, 3, 3, 1, 3], got a tuple of 2: torch.stack them"),
        ("cached_row", "def step(left, buffers, above, layers):\n    return left, []",
         "expected a tuple of 2, got a tuple whose entry 1 is a list: spread it: return first, *"),
        ("guidance", "def guided(network, x, level, label, weight):\n    return x",
         "expected a tuple of 2, got a tensor: return all of them, with commas between"),
        ("bits_per_dim", f"{BITS}return log_prob.cfloat()", "complex numbers"),
    ],
)  # fmt: skip
def test_another_type_is_named_with_what_to_do(
    name: str, code: str, said: str, notebook: Notebook
) -> None:
    notebook.given(name)
    notebook.run(code)
    out = notebook.run(f"check({name!r}, {source.find(EXERCISES, name).answer})")
    assert "✗ type" in out and said in out


def test_a_tuple_where_a_gradient_is_asked_for_is_of_the_wrong_type_and_no_crash() -> None:
    exercise = source.find(EXERCISES, "four_targets")
    got = validate.score_source(Expected(exercise, 1), exercise.solved + "\nold = both\n"
        "def both(*args):\n    x0, eps = old(*args)\n    return x0, eps\n")  # fmt: skip
    assert {(mark.verdict, mark.hint) for mark in got.marks} == {("wrong", "type")}


def test_names_in_the_wrong_order_are_told_without_a_traceback(notebook: Notebook) -> None:
    notebook.run(f"{BITS}{RIGHT}")
    assert 'check("bits_per_dim", bits_per_dim)' in notebook.run("check(bits_per_dim)")
    assert 'check("completion", completions)' in notebook.run(
        "def completions(): 1\ncheck(completions)"
    )
    with pytest.raises(checks.CheckFailed, match="name comes first"):
        checks.check(len, strict=True)  # type: ignore[arg-type]


LOOP = "SCALE = 0\nfor _ in range(1):\n    SCALE += 1"
SCALED = BITS + RIGHT.replace("-log_prob", "-SCALE * log_prob")


def test_code_that_the_grader_leaves_out_is_named_in_the_notebook(notebook: Notebook) -> None:
    notebook.run(LOOP)
    notebook.run(SCALED)
    out = notebook.run("check('bits_per_dim', bits_per_dim)")
    assert "✗" not in out and "note: SCALE is changed by code that the grader does not run" in out
    notebook.run(f"{BITS}{RIGHT}")
    notebook.run("for shape in range(2): math.prod([shape])")  # a name, but not the answer's own
    assert "note:" not in notebook.run("check('bits_per_dim', bits_per_dim)")


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ([LOOP, SCALED], [(1, "SCALE")]),
        (["SCALE = 0", "if True: SCALE = 1", SCALED], [(2, "SCALE")]),
        (["SCALE = [1]", "SCALE.append(2)", SCALED], [(2, "SCALE")]),
        (["SCALE = 0", "with open('x') as SCALE: pass", SCALED], [(2, "SCALE")]),
        (["if True:\n    def helper(x): return x", "def f(x): return helper(x)"], [(1, "helper")]),
        (["SCALE = 1", "for x in range(3): print(SCALE)", SCALED], []),
        ([LOOP, "SCALE = 5", SCALED], []),  # defined anew
        (
            ["SCALE = 0", "for SCALE in [1]: pass", "def f(x): return SCALE", "def f(x): return x"],
            [],
        ),
        (["del f", "def f(x):\n    return x"], []),
        (["SCALE = 1", "[SCALE for SCALE in range(3)]", SCALED], []),
        (["SCALE = sum([1])", SCALED], []),  # needed, so it is run
        (["import torch", "torch.manual_seed(0)", "def f(x): return torch.exp(x)"], []),
        (["for x in range(3): pass", "def f(x):\n    return x"], []),  # its own x
        (["def f(", "while True: f = 1"], [(2, "f")]),
    ],
)
def test_what_is_left_out(cells: list[str], found: list[tuple[int, str]]) -> None:
    answer = "bits_per_dim" if cells[-1] == SCALED else "f"
    assert left_out(cells, answer) == found


def test_code_that_is_left_out_is_named_by_the_grader(marked: Callable[..., Graded]) -> None:
    got = marked("import torch", LOOP, SCALED)
    assert got.score.points == 0 and got.left_out == [2]
    assert marked(f"{BITS}{RIGHT}").left_out == []


def test_a_mask_in_the_state_does_not_hinder() -> None:
    """`load` loads what the text names; what else the module holds stays."""
    exercise = source.find(EXERCISES, "leaking_mask")
    expected = Expected(exercise, 1)
    kept = exercise.solved.replace(", persistent=False", "")
    assert kept != exercise.solved
    assert validate.score_source(expected, kept).points == exercise.spec.points
    renamed = exercise.solved.replace("self.weight", "self.kernel")
    got = validate.score_source(expected, renamed)
    assert got.points == 0 and got.verdict == "exception"


def test_whoever_keeps_what_was_handed_in_is_found_out() -> None:
    exercise = source.find(EXERCISES, "running_average")
    for new in ("self.values[i] = new", "self.values[i] = new.detach()"):
        kept = exercise.solved.replace("self.values[i] = new.clone()", new)
        assert kept != exercise.solved
        got = validate.score_source(Expected(exercise, 1), kept)
        assert got.points == exercise.spec.points - 1 and got.hints == ["kept"]


def test_titles_and_amounts_head_the_students_notebook() -> None:
    made = json.loads((EXERCISES.parent / "notebooks/exercises/02_pixelcnn.ipynb").read_text())
    page = (EXERCISES.parent / "book" / "02_pixelcnn.md").read_text(encoding="utf-8")
    title = next(line[2:] for line in page.split("\n") if line.startswith("# "))
    head = "".join(made["cells"][0]["source"])
    minutes = sum(
        e.spec.minutes for e in source.read_all(EXERCISES, "02_pixelcnn") if e.spec.checks
    )
    assert head.startswith(f"# Exercises 2: {title}\n")
    assert f"5 exercises, about {minutes} minutes, and a project (about 8 hours" in head
