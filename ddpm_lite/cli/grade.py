"""`ddpm-lite grade`: score submitted notebooks in a sandbox, with feedback for each student."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .common import Answer, positive

HELP = "grade a folder of submitted exercise notebooks, each exercise in a sandbox"
EXAMPLE = "ddpm-lite grade submitted/ --chapter 01_factorization --out graded/ --workers 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "submissions", type=Path, help="holds STUDENT.ipynb or STUDENT/…/CHAPTER.ipynb"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for results and reports")
    parser.add_argument("--chapter", help="such as 01_factorization (default: by the files' names)")
    parser.add_argument(
        "--exercises", type=Path, default=Path("exercises"), help="folder (default ./exercises)"
    )
    parser.add_argument("--variant", metavar="KEY", help="as given to release")
    parser.add_argument("--workers", type=positive, default=1, help="sandboxes at a time")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler to grade on")
    parser.add_argument("--isolation", choices=("A", "B"), help="default: the best there is")
    parser.add_argument("--secret", type=Path, help="file with the secret behind random inputs")
    parser.add_argument("--seconds", type=float, help="limit of a case (default: the exercise's)")
    parser.add_argument(
        "--insecure", action="store_true", help="grade without a sandbox: code that you trust"
    )


def run(args: argparse.Namespace) -> Answer:
    import torch

    from ..grading import batch, notebook, pages, reports, source
    from ..grading.plan import BatchStopped, plan_of
    from ..grading.sandbox import best_level

    torch.set_num_threads(1)
    if not args.submissions.is_dir():
        raise ValueError(f"{args.submissions} is no folder of submissions")
    chapters = source.chapters(args.exercises)
    chapter = args.chapter or _chapter(args.submissions, chapters)
    exercises = source.read_all(args.exercises, chapter, args.variant)
    found, refused = notebook.collect(args.submissions, chapter)
    if not found:
        raise ValueError(f"no notebooks in {args.submissions}: it should hold STUDENT.ipynb")
    level = "C" if args.insecure else args.isolation or best_level()
    if level == "C" and not args.insecure:
        raise ValueError(
            "no sandbox here: install bubblewrap, or grade in a container as root "
            "(--insecure runs every submission with your own rights)"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    plan = plan_of(
        exercises,
        secret=batch.secret_of(args.out, args.secret),
        level=level,
        seconds=args.seconds,
        closed=tuple(str(p.resolve()) for p in (args.exercises, args.submissions, args.out)),
    )
    try:
        with _progress(len(found)) as told:
            results = batch.grade_all(plan, found, args.out, args.workers, args.dask, told)
    except BatchStopped as error:
        return Answer({"stopped": str(error)}, f"ddpm-lite: {error}", 1)
    reports.tables(results, args.out)
    reports.write_gradescope(results, args.out)
    told_of = reports.write_summary(results, args.out)
    pages.write_pages(results, told_of, refused, args.out)
    errors = [r["student"] for r in results if not r["final"]]
    lines = [
        f"{told_of['graded']} of {len(results)} graded, isolation {level}: {args.out}/class.html"
    ]
    lines += [f"refused, for its name: {name!a}" for name in refused]
    lines += [f"grader error, run again: {', '.join(errors)}"] if errors else []
    data = {**told_of, "isolation": level, "refused": refused, "errors": errors}
    return Answer(data, "\n".join(lines), 1 if errors else 0)


def _chapter(folder: Path, chapters: list[str]) -> str:
    """The one chapter whose notebooks lie in the students' folders."""
    names = {path.stem for path in folder.glob("*/**/*.ipynb")}
    found = [name for name in chapters if name in names]
    if len(found) != 1:
        what = (
            f"notebooks of {', '.join(found)}" if found else "no chapter's name in the files' names"
        )
        raise ValueError(f"{folder}: {what}: give --chapter, one of {', '.join(chapters)}")
    return found[0]


class _progress:
    """A bar with rate and time left, on a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __enter__(self) -> Any:
        from tqdm import tqdm

        self.bar = tqdm(total=self.total, unit="student", disable=not sys.stderr.isatty())
        return lambda done, of: self.bar.update(done - self.bar.n)

    def __exit__(self, *_: object) -> None:
        self.bar.close()
