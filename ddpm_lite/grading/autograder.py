"""A folder for Gradescope: zip what is in it, upload it as the assignment's autograder."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from .. import files
from .source import Loaded

__all__ = ["autograder", "finish", "write_autograder"]

SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, when the autograder's image is built.
set -eu
apt-get update && apt-get install -y python3 python3-venv python3-pip git bubblewrap
python3 -m venv /opt/course
# for example PIP_FLAGS="--extra-index-url URL" for a build of PyTorch without CUDA: it is smaller
PIP_FLAGS="${{PIP_FLAGS:-}}"
{found}/opt/course/bin/pip install $PIP_FLAGS {package}
chmod -R go-rwx /autograder/source
"""
WHEEL = "/autograder/source/*.whl"
FOUND = """\
ls /autograder/source/*.whl || { echo "put the package's wheel beside setup.sh"; exit 1; }
"""
RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for each submission. A machine that cannot grade writes no score.
set -eu
out=$(mktemp -d)
in=$(mktemp -d)
cp -r /autograder/submission "$in"  # a folder: its notebook may be called anything
secret=/autograder/source/secret  # with a file of this name every grade can be made again
test ! -f "$secret" || cp "$secret" "$out"/secret
# where nobody could be graded because of the notebook, there is a result, which says so
/opt/course/bin/ddpm-lite grade "$in" --chapter {chapter} \\
  --exercises /autograder/source/exercises --out "$out" || test -d "$out"/gradescope
mkdir -p /autograder/results
cp "$out"/gradescope/*.json /autograder/results/results.json
"""


def autograder(exercises: Sequence[Loaded], folder: Path, package: str) -> dict[files.Name, bytes]:
    """The files: setup.sh, run_autograder and the exercises (as released, variant included).

    package: what pip installs, such as git+URL@TAG; where it is "", a wheel that you put into the
    folder. The secret behind the random inputs is made anew for each run, unless a file `secret`
    lies there too.
    """
    chapter = exercises[0].chapter
    what = {"package": shlex.quote(package), "found": ""}
    setup = SETUP.format(**(what if package else {"package": WHEEL, "found": FOUND}))
    made: dict[files.Name, bytes] = {
        folder / "setup.sh": setup.encode(),
        folder / "run_autograder": RUN.format(chapter=chapter).encode(),
    }
    return made | {
        folder / "exercises" / chapter / f"{e.name}.py": e.file.encode() for e in exercises
    }


def finish(folder: Path, made: Collection[files.Name]) -> None:
    """After the files are written: the scripts may run, and exercises of an earlier release go.

    What you put there yourself stays.
    """
    for script in ("setup.sh", "run_autograder"):
        (folder / script).chmod(0o755)
    for path in (folder / "exercises").glob("*/*.py"):
        if path not in made:
            path.unlink()


def write_autograder(exercises: Sequence[Loaded], folder: Path, package: str) -> None:
    """Write one such folder, whole or not at all."""
    made = autograder(exercises, folder, package)
    with files.uninterrupted():
        files.write_all(made)
        finish(folder, made)
