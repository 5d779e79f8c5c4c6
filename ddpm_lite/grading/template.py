"""The process inside the sandbox that has imported torch, and forks a child per exercise.

It runs no student code itself. Each child is a keeper, and below it, where the system allows it in
PID and mount namespaces of its own, the worker, with another user's rights where we are root. A
child's end is the end of everything it started. The grader speaks to this process over a socket:
`R` with the two ends of the worker's pipes, `K` to end it; the answer to both is one `E`, when
nothing of the child is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from . import kernel

__all__ = ["main"]

PROCESSES, FILES = 64, 256  # a worker's limits
USERS = 400  # as which workers run in turn
TMPFS = "size=64m,mode=1777"


def main(control: int, settings: dict[str, Any]) -> None:
    """Serve until the socket closes. settings: uid (or None), hide, memory, seconds,
    preload (False: nothing will be run, somebody wants to know what is possible)."""
    with socket.socket(fileno=control) as sock:
        if settings["preload"]:
            _preload()
        settings["namespaces"] = _try_namespaces()
        said = {"namespaces": settings["namespaces"], "reads": _can_read(settings["uid"])}
        sock.sendall(json.dumps(said).encode() + b"\n")
        first, child = settings["uid"], None
        while True:
            poll = select.poll()
            poll.register(control, select.POLLIN)
            if child:
                poll.register(child.life, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            if control in ready:
                order, fds, *_ = socket.recv_fds(sock, 1, 2)
                if order == b"R":
                    child = _start(fds, control, settings)
                elif child:
                    child.end()
                elif order == b"K":
                    sock.sendall(b"E")
                if not order:
                    return
            if child and child.life in ready and child.ended():
                _sweep(child, settings)
                child = None
                if first is not None:  # the next one is another user: no leftovers, no shared count
                    settings["uid"] = first + (settings["uid"] - first + 1) % USERS
                sock.sendall(b"E")


class Child:
    """A keeper, and the process below it: the first of its namespace, or the worker."""

    def __init__(self, keeper: int, life: int) -> None:
        self.keeper, self.life = keeper, life
        data = os.read(life, 4)  # the keeper says whom it keeps
        self.kept = int.from_bytes(data, "big")

    def end(self) -> None:
        """Kill what is kept; its keeper ends by itself."""
        for kill in (os.kill, os.killpg) if self.kept else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.kept, signal.SIGKILL)

    def ended(self) -> bool:
        """Nobody holds the other end any more: both are gone."""
        os.waitpid(self.keeper, 0)
        os.close(self.life)
        return True


def _preload() -> None:
    """What every submission imports: once, before the forks."""
    import torch

    torch.set_num_threads(1)
    from .. import ar, checks, diffusion, exact, samplers, schedules  # noqa: F401
    from . import worker  # noqa: F401

    with contextlib.suppress(Exception):
        import matplotlib.pyplot  # noqa: F401
    torch.ones(8, 8) @ torch.ones(8, 8)
    gc.freeze()


def _try_namespaces() -> bool:
    """Whether a child may have namespaces of its own."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            kernel.own_namespaces()
            kernel.mount("tmpfs", "/tmp", TMPFS)
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _can_read(uid: int | None) -> bool:
    """Whether a worker could import what is not imported yet."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            if uid is not None:
                os.setresuid(uid, uid, uid)
            for name in (os.__file__, __file__):
                open(name, "rb").close()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _start(fds: list[int], control: int, settings: dict[str, Any]) -> Child:
    """Fork a keeper, which goes on below."""
    life, held = os.pipe()
    keeper = os.fork()
    if keeper:
        for fd in (*fds, held):
            os.close(fd)
        return Child(keeper, life)
    try:
        os.close(control)
        os.close(life)
        kernel.end_with_parent()
        if settings["namespaces"]:
            kernel.own_namespaces()
            _fork_and_wait(fds, held)
            kernel.end_with_parent()  # from here on this is process 1 of the new namespace
            _own_files(settings)
            _fork_and_wait(fds)
        else:
            _fork_and_wait(fds, held)
        _confine(settings)
        read, write = _only(fds)
        from .worker import serve

        serve(read, write)
    finally:
        os._exit(1)


def _fork_and_wait(fds: list[int], held: int = -1) -> None:
    """Go on in a child; this process waits for its end, and then ends too."""
    child = os.fork()
    if not child:
        return
    if held >= 0:
        os.write(held, child.to_bytes(4, "big"))
    for fd in fds:
        os.close(fd)
    while True:  # as process 1 it reaps strangers too
        pid, _ = os.wait()
        if pid == child:
            os._exit(0)


def _own_files(settings: dict[str, Any]) -> None:
    """Fresh empty directories where one may write, and none that say what else runs."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        if os.path.isdir(folder):
            kernel.mount("tmpfs", folder, TMPFS)
    for folder in settings["hide"]:
        kernel.mount("tmpfs", folder, "size=4k,mode=0700")
    try:
        kernel.mount("proc", "/proc")
    except OSError:
        kernel.mount("tmpfs", "/proc", "size=4k,mode=0555")


def _confine(settings: dict[str, Any]) -> None:
    """Limits, another user, no capabilities. From here on nothing is trusted."""
    os.setsid()
    soft = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(settings["seconds"]) + 1,
        resource.RLIMIT_FSIZE: 1 << 26,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_AS: _size() + settings["memory"],
    }
    if settings["uid"] is not None or settings["namespaces"]:
        soft[resource.RLIMIT_NPROC] = PROCESSES  # of this user's: it must be one of our own
    for name, limit in soft.items():
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some
            resource.setrlimit(name, (limit, limit))
    if settings["uid"] is not None:
        os.setgroups([])
        os.setresgid(*[settings["uid"]] * 3)
        os.setresuid(*[settings["uid"]] * 3)
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    kernel.end_with_parent()
    os.chdir("/tmp")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def _size() -> int:
    """Bytes of address space in use; 0 where it is not known."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 35


def _only(fds: list[int]) -> tuple[int, int]:
    """Close every descriptor but the two pipes, which become 3 and 4; 0, 1, 2 lead nowhere."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, FILES // 2) for fd in fds]
    os.closerange(0, FILES // 2)
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
    for fd, target in zip(high, (3, 4), strict=True):
        os.dup2(fd, target)
    os.closerange(5, FILES)
    return 3, 4


def _sweep(child: Child, settings: dict[str, Any]) -> None:
    """Without namespaces: end what the worker left behind, as far as we can know it."""
    child.end()  # the rest of its process group
    if settings["namespaces"] or settings["uid"] is None:
        return
    sweeper = os.fork()
    if not sweeper:
        with contextlib.suppress(BaseException):
            os.setresuid(*[settings["uid"]] * 3)
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(sweeper, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
