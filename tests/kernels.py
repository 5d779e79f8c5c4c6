"""pytest plugin for nbval: a kernel that dies before its first word is started once more.

Jupyter chooses a kernel's ports by opening and closing them again; between that and the kernel's
own opening another process may take one. The kernel then dies with "Address already in use", which
says nothing about the notebook. A kernel that dies later, or three times, still fails the test.
"""

from __future__ import annotations

from typing import Any

import nbval.kernel

TRIES = 3
_start = nbval.kernel.start_new_kernel


def start_new_kernel(*args: Any, **kwargs: Any) -> Any:
    """nbval's, with up to `TRIES` attempts."""
    for _ in range(TRIES - 1):
        try:
            return _start(*args, **kwargs)
        except RuntimeError:
            continue
    return _start(*args, **kwargs)


def pytest_configure() -> None:
    nbval.kernel.start_new_kernel = start_new_kernel
