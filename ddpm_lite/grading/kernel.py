"""The few Linux calls that Python 3.11 does not wrap: namespaces, mounts, capabilities."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["drop_capabilities", "end_with_parent", "mount", "no_new_privileges", "own_namespaces"]

NEWNS, NEWIPC, NEWUSER, NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
_NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS, _CAPABILITY_VERSION_3 = 1, 38, 0x20080522


def _call(name: str, *arguments: object) -> None:
    """A libc function that returns 0; OSError otherwise."""
    if not sys.platform.startswith("linux"):
        raise OSError(f"no {name} on {sys.platform}")
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def own_namespaces() -> None:
    """Give this process mounts of its own, and its next child a PID namespace of its own.

    As root directly; otherwise inside a user namespace of its own. OSError where neither may be.
    """
    if os.geteuid() == 0:
        _call("unshare", NEWPID | NEWNS | NEWIPC)
    else:
        uid, gid = os.geteuid(), os.getegid()
        _call("unshare", NEWUSER | NEWPID | NEWNS | NEWIPC)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _call("mount", None, b"/", None, ctypes.c_ulong(_REC | _PRIVATE), None)  # tell nobody outside


def mount(kind: str, target: str, options: str = "") -> None:
    """Mount a fresh filesystem, such as a tmpfs, over `target`."""
    flags = _NOSUID | _NODEV | (_NOEXEC if kind == "proc" else 0)
    data = options.encode() if options else None
    _call("mount", kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data)


def end_with_parent() -> None:
    """The kernel kills this process when the one that forked it ends."""
    if sys.platform.startswith("linux"):
        _call("prctl", _SET_PDEATHSIG, 9, 0, 0, 0)


def no_new_privileges() -> None:
    """Neither this process nor its children gain anything by set-user-id programs."""
    if sys.platform.startswith("linux"):
        _call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability, those of a user namespace too."""
    if sys.platform.startswith("linux"):
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        _call("capset", header, (ctypes.c_uint32 * 6)())
