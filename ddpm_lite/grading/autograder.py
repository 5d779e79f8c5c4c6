"""A folder for Gradescope: zip what is in it, upload it as the assignment's autograder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .. import files
from .source import Loaded

__all__ = ["write_autograder"]

SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, when the autograder's image is built.
set -eu
apt-get update && apt-get install -y python3 python3-venv python3-pip git bubblewrap
python3 -m venv /opt/course
/opt/course/bin/pip install {package}
chmod -R go-rwx /autograder/source
"""
WHEEL = "/autograder/source/*.whl"
RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for each submission. A machine that cannot grade writes no score.
set -eu
out=$(mktemp -d)
in=$(mktemp -d)
cp -r /autograder/submission "$in"  # a folder: its notebook may be called anything
/opt/course/bin/ddpm-lite grade "$in" --chapter {chapter} \\
  --exercises /autograder/source/exercises --out "$out"{options}
test "$(ls "$out"/gradescope | wc -l)" = 1 || {{ echo "hand in one notebook"; exit 1; }}
mkdir -p /autograder/results
cp "$out"/gradescope/*.json /autograder/results/results.json
"""


def write_autograder(
    exercises: Sequence[Loaded], folder: Path, package: str, secret: str = ""
) -> list[Path]:
    """Write setup.sh, run_autograder and the exercises (as released, variant included).

    package: what pip installs, such as git+URL@TAG; where it is "", a wheel that you put into the
    folder. The secret behind the random inputs is made anew for each run unless one is given.
    """
    chapter = exercises[0].chapter
    options = " --secret /autograder/source/secret" if secret else ""
    setup = SETUP.format(package=shlex.quote(package) if package else WHEEL)
    written = [
        files.write(folder / "setup.sh", setup.encode()),
        files.write(
            folder / "run_autograder", RUN.format(chapter=chapter, options=options).encode()
        ),
    ]
    if secret:
        written.append(files.write(folder / "secret", secret.encode()))
    for script in written[:2]:
        script.chmod(0o755)
    for e in exercises:
        path = folder / "exercises" / chapter / f"{e.name}.py"
        written.append(files.write(path, e.file.encode()))
    return written
