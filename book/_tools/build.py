"""Make the book: execute the notebooks, stage, build to `_build/html` with warnings as errors.

python book/_tools/build.py [--force] [--no-execute]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from execute import RESULTS, ROOT
from stage import SOURCE, stage

HTML = ROOT / "_build" / "html"
TEXT = {".html", ".js", ".css", ".txt", ".md", ".ipynb", ".json", ".svg", ".inv", ".buildinfo"}


def absolute_paths(html: Path) -> list[str]:
    """Files of the built book that name a folder of this machine."""
    places = {
        ROOT,
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path.home(),
        Path(tempfile.gettempdir()),
    }
    names = {p.as_posix() for p in places if len(p.parts) > 1}
    pattern = re.compile("|".join(rf"(?<![\w.~/-]){re.escape(n)}/" for n in sorted(names)))
    found = []
    for path in sorted(html.rglob("*")):
        if path.is_file() and path.suffix in TEXT and "vendor" not in path.parts:
            match = pattern.search(path.read_text(encoding="utf-8", errors="ignore"))
            if match:
                found.append(f"{path.relative_to(html).as_posix()}: {match[0]}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="run also unchanged notebooks")
    parser.add_argument("--no-execute", action="store_true", help="build from the last run")
    options = parser.parse_args()
    start = time.perf_counter()
    tools = Path(__file__).resolve().parent
    if not options.no_execute:
        print("Executing the notebooks (two at a time)", flush=True)
        flags = ["--force"] if options.force else []
        if subprocess.run([sys.executable, str(tools / "execute.py"), *flags]).returncode:
            return 1
    stage()
    print("Building the pages", flush=True)
    run = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", run, "build", str(SOURCE)]
    command += ["--path-output", str(ROOT), "-W", "-n", "--keep-going", "--all", "-q"]
    env = os.environ | {"DDPM_LITE_RESULTS": str(RESULTS), "PYTHONWARNINGS": "ignore"}
    if subprocess.run(command, env=env).returncode:
        print("The book was not built: see the warnings above.", file=sys.stderr)
        return 1
    if leaks := absolute_paths(HTML):
        print("Paths of this machine in the book:", *leaks, sep="\n  ", file=sys.stderr)
        return 1
    where = (HTML / "index.html").relative_to(ROOT).as_posix()
    print(f"\nThe book is in {where} (built in {time.perf_counter() - start:.0f} s): open it in a")
    print("browser (it needs no network), or run `make serve` for http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
