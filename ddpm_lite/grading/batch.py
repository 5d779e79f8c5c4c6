"""Grade many submissions: resume, workers, a cluster; one atomic file per student."""

from __future__ import annotations

import json
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import files
from .notebook import Found, Submission, open_submission
from .plan import FORMAT, BatchStopped, Job, Plan, grade_some

__all__ = ["grade_all", "opened", "read_result", "secret_of"]

SHORTEST = 16  # bytes of a secret


def read_result(path: Path) -> dict[str, Any] | None:
    """A result written before, or None."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("format") == FORMAT else None


def secret_of(out: Path, given: Path | None, made: bool = True) -> bytes:
    """The secret behind the random inputs: a file's content, or one `made` once for a folder.

    ValueError where it is so short that the inputs could be guessed.
    """
    path = given or out / "secret"
    if not path.exists() and given is None and made:
        files.write(path, secrets.token_hex(32).encode())
        path.chmod(0o600)
    secret = path.read_bytes().strip()
    if len(secret) < SHORTEST:
        raise ValueError(
            f"{path} holds {len(secret)} bytes, too few for a secret: the inputs could be guessed; "
            f"put {SHORTEST} random characters or more into it"
        )
    return secret


def grade_all(
    plan: Plan,
    found: Sequence[Found],
    out: Path,
    workers: int = 1,
    dask: str | None = None,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """Grade what has no final result yet; returns everybody's, in order. `told` hears of progress.

    Raises BatchStopped, before anybody is graded, where the self-test fails.
    """
    for part in out.glob("**/.*.part"):  # of a batch that was killed while it wrote
        part.unlink(missing_ok=True)
    jobs, kept = [], {}
    for item in found:
        handed = opened(item)
        before = read_result(_path(out, item.student))
        if before and _stands(before, plan, handed):
            kept[item.student] = before
        else:
            jobs.append(Job(item.student, handed))
    if jobs:
        told(len(kept), len(found))
        for student, result in on_cluster(plan, jobs, dask) if dask else here(plan, jobs, workers):
            text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False)
            files.write(_path(out, student), f"{text}\n".encode())
            kept[student] = result
            told(len(kept), len(found))
    return [kept[item.student] for item in found]


def opened(item: Found) -> Submission:
    """What a student handed in, read."""
    read = open_submission(item.path) if item.path else Submission("", why=item.why)
    return read._replace(file=item.file, others=item.others)


def _path(out: Path, student: str) -> Path:
    return out / "students" / f"{student}.json"


def _stands(before: dict[str, Any], plan: Plan, handed: Submission) -> bool:
    now = {
        "submission": handed.hash,
        "unreadable": handed.why,
        "file": handed.file,
        "others": list(handed.others),
        "specification": plan.specification,
        "isolation": plan.level,
        "final": True,
    }
    return all(before.get(key) == value for key, value in now.items())


def here(plan: Plan, jobs: Sequence[Job], workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Threads with a sandbox each: the work is done in the sandboxes' processes."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
    stop, all_tested = threading.Event(), threading.Barrier(workers)
    for job in jobs:
        waiting.put(job)

    def take() -> Iterator[Job]:
        while not stop.is_set():
            try:
                yield waiting.get_nowait()
            except queue.Empty:
                return

    def work(index: int) -> None:
        try:
            for pair in grade_some(plan, take(), index, all_tested.wait):
                done.put(pair)
        except BaseException:
            all_tested.abort()
            raise
        finally:
            done.put(None)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, index) for index in range(workers)]
        try:
            for _ in range(workers):
                yield from iter(done.get, None)
        finally:
            stop.set()
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error


CHUNK = 8  # submissions for one sandbox on a cluster


def on_cluster(
    plan: Plan, jobs: Sequence[Job], address: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same on a Dask cluster; each task tests its own machine first."""
    try:
        import distributed
    except ImportError as error:
        raise BatchStopped("--dask needs Dask: pip install 'ddpm-lite[grade]'") from error

    with distributed.Client(address, set_as_default=False) as client:
        chunks = [list(jobs[i : i + CHUNK]) for i in range(0, len(jobs), CHUNK)]
        futures = [
            client.submit(grade_chunk, plan, chunk, i, pure=False) for i, chunk in enumerate(chunks)
        ]
        for future in distributed.as_completed(futures, loop=client.loop):
            yield from future.result()


def grade_chunk(plan: Plan, jobs: Sequence[Job], index: int) -> list[tuple[str, dict[str, Any]]]:
    """A task of a cluster: plain values in, plain values out."""
    import torch

    torch.set_num_threads(1)
    return list(grade_some(plan, jobs, index % 8))
