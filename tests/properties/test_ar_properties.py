"""Autoregressive models under random shapes, orders, weights and uniforms."""

import math
from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddpm_lite.ar import MADE, ARModel, GatedPixelCNN, ImageGPT, PixelCNN, naive
from ddpm_lite.ar.sampling import draw

QUICK = settings(max_examples=20, deadline=None)
SHAPES = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5))
SEEDS = st.integers(0, 2**31)


def awake(model: ARModel, seed: int) -> ARModel:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=g))
    return model.double().eval()


def with_cache(shape: tuple[int, int, int], levels: int, kind: str, seed: int) -> ARModel:
    if kind == "pixelcnn":
        return awake(PixelCNN(shape, levels, width=6, layers=2, classes=2), seed)
    if kind == "imagegpt":
        return awake(ImageGPT(shape, levels, width=6, layers=2, heads=3, classes=2), seed)
    return awake(GatedPixelCNN(shape, levels, width=6, layers=2, head=kind, classes=2), seed)


KINDS = st.sampled_from(["categorical", "imagegpt", "logistic", "pixelcnn"])


def images(model: ARModel, n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(model.levels, (n, *model.shape), generator=g)


@QUICK
@given(SHAPES, st.integers(2, 20), KINDS, SEEDS)
def test_cached_step_is_logits(
    shape: tuple[int, int, int], levels: int, kind: str, seed: int
) -> None:
    model = with_cache(shape, levels, kind, seed)
    x, label = images(model, 2, seed), torch.tensor([1, -1])
    logits = model.logits(x, label).flatten(1, 3)[:, model.order]
    cache = model.begin(2, label)
    for i in range(model.D):
        gap = (model.step(cache, i) - logits[:, i]).abs().max()
        assert gap <= 1e-12 * max(1.0, float(logits.detach().abs().max()))
        cache.put(i, x.flatten(1)[:, model.order[i]])


@QUICK
@given(SHAPES, KINDS, SEEDS, st.data())
def test_a_later_pixel_changes_nothing_before(
    shape: tuple[int, int, int], kind: str, seed: int, data: st.DataObject
) -> None:
    model = with_cache(shape, 4, kind, seed)
    x = images(model, 1, seed)
    j = data.draw(st.integers(0, model.D - 1))
    y = x.clone()
    y.view(-1)[model.order[j:]] = images(model, 1, seed + 1).view(-1)[model.order[j:]]
    a, b = (model.logits(z).flatten(0, 3)[model.order] for z in (x, y))
    assert torch.equal(a[: j + 1], b[: j + 1])


@QUICK
@given(st.permutations(range(6)), st.integers(1, 9), st.integers(1, 3), SEEDS)
def test_made_in_any_order_is_normalised_and_samples_alike(
    order: list[int], width: int, layers: int, seed: int
) -> None:
    model = awake(MADE((1, 2, 3), 2, width=width, layers=layers, order=order), seed)
    every = torch.tensor(list(product((0, 1), repeat=6))).view(-1, 1, 2, 3)
    assert abs(float(model.log_prob(every).detach().exp().sum()) - 1) < 1e-12
    assert torch.equal(model.sample(5, seed=seed), naive(model).sample(5, seed=seed))


@QUICK
@given(
    st.lists(st.floats(-700, 700) | st.just(-math.inf), min_size=1, max_size=20).filter(
        lambda l: max(l) > -math.inf
    ),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20),
)
def test_draw_takes_possible_levels_and_rises_with_u(logits: list[float], us: list[float]) -> None:
    u = torch.tensor([*sorted(us), 1 - 2**-53], dtype=torch.float64)
    rows = torch.tensor(logits, dtype=torch.float64).expand(len(u), -1)
    p = rows.softmax(-1)
    k = draw(rows, u)
    assert (p.gather(1, k[:, None]) > 0).all()
    assert (k.diff() >= 0).all()
    cdf = p.cumsum(-1)
    for row, level in enumerate(k.tolist()):
        above = cdf[row] > u[row] * cdf[row, -1]
        assert above[level] and not above[:level].any()


@QUICK
@given(SHAPES, SEEDS, st.floats(0.2, 3.0), st.data())
def test_known_values_stay(
    shape: tuple[int, int, int], seed: int, temperature: float, data: st.DataObject
) -> None:
    model = with_cache(shape, 5, "categorical", seed)
    bits = data.draw(st.lists(st.booleans(), min_size=model.D, max_size=model.D))
    mask, x = torch.tensor(bits).view(shape), images(model, 2, seed)
    y = model.sample(2, label=1, known=(mask, x), temperature=temperature, seed=seed)
    assert torch.equal(y[:, mask], x[:, mask])
    again = model.sample(2, label=1, known=(mask, y), temperature=temperature, seed=seed)
    assert torch.equal(again, y)
    weight = model.log_weight(y, mask, 1, temperature)
    rest = model.log_weight(y, ~mask, 1, temperature)
    if temperature == 1.0:
        torch.testing.assert_close(weight + rest, model.log_prob(y, 1))
    assert (weight <= 0).all() and (rest <= 0).all()
