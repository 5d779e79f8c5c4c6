"""Lossless compression by any autoregressive model: a range coder that is told p by `step`.

A range coder spends -log2 p bits on a symbol of probability p, whatever p is, as long as both sides
know the same p (Rissanen and Langdon 1979). Both sides therefore run one loop, `_walk`: step, code,
put. The encoder's `code` writes the value it is shown, the decoder's reads it. Full forwards would
be faster to encode with, but they round otherwise than `step`, and one probability that differs in
its last bit turns all that follows into noise.

The file: a header of 44 bytes, then 32-bit words of the range coder, all little-endian.

    magic 4s, format B, channels B, height H, width H, levels H, number of images I,
    sha256 (its first 8 bytes) of the weights 8s, of the words 8s, of the pixels 8s,
    CRC-32 of all this I                                           (letters of Python's struct)
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import require
from .ar.base import ARModel

__all__ = ["CodecError", "Header", "compress", "decompress", "fingerprint", "ideal_bits", "read"]

FORMAT = 1
CHUNK = 64  # images coded side by side; part of the format, since batch shapes decide the rounding
PRECISION = 24  # bits of the coder's probabilities: no symbol costs more, none is impossible
MAGIC = b"DLC\n"
LAYOUT, CRC = struct.Struct("<4sBBHHHI8s8s8s"), struct.Struct("<I")
HEADER = LAYOUT.size + CRC.size  # 44 bytes

Code = Callable[[int, np.ndarray], np.ndarray]
Tick = Callable[[int], object]


class CodecError(ValueError):
    """Compressed images that are damaged, of another model, or not decodable on this machine."""


class Header(NamedTuple):
    """What a file says of itself: n images of shape (C,H,W), and the hashes it must answer to."""

    n: int
    shape: tuple[int, int, int]
    levels: int
    weights: bytes
    payload: bytes
    pixels: bytes


def compress(model: ARModel, x: Tensor, tick: Tick = lambda values: None) -> bytes:
    """Images integer[n,C,H,W] in 0..K-1 as bytes, from which `decompress` makes them again.

    The size is `ideal_bits` and some 0.05 %, at least the header and a word or two. A model with
    classes codes with the null class: labels are not stored. The arithmetic is float64, on the
    model's device; `model` itself is left alone. `tick` hears how many values were just coded.

    Raises ValueError for images that are none of this model's and for weights that are not
    numbers, ImportError without the library `constriction`.
    """
    exact, stream = _exact(model), _constriction()
    parts = _parts(exact, x, CHUNK)
    for part in parts:  # all of them before any work, but one by one: int64 takes 8 times the room
        exact.check(part)
    coder, family = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)
    for part in parts:
        symbols = exact.check(part).flatten(1)[:, exact.order].T.cpu().numpy()  # [D,n]
        write = partial(_write, coder, family, symbols.astype(np.int32, order="C"))
        _walk(exact, len(part), write, tick)
    payload = coder.get_compressed().astype("<u4").tobytes()
    head = Header(len(x), exact.shape, exact.levels, fingerprint(exact), _hash(payload), _pixels(x))
    return _packed(head) + payload


def decompress(model: ARModel, data: bytes, tick: Tick = lambda values: None) -> Tensor:
    """The images that `compress(model, x)` was given: uint8[n,C,H,W] (int64 beyond 256 levels).

    Raises CodecError where a single bit of `data` is wrong, where the model is not the one that
    wrote it, and where this machine rounds a float64 so differently that the pixels come out wrong
    (a hash of them is in the header): what is returned is what was compressed. ImportError without
    the library `constriction`.
    """
    head = read(data)
    exact = _exact(model)
    if head.weights != fingerprint(exact):
        raise CodecError(
            f"these images were compressed by another model: its hash is {head.weights.hex()}, "
            f"that of this {type(model).__name__} is {fingerprint(exact).hex()}"
        )
    stream = _constriction()
    words = np.frombuffer(data, "<u4", offset=HEADER).astype(np.uint32)
    coder, family = stream.queue.RangeDecoder(words), stream.model.Categorical(perfect=False)
    dtype = torch.uint8 if exact.levels <= 256 else torch.int64
    parts = [torch.empty(0, *exact.shape, dtype=dtype)]
    try:
        for first in range(0, head.n, CHUNK):
            n = min(CHUNK, head.n - first)
            parts.append(_walk(exact, n, lambda _, p: coder.decode(family, p), tick).to(parts[0]))
        x = torch.cat(parts)
        fits = _pixels(x) == head.pixels
    except AssertionError:  # the coder met words that no encoder writes for these probabilities
        fits = False
    if not fits:
        raise CodecError(
            "the file is intact, but decodes to other pixels than were compressed: this machine or "
            "its version of torch rounds differently; decompress where it was made"
        )
    return x


def read(data: bytes) -> Header:
    """The header of intact compressed images; CodecError for anything else."""
    if len(data) < HEADER or data[:4] != MAGIC:
        raise CodecError("these are no compressed images (or the file was cut short)")
    if data[4] != FORMAT:
        raise CodecError(f"compressed images of format {data[4]}: this version reads {FORMAT}")
    _, _, C, H, W, levels, n, weights, payload, pixels = LAYOUT.unpack_from(data)
    head = Header(n, (C, H, W), levels, weights, payload, pixels)
    if data[:HEADER] != _packed(head) or payload != _hash(data[HEADER:]):
        raise CodecError("the compressed images are damaged: fetch the file again")
    return head


def fingerprint(model: ARModel) -> bytes:
    """8 bytes of sha256 over class, spec, order and weights; float32 or float64 does not count."""
    spec = json.dumps([type(model).__name__, model.spec], sort_keys=True, default=str)
    digest = hashlib.sha256(spec.encode())
    for name, value in [("order", model.order), *sorted(model.state_dict().items())]:
        digest.update(f"{name} {list(value.shape)} ".encode())
        digest.update(value.detach().cpu().double().numpy().astype("<f8").tobytes())
    return digest.digest()[:8]


@torch.no_grad()
def ideal_bits(model: ARModel, x: Tensor) -> Tensor:
    """What each image must cost, float64[n]: sum of -log2 p, each value capped at 24 bits.

    Computed from `logits`, not from what the coder saw. The cap is the coder's own: its
    probabilities are multiples of 2^-24 and none is 0, so that every image can be coded.
    """
    exact = _exact(model)
    bits = [torch.zeros(0, dtype=torch.float64)]
    for part in _parts(exact, x, 8):  # logits [8,C,H,W,K] at once
        values = exact.check(part)[..., None]
        log_p = F.log_softmax(exact.logits(values[..., 0]).double(), -1).gather(-1, values)
        bits.append((-log_p / math.log(2)).clamp(max=PRECISION).flatten(1).sum(1).cpu())
    return torch.cat(bits)


# -- helpers -------------------------------------------------------------------------------------


@torch.no_grad()
def _walk(model: ARModel, n: int, code: Code, tick: Tick) -> Tensor:
    """n images rank by rank, int64[n,C,H,W]: `code(i, p float64[n,K])` gives rank i's values."""
    cache = model.begin(n)
    for i in range(model.D):
        p = F.softmax(model.step(cache, i).double(), -1)  # [n,K]
        if bool(p.isnan().any()):
            raise ValueError("the model's probabilities are not numbers: is a weight NaN?")
        cache.put(i, torch.from_numpy(code(i, p.cpu().numpy())).to(cache.x))
        tick(n)
    return cache.x


