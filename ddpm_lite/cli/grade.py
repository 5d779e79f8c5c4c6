"""`ddpm-lite grade`: score submitted notebooks in a sandbox, with feedback for each student."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from .common import Answer, positive

HELP = "grade a folder of submitted exercise notebooks, each exercise in a sandbox"
EXAMPLE = "ddpm-lite grade submitted/ --chapter 01_factorization --out graded/01_factorization"
LONGEST = 600.0  # seconds for one case: a longer limit is a slip of the pen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "submissions", type=Path, help="holds STUDENT.ipynb or STUDENT/…/CHAPTER.ipynb"
    )
    parser.add_argument(
        "--out", type=place, required=True, help="folder for results and reports, one for each set"
    )
    parser.add_argument("--chapter", help="such as 01_factorization (default: by the files' names)")
    parser.add_argument(
        "--exercises", type=Path, default=Path("exercises"), help="folder (default ./exercises)"
    )
    parser.add_argument("--variant", metavar="KEY", help="as given to release")
    parser.add_argument("--roster", type=Path, metavar="CSV", help="who is in the class")
    parser.add_argument("--workers", type=positive, default=1, help="sandboxes at a time")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler to grade on")
    parser.add_argument("--isolation", choices=("A", "B"), help="default: the best there is")
    parser.add_argument("--secret", type=Path, help="file with the secret behind random inputs")
    parser.add_argument("--seconds", type=seconds, help="limit of a case (default: the exercise's)")
    parser.add_argument(
        "--explain",
        metavar="STUDENT",
        help="grade nobody, but show you what one student's failing cases were and gave",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="grade without a sandbox: code that you trust"
    )


def place(text: str) -> Path:
    """A folder's name. "" would count as the folder where one stands: a variable not set."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: give the name of a folder")
    return Path(text)


def seconds(text: str) -> float:
    """A limit that some answer can keep: with any other one everybody would get 0."""
    value = float(text)
    if not (math.isfinite(value) and 0 < value <= LONGEST):
        raise argparse.ArgumentTypeError(
            f"{text} is no time limit: give seconds above 0 and up to {LONGEST:g}"
        )
    return value


def run(args: argparse.Namespace) -> Answer:
    import torch

    from ..grading import batch, folder, notebook, pages, reports, source
    from ..grading.plan import BatchStopped, plan_of
    from ..grading.roster import read_roster
    from ..grading.sandbox import best_level

    torch.set_num_threads(1)
    if not args.submissions.is_dir():
        raise ValueError(f"{args.submissions} is no folder of submissions")
    chapters = source.chapters(args.exercises)
    chapter = args.chapter or _chapter(args.submissions, chapters)
    exercises = source.read_all(args.exercises, chapter, args.variant)
    roster = read_roster(args.roster) if args.roster else None
    found, left = notebook.collect(args.submissions, chapter)
    if not found:
        more = f"; {left[0].name!a}: {left[0].why}" if left else ""
        raise ValueError(f"no notebooks in {args.submissions}: it should hold STUDENT.ipynb{more}")
    level = "C" if args.insecure else args.isolation or best_level()
    if level == "C" and not args.insecure:
        raise ValueError(
            "no sandbox here: install bubblewrap, or grade in a container as root "
            "(--insecure runs every submission with your own rights)"
        )
    if not args.explain:
        folder.open_folder(args.out, args.submissions)
    plan = plan_of(
        exercises,
        secret=batch.secret_of(args.out, args.secret, made=not args.explain),
        level=level,
        seconds=args.seconds,
        closed=tuple(str(p.resolve()) for p in (args.exercises, args.submissions, args.out)),
    )
    if args.explain:
        return _explained(args, plan, found)
    folder.claim(args.out, plan)
    try:
        with _progress(len(found)) as told:
            results = batch.grade_all(plan, found, args.out, args.workers, args.dask, told)
    except BatchStopped as error:
        return Answer({"stopped": str(error)}, f"ddpm-lite: {error}", 1)
    aside = folder.put_aside(args.out, {r["student"] for r in results})
    reports.tables(results, args.out, left, roster)
    reports.write_gradescope(results, args.out)
    told_of = reports.write_summary(results, args.out, left)
    pages.write_pages(results, told_of, args.out)
    errors = [r["student"] for r in results if not r["final"]]
    lines = [
        f"{told_of['graded']} of {len(results)} graded, isolation {level}: {args.out}/class.html"
    ]
    lines += [f"not graded: {name!a}: {why}" for name, why in left]
    lines += _warnings(results)
    lines += [f"in {args.out}/old, not handed in any more: {_some(aside)}"] if aside else []
    lines += [f"grader error, run again: {', '.join(errors)}"] if errors else []
    data = {**told_of, "isolation": level, "errors": errors}
    return Answer(data, "\n".join(lines), 0 if told_of["graded"] and not errors else 1)


