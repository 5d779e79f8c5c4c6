"""GitHub's workflows: they call what runs here, and ask for no more than they need.

That they are well-formed is `make lint`'s business (GitHub's schema).
"""

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
if not FILES:
    pytest.skip("not a checkout", allow_module_level=True)
WORKFLOWS: dict[str, dict[Any, Any]] = {p.stem: yaml.safe_load(p.read_text()) for p in FILES}
JOBS = {f"{w}/{j}": job for w, found in WORKFLOWS.items() for j, job in found["jobs"].items()}
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def called(job: dict[str, Any]) -> set[str]:
    """The make targets that a job runs, here or as a container's entry point."""
    words = [w for c in commands(job) if re.search(r"\bmake\b", c) for w in c.split()]
    if not words:
        return set()
    after = words[words.index("make") + 1 :]
    return {w for w in after if re.fullmatch(r"[a-z][a-z-]*", w)}


def test_they_call_targets_that_exist() -> None:
    found = {name: called(job) for name, job in JOBS.items()}
    assert set().union(*found.values()) == {"book", "colab", "gpu", "test", "test-all"} <= TARGETS
    work = {name for name, targets in found.items() if targets}
    assert set(JOBS) - work == {"pages/deploy", "weekly/report"}  # nothing is built in these


def test_every_supported_python_is_tested() -> None:
    wanted = JOBS["test/test"]["strategy"]["matrix"]["python"]
    makefile = (ROOT / "Makefile").read_text()
    low, high = re.findall(r"\((3), (\d+)\)", makefile)
    assert wanted == [f"3.{minor}" for minor in range(int(low[1]), int(high[1]) + 1)]
    assert f'requires-python = ">={wanted[0]}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", JOBS)
def test_actions_are_pinned_and_jobs_end(name: str) -> None:
    for step in JOBS[name]["steps"]:
        assert "uses" not in step or re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", step["uses"]), step
        if "checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    assert 5 <= JOBS[name]["timeout-minutes"] <= 120


@pytest.mark.parametrize("name", WORKFLOWS)
def test_permissions_are_the_least_and_runs_do_not_pile_up(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"} and "group" in workflow["concurrency"]
    assert "pull_request_target" not in workflow[True]  # YAML reads "on" as true
    more = {j: job["permissions"] for j, job in workflow["jobs"].items() if "permissions" in job}
    assert more == {
        "pages": {"deploy": {"pages": "write", "id-token": "write"}},
        "weekly": {"report": {"issues": "write"}},
    }.get(name, {})


def test_nobody_elses_text_reaches_a_shell() -> None:
    """A pull request's title is code where a command is made of it."""
    for job in JOBS.values():
        for command in commands(job):
            inside = re.findall(r"\$\{\{\s*(.*?)\s*\}\}", command)
            assert all(text.startswith("matrix.") for text in inside), command


def test_our_own_machine_waits_for_the_label() -> None:
    """What YAML can give; that a stranger's copy of it is not run is the repository's setting."""
    ours = {name: job for name, job in JOBS.items() if "self-hosted" in job["runs-on"]}
    assert list(ours) == ["gpu/gpu"]
    assert ours["gpu/gpu"]["if"] == (
        "github.event_name == 'workflow_dispatch' || github.event.label.name == 'gpu'"
    )
    assert WORKFLOWS["gpu"][True]["pull_request"] == {"types": ["labeled"]}
    assert "event.label.name" in WORKFLOWS["gpu"]["concurrency"]["group"]  # others cancel nothing


def test_a_job_that_hangs_is_reported_and_other_branches_are_not_published() -> None:
    told = JOBS["weekly/report"]["if"]
    assert "always()" in told and "'failure'" in told and "'cancelled'" in told
    assert JOBS["pages/deploy"]["if"] == "github.ref == 'refs/heads/main'"
