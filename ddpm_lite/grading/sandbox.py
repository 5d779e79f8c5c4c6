"""The grader's side of the sandbox: start it at the isolation that the machine allows, ask it.

A: bubblewrap gives a fresh root (no network, no /etc, nothing but the interpreter), and each
   exercise has PID and mount namespaces of its own.
B: root without bubblewrap: each exercise runs as a user of its own, with limits. The folders with
   specifications and submissions are covered where there are mount namespaces; elsewhere they must
   be closed to others, or nothing runs. The network is as the container sets it.
C: the same user. A wrong answer can do what the lecturer can: only with `--insecure`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["LEVELS", "Sandbox", "SandboxError", "best_level"]

LEVELS = ("A", "B", "C")
START_SECONDS = 120  # importing torch on a busy machine
FIRST_USER, USERS = 60100, 400
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}


class SandboxError(RuntimeError):
    """The sandbox cannot be had, or does not answer: nobody's fault who is graded."""


def best_level() -> str:
    """The strongest level that is to be had here, found by starting one."""
    for level in LEVELS[:-1]:
        with contextlib.suppress(SandboxError), Sandbox(level, preload=False) as box:
            box.start()
            return level
    return "C"


class Sandbox:
    """One worker at a time, for one exercise at a time, forked from a process that has torch."""

    def __init__(
        self,
        level: str,
        index: int = 0,
        closed: Sequence[Path] = (),
        memory: int = 2 << 30,
        seconds: float = 60,
        preload: bool = True,
    ) -> None:
        if level not in LEVELS:
            raise SandboxError(f"no isolation level {level!r}: known are {', '.join(LEVELS)}")
        if level == "B" and os.geteuid() != 0:
            raise SandboxError("isolation level B needs root, as in a plain container")
        if level == "A" and not shutil.which("bwrap"):
            raise SandboxError(
                "isolation level A needs bubblewrap (Debian: apt install bubblewrap)"
            )
        self.level = level
        root = os.geteuid() == 0
        self._settings: dict[str, Any] = {
            "uid": FIRST_USER + USERS * index if root and level != "C" else None,
            "hide": [] if level == "A" else [str(path.resolve()) for path in closed],
            "memory": memory,
            "seconds": seconds,
            "preload": preload,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the template process; it is started anew by itself after a crash."""
        ours, theirs = socket.socketpair()
        code = (
            "import sys; sys.path.append(sys.argv[3]); "
            "from ddpm_lite.grading.template import main; import json; "
            "main(int(sys.argv[1]), json.loads(sys.argv[2]))"
        )
        package = str(Path(__file__).resolve().parents[2])
        settings = json.dumps(self._settings)
        command = [sys.executable, "-I", "-c", code, str(theirs.fileno()), settings, package]
        if self.level == "A":
            command = [*_bubblewrap(), *command]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if os.environ.get("DDPM_LITE_DEBUG") is None else None,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._control = ours
        ours.settimeout(START_SECONDS)
        try:
            said = json.loads(ours.makefile("rb").readline(4096))
        except (OSError, ValueError) as error:
            why = self.stop()
            raise SandboxError(f"the sandbox of level {self.level} does not start{why}") from error
        if why := self.unfit(said):
            self.stop()
            raise SandboxError(why)

    def unfit(self, said: dict[str, bool]) -> str:
        """Why nothing may run here, by what the template found possible; "" if it may."""
        if not said["reads"]:
            return f"others than you cannot read {sys.prefix}: install it elsewhere"
        if said["namespaces"]:  # level B then covers the folders that are to be closed
            return ""
        if self.level == "A":
            return "level A needs PID namespaces, which this machine does not allow"
        for folder in self._settings["hide"] if self.level == "B" else ():
            if _open_to_others(Path(folder)):
                return f"submissions could read {folder}, which this machine cannot hide: chmod 700"
        return ""

    def stop(self) -> str:
        """End it and everything in it; returns the last line that it said of an error."""
        said = ""
        if self._control:
            self._control.close()
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self._process.stderr:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    lines = self._process.communicate(timeout=5)[1].decode(errors="replace")
                    said = "".join(f": {line}" for line in lines.strip().split("\n")[-1:] if line)
            self._process.wait()
        self._process = self._control = None
        return said

    @contextlib.contextmanager
    def child(self) -> Iterator[tuple[int, int]]:
        """A fresh worker's pipes (to write to, to read from); nothing of it is left afterwards."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        assert self._control is not None
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
        try:
            with contextlib.ExitStack() as theirs:
                theirs.callback(os.close, their_in)
                theirs.callback(os.close, their_out)
                socket.send_fds(self._control, [b"R"], [their_in, their_out])
            os.set_blocking(our_out, False)
            os.set_blocking(our_in, False)
            yield our_out, our_in
        except OSError as error:
            self.stop()
            raise SandboxError("the sandbox went away") from error
        finally:
            os.close(our_out)
            os.close(our_in)
            self._reap()

    def _reap(self) -> None:
        """Wait until nothing of the child is left; a sandbox that cannot say so is replaced."""
        if self._control is None:
            return
        try:
            self._control.settimeout(20)
            self._control.sendall(b"K")
            if self._control.recv(1) == b"E":
                return
        except OSError:
            pass
        self.stop()


def _open_to_others(folder: Path) -> bool:
    """Whether another user gets as far as into `folder`."""
    inside = folder.stat().st_mode & 0o005
    return bool(inside) and all(parent.stat().st_mode & 0o001 for parent in folder.parents)


def _bubblewrap() -> list[str]:
    """The command that starts a program with nothing but the interpreter in sight."""
    words = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # the template gives each worker another user's rights and its own space
        for name in ("SYS_ADMIN", "SETUID", "SETGID", "SYS_RESOURCE", "KILL"):
            words += ["--cap-add", f"CAP_{name}"]
    else:
        words += ["--unshare-user"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    bound = _interpreter()
    for parent in sorted({parent for path in bound for parent in path.parents[:-1]}):
        words += ["--perms", "0755", "--dir", str(parent)]  # else it is as closed as the true one
    for path in bound:
        words += ["--ro-bind", str(path), str(path)]
    words += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    return [*words, "--"]


def _interpreter() -> list[Path]:
    """Folders that Python and its packages are in, without those inside another."""
    package = Path(__file__).resolve().parents[1]
    wanted = [Path(p) for p in ("/usr", sys.prefix, sys.base_prefix, sys.exec_prefix)]
    wanted += [Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    wanted += [p.resolve() for p in wanted] + [package, Path(sys.executable).resolve().parents[1]]
    found: list[Path] = []
    for path in sorted(set(wanted), key=lambda p: len(p.parts)):
        if path.is_dir() and path != Path("/") and not any(p in path.parents for p in found):
            found.append(path)
    return found
