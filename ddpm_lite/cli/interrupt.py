"""Ctrl-C: heard whenever it comes, and acted on once.

Python raises KeyboardInterrupt wherever the program happens to be. Where that is a finaliser, or
an extension that is just being imported, the exception is dropped or becomes another one, and the
program goes on or tells of an error that is none. So the key press is remembered, and repeated
until the command ends.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Heard", "listening"]

AGAIN = 1.0  # seconds: long enough for cleaning up, short enough for a person who waits


class Heard:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed, self.listens = False, True

    def __bool__(self) -> bool:
        return self.pressed

    def press(self, *_: Any) -> None:
        self.pressed = True
        _repeat(AGAIN)
        raise KeyboardInterrupt

    def enough(self) -> None:
        """From here on Ctrl-C does nothing: what is left to do takes no time."""
        if self.listens:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _repeat(0.0)


@contextmanager
def listening(last: bool) -> Iterator[Heard]:
    """Listen for Ctrl-C inside; `last`: nothing comes after, so it is not listened to any more.

    Where somebody else has a say (another thread, a process told to ignore it) nothing is changed.
    """
    heard, before, hook = Heard(), signal.getsignal(signal.SIGINT), sys.unraisablehook
    heard.listens = threading.current_thread() is threading.main_thread() and callable(before)
    if not heard.listens:
        yield heard
        return
    signal.signal(signal.SIGINT, heard.press)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.unraisablehook = lambda dropped: None if heard else hook(dropped)
    try:
        yield heard
    finally:
        heard.enough()
        if not last:
            signal.signal(signal.SIGINT, before)
            sys.unraisablehook = hook


def _repeat(seconds: float) -> None:
    """Press the key again after so many seconds, and again; 0: no more. Not on Windows."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
