"""Messages between grader and worker: a length, a JSON header, raw arrays. No pickle, no eval.

The grader reads what a hostile process may have written: lengths, counts, shapes and dtypes are
checked before a byte of an array is read, and a deadline holds for the whole message.
"""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Closed", "Late", "Malformed", "receive", "send"]

MAX_HEADER = 1 << 20
MAX_ARRAYS, MAX_DIMS, MAX_BYTES = 256, 8, 1 << 25
DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]


class Closed(Exception):
    """The other end is gone."""


class Late(Exception):
    """The deadline has passed."""


class Malformed(Exception):
    """What came is no message."""


def send(
    fd: int, header: dict[str, Any], arrays: Sequence[Tensor] = (), deadline: float = math.inf
) -> None:
    """Write one message. Raises Closed and Late."""
    plain = [array.detach().cpu().contiguous().numpy() for array in arrays]
    table = [[array.dtype.name, list(array.shape)] for array in plain]
    text = json.dumps({**header, "arrays": table}).encode()
    data = memoryview(
        b"".join([len(text).to_bytes(4, "big"), text, *(array.tobytes() for array in plain)])
    )
    while data:
        _wait(fd, select.POLLOUT, deadline)
        try:
            data = data[os.write(fd, data[:65536]) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise Closed from error


def receive(fd: int, deadline: float = math.inf) -> tuple[dict[str, Any], list[Tensor]]:
    """Read one message: its header, and its arrays. Raises Closed, Late and Malformed."""
    length = int.from_bytes(_read(fd, 4, deadline), "big")
    if length > MAX_HEADER:
        raise Malformed("header too long")
    try:
        header = json.loads(_read(fd, length, deadline))
        table = [_entry(row) for row in header.pop("arrays")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Malformed("no header") from error
    if len(table) > MAX_ARRAYS or sum(size for *_, size in table) > MAX_BYTES:
        raise Malformed("too much")
    arrays = []
    for dtype, shape, size in table:
        data = bytearray(_read(fd, size, deadline))
        arrays.append(torch.from_numpy(np.frombuffer(data, dtype).reshape(shape)))
    return header, arrays


def _entry(row: Any) -> tuple[str, list[int], int]:
    dtype, shape = row
    if dtype not in DTYPES or not isinstance(shape, list) or len(shape) > MAX_DIMS:
        raise ValueError("no array")
    if not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
        raise ValueError("no shape")
    return dtype, shape, math.prod(shape) * np.dtype(dtype).itemsize


def _read(fd: int, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        _wait(fd, select.POLLIN, deadline)
        try:
            part = os.read(fd, min(size - len(data), 1 << 16))
        except BlockingIOError:
            continue
        except OSError as error:
            raise Closed from error
        if not part:
            raise Closed
        data += part
    return bytes(data)


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(None if left == math.inf else max(1, int(left * 1000))):
        raise Late
