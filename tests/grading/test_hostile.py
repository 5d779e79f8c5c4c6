"""What students hand in by mistake, by accident or on purpose, and the verdict due.

Each submission is graded for the exercise bits_per_dim in the sandbox, as in a batch.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import CHEATS, ENDINGS, FULL, GOOD, HONEST, SHORT, WRONG, during

from ddpm_lite.grading import judge, sandbox, source
from ddpm_lite.grading.judge import Graded
from ddpm_lite.grading.source import Loaded

Grade = Callable[..., Graded]


@pytest.mark.parametrize("name", [*HONEST, *ENDINGS, *CHEATS])
def test_verdict(name: str, marked: Grade) -> None:
    case = (HONEST | ENDINGS | CHEATS)[name]
    got = marked(case.code, seconds=case.seconds).score
    assert got.verdict in case.verdicts.split(), got
    if case.points >= 0:
        assert got.points == case.points, got


def test_a_pickle_is_not_opened(marked: Grade) -> None:
    marked(CHEATS["pickle"].code)
    assert not Path("/tmp/unpickled-by-the-grader").exists()


def test_the_next_one_is_graded_as_if_nothing_had_been(marked: Grade) -> None:
    for name in ("kills its parent", "kill(-1)", "segfault", "closed descriptors"):
        marked(ENDINGS[name].code, seconds=5)
        assert marked(GOOD).score.points == FULL, name


def test_a_failing_cell_beside_the_answer_does_not_matter(marked: Grade) -> None:
    assert marked("1 / 0", GOOD, "raise RuntimeError('training failed')").score.points == FULL


def test_a_syntax_error_names_its_cell(marked: Grade) -> None:
    got = marked("x = 1", "def bits_per_dim(log_prob, shape:\n    return 0")
    assert got.score.points == 0 and got.broken == [2]
    assert got.score.hints == ["exists"]
    assert marked(GOOD, "def (").score.points == FULL


def test_two_definitions_are_as_in_a_notebook(marked: Grade) -> None:
    assert marked(WRONG, GOOD).score.points == FULL
    assert marked(GOOD, WRONG).score.points == 0


def test_public_answers_learnt_by_heart_fail_hidden_checks(bits: Loaded, marked: Grade) -> None:
    rows = []
    for _, group in bits.cases(0, public=True):
        for steps in group:
            (outcome,) = bits.outcomes(bits.solved, [steps])
            rows.append((steps[0].args[0].tolist(), outcome.results[0].items[0].tolist()))
    code = (
        f"import torch\nKNOWN = {rows!r}\n"
        "def bits_per_dim(log_prob, shape):\n"
        "    for x, y in KNOWN:\n"
        "        if log_prob.tolist() == x: return torch.tensor(y)\n"
        "    return log_prob * 0\n"
    )
    assert marked(code, key=0).score.points == FULL  # it does answer what it knows
    assert marked(code, key=8).score.points == 0


def test_inputs_depend_on_the_submission_and_on_the_secret() -> None:
    keys = {judge.key_of(s, h, e) for s in (b"a", b"b") for h in ("1", "2") for e in ("x", "y")}
    assert len(keys) == 8
    assert judge.key_of(b"a", "1", "x") == judge.key_of(b"a", "1", "x")


def reads(path: str, what: str = "open(PATH, 'rb').read(1)") -> str:
    """The right answer, but only where something could be read."""
    return during(
        "try:",
        f"    PATH = {path!r}",
        f"    {what}",
        "except BaseException:",
        "    return log_prob * 0",
    )


@pytest.mark.parametrize(
    "path",
    [str(Path(source.__file__).parents[2] / "exercises"), "/etc/passwd", "/root", "/home"],
)
def test_nothing_of_the_grader_is_to_be_seen(path: str, marked: Grade, level: str) -> None:
    if level != "A" and not path.endswith("exercises"):
        pytest.skip("only a fresh root hides this")
    hidden = reads(path, "assert os.path.isdir(PATH) and os.listdir(PATH) or open(PATH).read(1)")
    home = path in ("/root", "/home")  # the interpreter itself may live there
    if home and any(str(p).startswith(path) for p in sandbox._interpreter()):
        pytest.skip("the interpreter is there")
    assert marked(hidden).score.points == 0
    assert (
        marked(reads("/usr", "assert os.listdir(PATH)")).score.points == FULL
    )  # it would have told


def test_files_of_other_students_and_of_the_grader_are_not_there(
    tmp_path: Path, marked: Grade, level: str
) -> None:
    for name in ("other.ipynb", "secret"):
        (tmp_path / name).write_text("x")
        tmp_path.chmod(0o700)
        assert marked(reads(str(tmp_path / name))).score.points == 0


@pytest.mark.parametrize("who", ["os.getppid()", "1", "2"])
def test_the_memory_of_others_is_closed(who: str, marked: Grade, level: str) -> None:
    look = f"assert {who} > 0 and open(f'/proc/{{{who}}}/mem', 'rb')"
    assert marked(reads("", look)).score.points == 0


def test_no_connection_gets_out(marked: Grade, level: str) -> None:
    if level != "A":
        pytest.skip("the network is as the container sets it")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        socket.create_connection(address).close()  # it is there
        what = f"import socket; socket.create_connection({address!r}, 2)"
        assert marked(reads("", what)).score.points == 0


def named(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += [str(path)] if path.read_text().strip() == name else []
        except OSError:
            continue
    return found


def test_a_daemon_is_reaped(marked: Grade, level: str) -> None:
    code = during(
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork(): os._exit(0)",
        f"    ctypes.CDLL(None).prctl(15, b'left{os.getpid()}', 0, 0, 0)",
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "    time.sleep(1000)",
    )
    assert marked(code).score.points == FULL
    time.sleep(0.2)
    assert not named(f"left{os.getpid()}")


@pytest.mark.slow
def test_a_fork_bomb_is_bounded_and_gone(marked: Grade, level: str) -> None:
    code = during(
        f"ctypes.CDLL(None).prctl(15, b'bomb{os.getpid()}', 0, 0, 0)",
        "while True:",
        "    try: os.fork()",
        "    except OSError: pass",
    )
    assert marked(code, seconds=SHORT).score.verdict in ("timeout", "crash", "wrong")
    time.sleep(0.5)
    assert not named(f"bomb{os.getpid()}")
    assert marked(GOOD).score.points == FULL


@pytest.mark.slow
def test_the_number_of_processes_is_bounded(marked: Grade, level: str) -> None:
    code = during(
        "made = 0",
        "try:",
        "    while made < 300:",
        "        if os.fork() == 0: time.sleep(1000)",
        "        made += 1",
        "except OSError: return log_prob * 0",
    )
    assert marked(code).score.points == 0


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/var/tmp", "/"])
def test_the_disk_cannot_be_filled(folder: str, marked: Grade, level: str) -> None:
    if level != "A" and folder != "/":
        pytest.skip("only a fresh root bounds the sum of files")
    code = during(
        "try:",
        f"    for i in range(20): open('{folder}/' + str(i), 'wb').write(bytes(1 << 24))",
        "except OSError: return log_prob * 0",
    )
    assert marked(code).score.points == 0  # 320 MB did not fit


def test_an_output_flood_is_bounded(marked: Grade) -> None:
    code = during("for _ in range(2000): os.write(1, b'x' * 100_000), os.write(2, b'y' * 100_000)")
    assert marked(code).score.points == FULL


def test_a_large_answer_is_ungradable(marked: Grade) -> None:
    assert marked(during("return torch.zeros(1 << 24)")).score.verdict == "ungradable"


def test_a_lost_worker_costs_only_its_own_check(marked: Grade) -> None:
    crash = during("if len(shape) == 3 and log_prob.min() < -15_000: os._exit(1)")
    assert marked(crash).score.points == FULL - 1


def test_a_sandbox_that_dies_is_started_again(level: str, bits: Loaded) -> None:
    with sandbox.Sandbox(level) as own:
        own.start()
        assert own._process
        own._process.kill()
        own._process.wait()
        assert judge.grade(own, bits, [GOOD], 1, 30).score.points == FULL


def test_an_unknown_or_missing_sandbox_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sandbox.SandboxError, match="no isolation level"):
        sandbox.Sandbox("D")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(sandbox.SandboxError, match="bubblewrap"):
        sandbox.Sandbox("A")


@pytest.mark.skipif(os.geteuid() != 0, reason="level B needs root")
def test_level_b_refuses_folders_that_it_cannot_hide() -> None:
    """Without mount namespaces a user of one's own still reads what is open to everybody."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made, "exercises")
        folder.mkdir(mode=0o755)
        box = sandbox.Sandbox("B", closed=[folder])
        nothing = {"reads": True, "namespaces": False}
        assert box.unfit(nothing) == ""  # its parent is closed
        os.chmod(made, 0o755)
        assert box.unfit(nothing).endswith("chmod 700")
        assert box.unfit({"reads": True, "namespaces": True}) == ""
        folder.chmod(0o700)
        assert box.unfit(nothing) == ""
