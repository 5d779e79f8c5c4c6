"""Messages as a hostile process may write them: refused before an array of theirs is touched."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ddpm_lite.grading import wire


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def write(fd: int, header: Any, payload: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    os.write(fd, len(text).to_bytes(4, "big") + text + payload)


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64", "uint8", "float16"])
def test_arrays_arrive_as_sent(dtype: str, pipe: tuple[int, int]) -> None:
    sent = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(torch, dtype))
    wire.send(pipe[1], {"k": [1, "é"]}, [sent, sent[:0]])
    header, (got, empty) = wire.receive(pipe[0], time.monotonic() + 9)
    assert header == {"k": [1, "é"]}
    assert got.dtype == sent.dtype and got.equal(sent) and empty.shape == (0, 3)


@pytest.mark.parametrize(
    "table",
    [
        [["O", [1]]],  # pointers into nowhere
        [["object", [1]]],
        [["complex64", [1]]],
        [["S8", [1]]],
        [["V8", [1]]],
        [[["float32"], [1]]],
        [["float32", [-1]]],
        [["float32", [True]]],
        [["float32", [1.0]]],
        [["float32", ["1"]]],
        [["float32", "1"]],
        [["float32", [1] * 9]],
        [["float32", [1 << 40]]],
        [["float32", [1 << 20, 1 << 20]]],
        [["float32", [1 << 25]]],
        [["float32", [0]]] * 257,
        [["float32"]],
        "float32",
        None,
    ],
)
def test_what_is_no_array_is_refused_unread(table: Any, pipe: tuple[int, int]) -> None:
    write(pipe[1], {"arrays": table}, bytes(64))
    with pytest.raises(wire.Malformed):
        wire.receive(pipe[0], time.monotonic() + 9)
    assert len(os.read(pipe[0], 100)) == 64, "the payload was read"


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"\xff\xfe", b"[1]", b"3", b"null", b"{}", b"[" * 50_000, b'"arrays"'],
)
def test_what_is_no_header_is_refused(header: bytes, pipe: tuple[int, int]) -> None:
    write(pipe[1], header)
    with pytest.raises(wire.Malformed):
        wire.receive(pipe[0], time.monotonic() + 9)


def test_a_gigantic_length_is_refused_at_once(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"\xff" * 8)
    with pytest.raises(wire.Malformed, match="too long"):
        wire.receive(pipe[0], time.monotonic() + 9)


def test_half_a_message_is_late_and_a_closed_end_is_told(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"\0\0")
    with pytest.raises(wire.Late):
        wire.receive(pipe[0], time.monotonic() + 0.1)
    read, written = os.pipe()
    os.set_blocking(read, False)
    os.close(written)
    with pytest.raises(wire.Closed):
        wire.receive(read, time.monotonic() + 9)
    os.close(read)