def _parts(model: ARModel, x: Tensor, size: int) -> tuple[Tensor, ...]:
    """x [n,C,H,W] in pieces of at most `size` images; no piece where there are none."""
    parts: tuple[Tensor, ...] = require.tensor("x", x, None, *model.shape).split(size)
    return parts if len(x) else ()


def _write(coder: Any, family: Any, symbols: np.ndarray, i: int, p: np.ndarray) -> np.ndarray:
    coder.encode(symbols[i], family, p)
    return symbols[i]


def _exact(model: ARModel) -> ARModel:
    """A copy in float64 without dropout: what both sides compute with."""
    if not isinstance(model, ARModel):
        raise ValueError(f"only an autoregressive model codes images, not a {type(model).__name__}")
    return copy.deepcopy(model).double().eval()


def _packed(head: Header) -> bytes:
    sizes = (*head.shape, head.levels, head.n)
    if max(head.shape[0] >> 8, *(v >> 16 for v in sizes[1:4]), head.n >> 32):
        raise ValueError(f"{head.n} images of {head.shape}, {head.levels} levels: no room for that")
    packed = LAYOUT.pack(MAGIC, FORMAT, *sizes, head.weights, head.payload, head.pixels)
    return packed + CRC.pack(zlib.crc32(packed))


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:8]


def _pixels(x: Tensor) -> bytes:
    """8 bytes of sha256 over the values, each as a little-endian uint16."""
    digest = hashlib.sha256()
    for part in x.split(1024):
        digest.update(part.cpu().numpy().astype("<u2").tobytes())
    return digest.digest()[:8]


def _constriction() -> Any:
    """The module `constriction.stream`."""
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            "compressing needs the library constriction: pip install constriction"
        ) from error
    return constriction.stream
