"""`make test`: every step in order, then a plain summary. Names run only those steps.

python tests/run.py [--slow] [lint] [unit] [notebooks] [book] [pages] [browser] [grading] [install]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q"]


def steps(slow: bool) -> dict[str, list[list[str]]]:
    """Name -> the commands of the step."""
    python = sys.executable
    some = [] if slow else ["-m", "not slow"]
    # outputs are compared to the letter where the course's pins are; elsewhere they must only run
    pinned = sys.version_info[:2] == (3, 11) and platform.system() == "Linux"
    exact = pinned and platform.machine() == "x86_64"
    nbval = ["-p", "tests.kernels", "--nbval" if exact else "--nbval-lax", "--nbval-current-env"]
    schema = [python, "-m", "check_jsonschema", "-qq", "--builtin-schema"]
    return {
        "lint": [
            [python, "-m", "ruff", "check", "."],
            [python, "-m", "ruff", "format", "--check", "."],
            [python, "-m", "mypy"],
            [*schema, "vendor.github-workflows", *_files(".github/workflows")],
            [*schema, "vendor.github-issue-forms", *_files(".github/ISSUE_TEMPLATE")],
        ],
        "unit": [[*PYTEST, "-n", "2", *some, *_present("unit", "equations", "properties")]],
        "notebooks": [[*PYTEST, "-n", "2", "--dist", "loadfile", *nbval, "notebooks"]],
        "book": [[python, "book/_tools/build.py", "--force"]],
        "pages": [[*PYTEST, *_present("notebooks", "book")]],
        "browser": [[*PYTEST, "tests/browser"]],
        "grading": [[*PYTEST, "-n", "2", "--dist", "loadfile", *some, *_present("grading")]],
        "install": [[*PYTEST, "tests/install"]],
    }


def _present(*folders: str) -> list[str]:
    """Those test folders that hold tests."""
    return [f"tests/{f}" for f in folders if any((ROOT / "tests" / f).glob("test_*.py"))]


def _files(folder: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).glob("*.yml"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="step")
    parser.add_argument("--slow", action="store_true", help="also what takes long")
    options = parser.parse_args()
    known = steps(options.slow)
    if wrong := [name for name in options.names if name not in known]:
        parser.error(f"unknown step {wrong[0]!r}; known: {', '.join(known)}")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    rows, failed = [], set()
    for name, commands in known.items():
        if options.names and name not in options.names:
            continue
        if name in ("pages", "browser") and "book" in failed:
            rows.append((name, 0.0, "not run: the book was not built"))
            failed.add(name)
            continue
        print(f"\n== {name}", flush=True)
        start, verdict = time.perf_counter(), "ok"
        for command in commands:
            if subprocess.run(command, cwd=ROOT, env=env).returncode:
                verdict = "FAILED"
                failed.add(name)
        rows.append((name, time.perf_counter() - start, verdict))
    print("\n== summary")
    for name, seconds, verdict in rows:
        print(f"  {name:<10} {seconds:6.0f} s  {verdict}")
    print(f"  {'in all':<10} {sum(row[1] for row in rows):6.0f} s  {'FAILED' if failed else 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
