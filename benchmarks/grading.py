"""How long does it take to grade a class's submissions of one chapter?

    python benchmarks/grading.py --out _build/grading.json

Two hundred notebooks: right answers in several forms, known mistakes, unfinished ones, and ten that
loop, crash, fork or eat memory. They are made from the chapter's own exercises, and graded as
`ddpm-lite grade --workers 2` does, imports and self-test included. The share of the machine that
this process got is printed with the wall clock's time: on a busy machine the latter says little.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ddpm_lite import files
from ddpm_lite.grading import batch, notebook, plan, sandbox, source
from ddpm_lite.grading.source import Loaded

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = {
    "loop": "while True: pass",
    "sleeps": "time.sleep(1000)",
    "exits": "os._exit(0)",
    "segfault": "ctypes.string_at(0)",
    "fork bomb": "while True:\n        try: os.fork()\n        except OSError: pass",
    "memory": "x = []\n    while True: x.append(torch.ones(1 << 24))",
    "kill": "os.kill(-1, 9)",
    "stops": "os.kill(os.getpid(), 19)",
    "flood": "while True: os.write(1, b'x' * 65536)",
    "pipe": "os.write(4, b'\\xff' * 1000)",
}


def submissions(exercises: Sequence[Loaded], n: int, hostile: int) -> Iterator[tuple[str, str]]:
    """(kind, code) of n submissions, `hostile` of them among those that want to hurt."""
    draw = random.Random(0)
    attacks = list(HOSTILE.items())
    for i in range(n - hostile):
        parts = []
        for e in exercises:
            wrong = [e.mutated(mutant) for mutant in e.spec.mutants]
            forms = [e.solved] * 5 + list(e.spec.rights) * 2 + wrong + [e.starter] * 2
            parts.append(draw.choice(forms))
        yield "ordinary", "\n".join(parts) + f"\n# {i}\n"
    for i in range(hostile):
        kind, attack = attacks[i % len(attacks)]
        names = "\n".join(f"{e.answer} = hurt" for e in exercises)
        head = "import ctypes, os, time, torch\n"
        yield kind, f"{head}def hurt(*args, **kwargs):\n    {attack}\n{names}\n# {i}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    parser.add_argument("--chapter", default="01_factorization")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--hostile", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, help="limit of a case (default: the exercise's)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    exercises = [e for e in source.read_all(ROOT / "exercises", args.chapter) if e.spec.checks]
    level = sandbox.best_level()
    if level == "C":
        raise SystemExit("no sandbox here: install bubblewrap (the benchmark runs hostile code)")
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        kinds = {}
        for i, (kind, text) in enumerate(submissions(exercises, args.n, args.hostile)):
            cell = {"cell_type": "code", "source": text, "metadata": {}, "outputs": []}
            path = top / "in" / f"s{i:03}.ipynb"
            files.write(path, json.dumps({"cells": [cell], "nbformat": 4}).encode())
            kinds[path.stem] = kind
        found, _ = notebook.collect(top / "in", args.chapter)
        the_plan = plan.plan_of(exercises, secret=b"benchmark", level=level, seconds=args.seconds)
        start, before = time.perf_counter(), os.times()
        results = batch.grade_all(the_plan, found, top / "out", args.workers, told=told)
        wall, after = time.perf_counter() - start, os.times()
    own = sum(after[:4]) - sum(before[:4])
    verdicts = Counter(row["verdict"] for r in results for row in r["exercises"])
    row = {
        "chapter": args.chapter,
        "exercises": len(exercises),
        "submissions": len(results),
        "hostile": args.hostile,
        "workers": args.workers,
        "isolation": level,
        "wall_s": wall,
        "per_minute": 60 * len(results) / wall,
        "grader_cpu_s": own,
        "load": os.getloadavg()[0],
        "verdicts": dict(sorted(verdicts.items())),
        "not_graded": sum(not r["final"] for r in results),
        "hostile_points": sum(r["points"] for r in results if kinds[r["student"]] != "ordinary"),
    }
    print(file=sys.stderr)
    for key, value in row.items():
        print(f"{key:>16}  {value:.1f}" if isinstance(value, float) else f"{key:>16}  {value}")
    if args.out:
        files.write(args.out, (json.dumps(row, indent=1) + "\n").encode())


def told(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{of}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