def _warnings(results: list[dict[str, Any]]) -> list[str]:
    """What is more likely the lecturer's slip than the students'."""
    foreign = [r["student"] for r in results if r["foreign"]]
    older = [r["student"] for r in results if r["outdated"] and not r["foreign"]]
    checks = {r["student"]: [c for row in r["exercises"] for c in row["checks"]] for r in results}
    none = [
        s for s, all_of in checks.items() if all_of and {c["hint"] for c in all_of} == {"exists"}
    ]
    lines = [f"not graded, {r['foreign']}: {r['student']}" for r in results if r["foreign"]][:5]
    if len(foreign) > len(lines):
        lines.append(f"… and {len(foreign) - len(lines)} more like this")
    for what, who in (
        ("made from other texts than the exercises have now", older),
        ("none of the functions is defined", none),
    ):
        lines += [f"look at these, {what}: {_some(who)}"] if who else []
    if len(foreign) + len(none) > len(results) / 2:
        lines.append("is this the right chapter, and the right --variant?")
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _explained(args: argparse.Namespace, plan: Any, found: list[Any]) -> Answer:
    """What `--explain` prints."""
    from .. import __version__
    from ..grading import batch, folder
    from ..grading.explain import explained
    from ..grading.words import note

    item = next((f for f in found if f.student == args.explain), None)
    if item is None:
        raise ValueError(f"no submission of {args.explain!r} in {args.submissions}")
    opened = batch.opened(item)
    before = batch.read_result(args.out / "students" / f"{item.student}.json") or {}
    now = (opened.hash, plan.specification)
    lines = [
        f"{item.student}: {item.file or item.why}, sha256 {opened.hash[:16] or '-'}",
        f"isolation {plan.level}, ddpm-lite {__version__}; the grade was made by ddpm-lite "
        f"{folder.about(args.out).get('version', '?')}",
    ]
    if before and before["points"] is not None:
        lines.append(f"{before['points']:g} of {before['of']:g} points. {note(before)}".rstrip())
    if now != (before.get("submission"), before.get("specification")):
        lines.append("not what was graded: the file or the exercises are others by now")
    said = [] if opened.why else list(explained(plan, opened))
    if not said:
        lines.append(opened.why or "every check is passed")
    data = {"student": item.student, "lines": lines + said}
    return Answer(data, "\n".join([*lines, "", *said]).rstrip())


def _chapter(folder: Path, chapters: list[str]) -> str:
    """The one chapter whose notebooks these are, by the beginnings of their names."""
    names = {path.stem for path in folder.rglob("*.ipynb")}
    found = [c for c in chapters if any(name.startswith(c) for name in names)]
    if len(found) != 1:
        what = (
            f"notebooks of {' and '.join(found)}"
            if found
            else "no chapter's name in the files' names"
        )
        raise ValueError(f"{folder}: {what}: give --chapter, one of {', '.join(chapters)}")
    return found[0]


class _progress:
    """A bar with rate and time left, on a terminal; what is kept, where it is interrupted."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.heard = total, 0, False

    def __enter__(self) -> Any:
        from tqdm import tqdm

        size = shutil.get_terminal_size()  # some terminals say 0 by 0, and tqdm would print nothing
        fit = {"ncols": min(100, size.columns), "nrows": size.lines}
        off = not sys.stderr.isatty()
        self.bar = tqdm(total=self.total, unit="student", disable=off, **fit)
        self.bar.set_description("testing this machine")
        return self.told

    def told(self, done: int, of: int) -> None:
        if self.heard:  # the first time tells what stood before, and the self-test follows
            self.bar.set_description("grading", refresh=False)
        self.heard = True
        self.bar.n = self.done = done
        self.bar.refresh()

    def __exit__(self, kind: Any, *_: object) -> None:
        self.bar.close()
        if kind is KeyboardInterrupt:
            print(
                f"{self.done} of {self.total} are graded and kept: the same command goes on",
                file=sys.stderr,
            )
