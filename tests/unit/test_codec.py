"""The codec: what goes in comes out, at the cost the model says, or nothing comes out at all."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable

import pytest
import torch
from ar_models import NAMES, build, images, marginal
from torch import Tensor

from ddpm_lite import codec, pretrained
from ddpm_lite.ar import ARModel, GatedPixelCNN, Marginal, naive
from ddpm_lite.ar.sampling import Cache
from ddpm_lite.codec import HEADER, CodecError, compress, decompress, fingerprint, ideal_bits
from ddpm_lite.data import load
from ddpm_lite.exact import Table, TableAR
from ddpm_lite.record import results

WORD = 32  # the coder's output comes in words of so many bits


def assert_price(data: bytes, ideal: float, slack: int = 0) -> None:
    """The stream is within 0.2 % of its price; below it, too, since no probability is under 2^-24:
    what is worth 23.5 bits may cost 22.7."""
    bits = 8 * (len(data) - HEADER)
    assert 0.998 * ideal <= bits <= 1.002 * ideal + slack, (bits, ideal)


def same(x: Tensor, y: Tensor) -> bool:
    return y.dtype == torch.uint8 and torch.equal(x.long(), y.long())


@pytest.fixture(scope="module")
def small() -> tuple[ARModel, Tensor, bytes]:
    """A model, three images of it, and the file."""
    model = build("gated", (1, 3, 3), 5, dtype=torch.float32)
    x = images(model, 3)
    return model, x, compress(model, x)


# -- bit for bit, at the price of -log2 p ----------------------------------------------------------


def test_five_hundred_images_come_back_at_their_price() -> None:
    model = pretrained("digits-gated")
    noise = torch.randint(17, (103, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    x = torch.cat([load("digits", "test").x, noise])
    data, ideal = compress(model, x), ideal_bits(model, x)
    assert len(x) == 500 and same(x, decompress(model, data))
    assert_price(data, float(ideal.sum()))
    # by another road: the float32 likelihood, which knows no cap
    nats = model.log_prob(x[:397].long()).detach().double()
    torch.testing.assert_close(nats / -math.log(2), ideal[:397], rtol=1e-4, atol=0)


def test_the_committed_figures_are_those_of_the_checkpoint() -> None:
    table, stated = results("compression"), pretrained("digits-gated").info["metrics"]
    ideal, n = table["ideal_digits-gated"], table["ideal_digits-gated"]["n"]
    assert ideal["value"] == pytest.approx(stated["likelihood"]["value"], abs=1e-3) and n == 397
    file, bits = table["file_digits-gated"], table["overhead_digits-gated"]["bits"]
    assert file["bytes"] * 8 == bits + 8 * HEADER == pytest.approx(file["value"] * n * 64)
    assert 0 <= bits / (ideal["value"] * n * 64) - 1 <= 0.002


@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 3, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_model(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, 5, dtype=torch.float32, classes=3)
    x = images(model, 70)  # a chunk of 64 and a shorter one
    data, ideal = compress(model, x), float(ideal_bits(model, x).sum())
    assert same(x, decompress(model, data))
    assert_price(data, ideal, 2 * WORD)
    assert -model.log_prob(x).sum().item() / math.log(2) == pytest.approx(ideal, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_long_stream_costs_what_the_model_says(name: str) -> None:
    model = build(name, (1, 4, 4), 256)
    x = model.sample(250, seed=1)
    data, ideal = compress(model, x), float(ideal_bits(model, x).sum())
    assert ideal > 20_000 and same(x, decompress(model, data))
    assert_price(data, ideal)


def test_models_without_a_network() -> None:
    for model in (marginal((2, 3, 2), 3), TableAR(Table.potts((1, 2, 3)), [3, 1, 0, 5, 4, 2])):
        x = images(model, 5)
        assert same(x, decompress(model, compress(model, x)))


def test_impossible_values_cost_24_bits_each() -> None:
    model = Marginal((1, 2, 3), 4).fit(torch.zeros(1, 1, 2, 3, dtype=torch.int64), smoothing=0)
    x = torch.full((40, 1, 2, 3), 3)
    assert bool(model.log_prob(x).isinf().all())
    data = compress(model, x)
    assert same(x, decompress(model, data))
    assert ideal_bits(model, x).tolist() == [24.0 * 6] * 40
    assert_price(data, 24.0 * 6 * 40, 2 * WORD)
    sure = compress(model, torch.zeros_like(x))  # and what is certain costs nothing
    assert_price(sure, 0.0, 2 * WORD)
    assert not decompress(model, sure).any()


def test_nearly_impossible_values() -> None:
    model = build("made", (1, 3, 3), 4)
    with torch.no_grad():
        model.out.bias.mul_(200)  # type: ignore[union-attr, operator]
    x = images(model, 50)
    ideal = ideal_bits(model, x)
    assert model.log_prob(x).min().item() < -100 and float(ideal.max()) <= 24 * 9
    data = compress(model, x)
    assert same(x, decompress(model, data))
    assert_price(data, float(ideal.sum()), 2 * WORD)


def test_more_than_256_levels() -> None:
    model = marginal((1, 2, 2), 300)
    x = images(model, 3) // 2 + 150
    out = decompress(model, compress(model, x))
    assert out.dtype == torch.int64 and torch.equal(x, out)


def test_no_images() -> None:
    model = marginal((1, 2, 2), 4)
    data = compress(model, torch.empty(0, 1, 2, 2, dtype=torch.uint8))
    assert len(data) == HEADER and decompress(model, data).shape == (0, 1, 2, 2)
    assert ideal_bits(model, torch.empty(0, 1, 2, 2, dtype=torch.uint8)).shape == (0,)


# -- both sides do the same ------------------------------------------------------------------------


class Watched(Marginal):
    """Notes what is asked of it, in a list that copies share."""

    def __init__(self, notes: list[object]) -> None:
        super().__init__((1, 2, 2), 3)
        self.notes = notes

    def __deepcopy__(self, memo: dict[int, object]) -> Watched:
        twin = Watched(self.notes)
        twin.load_state_dict(self.state_dict())
        return twin

    def logits(self, x: Tensor, label: object = None) -> Tensor:
        raise AssertionError("a full forward rounds otherwise than steps do")

    def begin(self, n: int, label: object = None) -> Cache:
        self.notes.append(("begin", n, label))
        return super().begin(n)

    def step(self, cache: Cache, i: int) -> Tensor:
        logits = super().step(cache, i)
        self.notes.append((i, len(cache.x), logits.dtype, self.training))
        return logits


def test_encoder_and_decoder_take_the_same_steps_in_float64() -> None:
    notes: list[object] = []
    model = Watched(notes).train()
    x = images(model, 150)
    data = compress(model, x)
    wrote = notes.copy()
    notes.clear()
    assert same(x, decompress(model, data)) and notes == wrote
    assert [note[1] for note in wrote if note[0] == "begin"] == [64, 64, 22]  # type: ignore[index]
    steps = [note for note in wrote if note[0] != "begin"]  # type: ignore[index]
    assert len(steps) == 3 * model.D
    assert all(note[2:] == (torch.float64, False) for note in steps)  # type: ignore[index]


def test_the_model_is_left_alone() -> None:
    model = GatedPixelCNN((1, 3, 3), 4, width=6, layers=2, dropout=0.5).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = images(model, 4)
    data = compress(model, x)  # dropout would make it another model each time
    assert data == compress(model, x) and same(x, decompress(model, data))
    assert model.training and model.dtype == torch.float32
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_float32_and_float64_weights_are_the_same_model(
    small: tuple[ARModel, Tensor, bytes],
) -> None:
    _, x, data = small
    assert same(x, decompress(build("gated", (1, 3, 3), 5, dtype=torch.float32).double(), data))


def test_every_value_is_told_of() -> None:
    model, told = marginal((1, 2, 2), 3), []
    x = images(model, 70)
    data = compress(model, x, told.append)
    assert sum(told) == x.numel()
    decompress(model, data, told.append)
    assert sum(told) == 2 * x.numel()


# -- never wrong pixels ----------------------------------------------------------------------------


def test_any_damaged_byte_is_noticed_before_anything_is_decoded(
    small: tuple[ARModel, Tensor, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, data = small
    monkeypatch.setattr(codec, "_walk", lambda *_: pytest.fail("decoding began"))
    for i in range(len(data)):
        for flip in (*(1 << b for b in range(8)), 0xFF):
            with pytest.raises(CodecError):
                decompress(model, data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :])
        with pytest.raises(CodecError):
            decompress(model, data[:i])  # cut short
        with pytest.raises(CodecError):
            decompress(model, data[:i] + b"\0" + data[i:])  # grown
    for more in (b"\0", b"\0\0\0\0", data):
        with pytest.raises(CodecError):
            decompress(model, data + more)


def resealed(data: bytes, **changes: object) -> bytes:
    """The file with other fields or another payload, and every checksum put right."""
    payload = changes.pop("payload", data[HEADER:])
    assert isinstance(payload, bytes)
    head = codec.read(data)._replace(payload=codec._hash(payload), **changes)  # type: ignore[arg-type]
    return codec._packed(head) + payload


def test_a_stream_that_decodes_to_other_pixels_is_refused(
    small: tuple[ARModel, Tensor, bytes],
) -> None:
    """Were the payload's hash passed by, the pixels' hash would still stand in the way."""
    model, x, data = small
    assert resealed(data) == data
    refused = 0
    for i in range(HEADER, len(data)):
        worse = data[HEADER:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :]
        try:
            assert same(x, decompress(model, resealed(data, payload=worse)))  # a bit nobody reads
        except CodecError as error:
            assert "other pixels" in str(error)
            refused += 1
    assert refused >= len(data) - HEADER - 4
    with pytest.raises(CodecError, match="other pixels"):
        decompress(model, resealed(data, payload=b"\xff" * 4))
    with pytest.raises(CodecError, match="other pixels"):
        decompress(model, resealed(data, n=2))


class Rounding(Marginal):
    """A machine whose logits differ in the ninth digit, or lack one step of another."""

    off = 0.0

    def step(self, cache: Cache, i: int) -> Tensor:
        ramp = torch.arange(self.levels, dtype=torch.float64)
        return super().step(cache, i) + self.off * ramp


def test_another_rounding_is_refused() -> None:
    model = Rounding((1, 8, 8), 16)
    x = images(model, 64)
    data = compress(model, x)
    assert same(x, decompress(model, data))
    model.off = 1e-4
    with pytest.raises(CodecError, match="rounds differently"):
        decompress(model, data)


OTHERS: dict[str, Callable[[], ARModel]] = {
    "other weights": lambda: build("gated", (1, 3, 3), 5, dtype=torch.float32).requires_grad_(
        False
    ),
    "another shape": lambda: build("gated", (1, 3, 4), 5),
    "another number of levels": lambda: build("gated", (1, 3, 3), 6),
    "another head": lambda: build("gated-logistic", (1, 3, 3), 5),
    "another class": lambda: build("pixelcnn", (1, 3, 3), 5),
    "the same without its cache": lambda: naive(build("gated", (1, 3, 3), 5, dtype=torch.float32)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_model_is_refused(other: str, small: tuple[ARModel, Tensor, bytes]) -> None:
    model = OTHERS[other]()
    if other == "other weights":
        next(model.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(CodecError, match="another model"):
        decompress(model, small[2])


def test_the_order_belongs_to_the_model() -> None:
    table = Table.potts((1, 2, 2))
    a, b = TableAR(table), TableAR(table, [3, 2, 1, 0])
    assert fingerprint(a) != fingerprint(b)
    with pytest.raises(CodecError, match="another model"):
        decompress(b, compress(a, images(a, 2)))


# -- the file --------------------------------------------------------------------------------------


GOLDEN = (
    "444c430a 01 01 0200 0300 0400 02000000 64436d779c248667 2d5a4f25ea8e9e79 0feca2eed9dd08e6 "
    "b2b0272e 00278d27"
)


def test_the_format_is_fixed() -> None:
    """A file of this version, byte for byte: what was packed once stays readable."""
    model = Marginal((1, 2, 3), 4)
    x = torch.arange(12).view(2, 1, 2, 3) % 4
    data = compress(model, x)
    assert HEADER == 44 and data == bytes.fromhex(GOLDEN)
    assert same(x, decompress(model, bytes.fromhex(GOLDEN)))
    head = codec.read(data)
    assert (head.n, head.shape, head.levels) == (2, (1, 2, 3), 4)
    assert head.weights == fingerprint(model)


def test_a_later_format_says_so(small: tuple[ARModel, Tensor, bytes]) -> None:
    model, _, data = small
    later = data[:4] + b"\x02" + data[5 : HEADER - 4]
    with pytest.raises(CodecError, match="format 2: this version reads 1"):
        decompress(model, later + zlib.crc32(later).to_bytes(4, "little") + data[HEADER:])


# -- what is given ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 3, 4, dtype=torch.int64), "shape"),
        (torch.zeros(3, 3, dtype=torch.int64), "shape"),
        (torch.zeros(2, 1, 3, 3), "integer levels"),
        (torch.full((2, 1, 3, 3), float("nan")), "integer levels"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.bool), "integer levels"),
        (torch.full((2, 1, 3, 3), 5), "0..4"),
        (torch.full((2, 1, 3, 3), -1), "0..4"),
        (torch.cat([torch.zeros(70, 1, 3, 3), torch.full((1, 1, 3, 3), 9)]).byte(), "0..4"),
        ([[0]], "tensor"),
        (None, "tensor"),
    ],
)
def test_images_of_another_kind(
    x: Tensor, message: str, small: tuple[ARModel, Tensor, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_walk", lambda *_: pytest.fail("coding began"))
    for function in (compress, ideal_bits):
        with pytest.raises(ValueError, match=message):
            function(small[0], x)


def test_something_else_than_an_autoregressive_model(
    small: tuple[ARModel, Tensor, bytes],
) -> None:
    for wrong in (pretrained("digits-unet"), torch.nn.Linear(1, 1), "digits-gated"):
        with pytest.raises(ValueError, match="only an autoregressive model"):
            compress(wrong, small[1])
        with pytest.raises(ValueError, match="only an autoregressive model"):
            decompress(wrong, small[2])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(wrong: float) -> None:
    model = marginal((1, 2, 2), 3)
    with torch.no_grad():
        model.table[2, 1] = wrong  # type: ignore[operator, index]
    with pytest.raises(ValueError, match="not numbers"):
        compress(model, images(model, 2))


@pytest.mark.parametrize("data", [b"", b"DLC\n", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(44)])
def test_bytes_of_another_kind(data: bytes) -> None:
    with pytest.raises(CodecError, match="no compressed images"):
        decompress(marginal((1, 2, 2), 3), data)


def test_without_the_library(
    small: tuple[ARModel, Tensor, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, data = small
    monkeypatch.setitem(sys.modules, "constriction", None)
    for call in (lambda: compress(model, x), lambda: decompress(model, data)):
        with pytest.raises(ImportError, match="pip install constriction"):
            call()
    assert codec.read(data).n == 3 and len(ideal_bits(model, x)) == 3  # they do without
