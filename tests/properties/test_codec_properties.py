"""The codec under random models, orders, shapes and images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_lite.ar import MADE, ARModel, GatedPixelCNN, LinearAR, Marginal, PixelCNN
from ddpm_lite.codec import HEADER, CodecError, compress, decompress, ideal_bits

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))


@st.composite
def models(draw: st.DrawFn) -> ARModel:
    """Weights from tame to wild: probabilities from even to 1 and 0."""
    shape, levels = draw(SHAPES), draw(st.sampled_from([2, 3, 17, 256]))
    classes, D = draw(st.none() | st.integers(1, 3)), shape[0] * shape[1] * shape[2]
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(
        st.sampled_from(["marginal", "linear", "made", "pixelcnn", "categorical", "logistic"])
    )
    if kind == "marginal":
        model: ARModel = Marginal(shape, levels)
    elif kind == "linear":
        model = LinearAR(shape, levels, classes=classes)
    elif kind == "made":
        order = torch.randperm(D, generator=g)
        model = MADE(shape, levels, width=2 * D, layers=1, order=order, classes=classes)
    elif kind == "pixelcnn":
        model = PixelCNN(shape, levels, width=4, layers=1, classes=classes)
    else:
        model = GatedPixelCNN(shape, levels, width=4, layers=2, head=kind, classes=classes)
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=g))
    return model


@settings(max_examples=40)
@given(models(), st.integers(0, 70), st.booleans(), st.integers(0, 2**31), st.data())
def test_images_come_back_or_nothing_does(
    model: ARModel, n: int, typical: bool, seed: int, data: st.DataObject
) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(model.levels, (n, *model.shape), generator=g)
    if typical and n:
        x = model.sample(n, seed=seed)
    packed, ideal = compress(model, x), float(ideal_bits(model, x).sum())
    assert torch.equal(decompress(model, packed).long(), x)
    # two words to end with; what the floor of the probabilities (a 2^-24 for each level) may cost
    floor = x.numel() * model.levels * 2**-24 * 1.5
    assert 8 * (len(packed) - HEADER) <= 1.0005 * ideal + 64 + floor
    place = data.draw(st.integers(0, len(packed) - 1))
    worse = bytearray(packed)
    worse[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CodecError):
        decompress(model, bytes(worse))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_raise(data: bytes) -> None:
    model = Marginal((1, 2, 2), 3)
    for given_bytes in (data, compress(model, torch.zeros(1, 1, 2, 2).byte())[:44] + data):
        with pytest.raises(CodecError):
            decompress(model, given_bytes)
