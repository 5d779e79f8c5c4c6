"""Run every notebook, two at a time, as a reader would: installed package, empty folder, offline.

    python book/_tools/execute.py              into _build/executed, what the book is built from
    python book/_tools/execute.py --in-place   refresh the committed outputs of notebooks/
    python book/_tools/execute.py 03_forward   only this one

A notebook whose text, package and profile have not changed since its last good run is not run
again (`--force` runs it). Results that a notebook records go to _build/results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
EXECUTED, RESULTS = ROOT / "_build" / "executed", ROOT / "_build" / "results"
TIMES = RESULTS / "times.json"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
STILLBORN = "Kernel died before replying"  # another process took a port chosen for it: try again
DEAD = "http://127.0.0.1:9"  # a proxy that answers nobody: a notebook that needs the net fails here


@dataclass(frozen=True)
class Job:
    """One notebook to run: what goes in, where the executed copy goes, and how."""

    source: Path
    target: Path
    profile: str
    device: str
    in_place: bool
    seconds: int


def clean(notebook: Any) -> Any:
    """Drop what papermill leaves behind: its parameters cell and metadata (absolute paths)."""
    keep = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
        and not cell.metadata.get("papermill-error-cell-tag")
    ]
    for cell in keep:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    for count, cell in enumerate((c for c in keep if c.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
    notebook.cells = keep
    notebook.metadata.pop("papermill", None)
    return notebook


def fingerprint(job: Job) -> str:
    """Changes when anything changes that the executed notebook depends on."""
    digest = hashlib.sha256(f"{job.profile} {job.device} {sys.version}".encode())
    package = (p for p in (ROOT / "ddpm_lite").rglob("*") if p.is_file() and p.suffix != ".pyc")
    for path in (job.source, ROOT / "requirements.txt", *sorted(package)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def environment(job: Job) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DDPM_LITE_RESULTS")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
    env |= {"http_proxy": DEAD, "https_proxy": DEAD, "HTTP_PROXY": DEAD, "HTTPS_PROXY": DEAD}
    env |= {
        "no_proxy": "127.0.0.1,localhost",
        "PIP_NO_INDEX": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    if not job.in_place:
        env["DDPM_LITE_RESULTS"] = str(RESULTS)
    return env


def complaint(target: Path, stderr: str) -> str:
    """Which cell failed and how, in a few lines."""
    if target.is_file():
        for number, cell in enumerate(nbformat.read(target, as_version=4).cells):
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    trace = ANSI.sub("", "\n".join(output.traceback)).splitlines()
                    head = f"cell {number} raised {output.ename}: {output.evalue}"
                    return "\n    ".join([head, *trace[-15:]])
    return "\n    ".join(["papermill failed", *ANSI.sub("", stderr).splitlines()[-15:]])


def run(job: Job) -> tuple[float, str]:
    """Execute one notebook; (seconds, what went wrong or "")."""
    if not job.in_place:
        (RESULTS / f"{job.source.stem[:2]}.json").unlink(missing_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        empty = Path(folder, "empty")
        empty.mkdir()
        out = Path(folder, job.source.name)
        command = [sys.executable, "-m", "papermill", str(job.source), str(out)]
        command += ["-k", "python3", "--cwd", str(empty), "--no-progress-bar"]
        command += ["--log-level", "ERROR", "--execution-timeout", str(job.seconds)]
        if not job.in_place:  # the committed copy shows its own defaults
            command += ["-p", "profile", job.profile, "-p", "device", job.device]
        for _ in range(3):
            done = subprocess.run(command, env=environment(job), capture_output=True, text=True)
            if STILLBORN not in done.stderr:
                break
        seconds = time.perf_counter() - start
        if done.returncode:
            return seconds, complaint(out, done.stderr)
        aside = job.target.with_suffix(".part")
        notebook = nbformat.read(out, as_version=4)
        nbformat.write(clean(notebook) if job.in_place else notebook, aside)
        os.replace(aside, job.target)
    return seconds, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="chapters, e.g. 03_forward (default: all)")
    parser.add_argument("--in-place", action="store_true", help="refresh notebooks/ itself")
    parser.add_argument("--force", action="store_true", help="run also what has not changed")
    parser.add_argument("--profile", default="fast", choices=("fast", "full"))
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=900, help="seconds a cell may take")
    options = parser.parse_args()

    sources = sorted((ROOT / "notebooks").glob("*.ipynb"))
    if unknown := set(options.names) - {path.stem for path in sources}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {[p.stem for p in sources]}")
    EXECUTED.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    times = json.loads(TIMES.read_text()) if TIMES.is_file() else {}

    def key(job: Job) -> Path:
        return EXECUTED / f"{job.source.stem}.key"

    jobs = []
    for path in sources:
        target = path if options.in_place else EXECUTED / path.name
        job = Job(path, target, options.profile, options.device, options.in_place, options.timeout)
        if options.names and path.stem not in options.names:
            continue
        same = key(job).is_file() and key(job).read_text() == fingerprint(job) and target.is_file()
        if same and not options.force and not options.in_place:
            print(f"  {path.stem:<20} unchanged")
        else:
            key(job).unlink(missing_ok=True)
            jobs.append(job)
    # the longest first, so that the two processes end together
    jobs.sort(key=lambda j: -times.get(j.source.stem, {}).get("value", 0.0))

    failed = []
    with ThreadPoolExecutor(options.processes) as pool:
        for job, (seconds, wrong) in zip(jobs, pool.map(run, jobs), strict=True):
            name = job.source.stem
            print(f"  {name:<20} {seconds:6.1f} s  {'FAILED' if wrong else 'ok'}", flush=True)
            if wrong:
                failed.append(f"{name}: {wrong}")
            elif not options.in_place:
                times[name] = {"value": round(seconds, 1), "unit": "s"}
                key(job).write_text(fingerprint(job))
    TIMES.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n")
    for text in failed:
        print(f"\n{text}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
