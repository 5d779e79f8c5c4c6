"""Drawing: naive and cached alike, by inverse CDF from uniforms of one image and one rank each."""

from itertools import product

import pytest
import torch
from ar_models import NAMES, build, by_rank, images, marginal
from torch import Tensor

from ddpm_lite.ar import MADE, ARModel, LinearAR, State, naive
from ddpm_lite.ar.sampling import draw


def uniforms(n: int, model: ARModel, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, model.D, dtype=torch.float64, generator=g)


@pytest.mark.parametrize("shape", [(1, 3, 2), (3, 3, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_naive_and_cached_draw_the_same_images(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, 5, classes=3)
    label, u = torch.tensor([0, 2, -1, 1]), uniforms(4, model)
    half = torch.zeros(shape, dtype=torch.bool)
    half[:, shape[1] // 2 :] = True
    for kw in (
        {},
        {"label": label},
        {"label": label, "temperature": 0.6},
        {"label": 1, "known": (half, images(model, 4))},
    ):
        x = model.sample(4, u=u, **kw)  # type: ignore[arg-type]
        assert torch.equal(x, model.sample(4, u=u, cached=False, **kw))  # type: ignore[arg-type]
        assert x.shape == (4, *shape) and x.dtype == torch.int64
        assert len(x.unique()) > 1
    assert torch.equal(model.sample(4, u=u), naive(model).sample(4, u=u))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_on_its_own_uniforms_and_label_only(name: str) -> None:
    model = build(name, (1, 3, 4), 5, classes=2)
    u, label = uniforms(4, model), torch.tensor([0, 1, 0, 1])
    x = model.sample(4, label, u=u)
    assert torch.equal(model.sample(1, 1, u=u[3:]), x[3:])
    changed = u.clone()
    changed[0] = 1 - changed[0]
    y = model.sample(4, label, u=changed)
    assert torch.equal(y[1:], x[1:]) and not torch.equal(y[0], x[0])


def test_uniforms_are_indexed_by_rank() -> None:
    model = build("made-shuffled", (1, 3, 3), 4)
    u = uniforms(3, model)
    x = by_rank(model, model.sample(3, u=u))
    late = u.clone()
    late[:, 5:] = 1 - late[:, 5:]
    y = by_rank(model, model.sample(3, u=late))
    assert torch.equal(x[:, :5], y[:, :5]) and not torch.equal(x[:, 5:], y[:, 5:])


def test_seed() -> None:
    model = build("gated", (1, 3, 3), 5)
    assert torch.equal(model.sample(3, seed=4), model.sample(3, seed=4))
    assert not torch.equal(model.sample(3, seed=4), model.sample(3, seed=5))


def test_draw_is_the_inverse_cdf() -> None:
    p = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0], dtype=torch.float64).expand(8, -1)
    u = torch.tensor([0, 0.1, 0.2499, 0.2501, 0.5, 0.7499, 0.7501, 1 - 2**-53], dtype=p.dtype)
    levels = [1, 1, 1, 3, 3, 3, 4, 4]
    assert draw(p.log(), u).tolist() == levels
    assert draw(p.log().float() + 50, u).tolist() == levels  # logits need not be normalised


def test_frequencies_are_the_model_s_probabilities() -> None:
    model = build("gated", (1, 2, 2), 2)
    every = torch.tensor(list(product((0, 1), repeat=4))).view(-1, 1, 2, 2)
    p = model.log_prob(every).detach().exp()
    n = 10_000
    x = model.sample(n).flatten(1) @ torch.tensor([8, 4, 2, 1])
    share = torch.bincount(x, minlength=16) / n
    assert ((share - p).abs() < 4.5 * (p * (1 - p) / n).sqrt()).all()


def test_temperature_sharpens() -> None:
    model = marginal((1, 2, 2), 5)
    best = model.table.argmax(-1).view(1, 2, 2)
    assert torch.equal(model.sample(9, temperature=1e-3), best.expand(9, -1, -1, -1))
    hot = torch.bincount(model.sample(4000, temperature=1e6).flatten(), minlength=5) / 16_000
    assert (hot - 0.2).abs().max() < 0.02


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cached", [True, False])
def test_temperature_raises_each_conditional_to_a_power(name: str, cached: bool) -> None:
    """p^(1/T), normalised: for mixtures over their levels, not inside their components."""
    model, T, n = build(name, (2, 1, 2), 4), 0.5, 6_000
    x = by_rank(model, model.sample(n, temperature=T, cached=cached))
    first = model.begin(1)
    p = model.step(first, 0)[0].softmax(-1) ** (1 / T)
    share = torch.bincount(x[:, 0], minlength=4) / n
    assert ((share - p / p.sum()).abs() < 4.5 * (p / n).sqrt() + 1e-9).all()
    first.put(0, 3)  # and of the second rank, where the first is 3
    p = model.step(first, 1)[0].softmax(-1) ** (1 / T)
    seconds = x[x[:, 0] == 3, 1]
    share = torch.bincount(seconds, minlength=4) / len(seconds)
    assert ((share - p / p.sum()).abs() < 4.5 * (p / len(seconds)).sqrt() + 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_known_pixels_stay_and_the_rest_is_the_conditional(name: str) -> None:
    model = build(name, (2, 3, 2), 4)
    u, x = uniforms(5, model), images(model, 5)
    first = torch.zeros(model.D, dtype=torch.bool)
    first[model.order[:4]] = True
    y = model.sample(5, u=u, known=(first.view(model.shape), x))
    assert torch.equal(y.flatten(1)[:, first], x.flatten(1)[:, first])
    cache, given = model.begin(5), by_rank(model, x)  # the same by hand
    for i in range(model.D):
        logits = model.step(cache, i)
        cache.put(i, given[:, i] if i < 4 else draw(logits, u[:, i]))
    assert torch.equal(cache.x, y)
    one = model.sample(5, u=u, known=(first.view(model.shape), x[0].to(torch.uint8)))
    assert torch.equal(one[0], y[0])


def test_log_weight_corrects_what_known_pixels_leave_out() -> None:
    """The last rank is given: drawn without weights, the first rank has never heard of it."""
    model = LinearAR((1, 1, 3), 2).double()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.weight.view(3, 2, 3)[2, 1, 0] = 2.0  # the last pixel follows the first
    mask = torch.tensor([False, False, True]).view(1, 1, 3)
    every = torch.tensor(list(product((0, 1), (0, 1), (1,)))).view(-1, 1, 1, 3)
    p = model.log_prob(every).detach().softmax(0)
    exact = p @ every[:, 0, 0, 0].double()  # p(first | last = 1)
    n = 20_000
    x = model.sample(n, known=(mask, torch.ones(1, 1, 3, dtype=torch.int64)))
    first, weight = x[:, 0, 0, 0].double(), model.log_weight(x, mask).detach().softmax(0)
    assert abs(float(first.mean() - exact)) > 0.2
    assert abs(float((weight * first).sum() - exact)) < 0.02
    last = model.logits(x)[:, 0, 0, 2].log_softmax(-1)[:, 1]
    torch.testing.assert_close(model.log_weight(x, mask), last)


@pytest.mark.parametrize("view", [naive, lambda model: model])
def test_ranks_come_in_order_once_each(view: object) -> None:
    model: ARModel = view(build("gated", (1, 2, 2), 3))  # type: ignore[operator]
    cache = model.begin(2)
    with pytest.raises(ValueError, match="out of order"):
        model.step(cache, 1)
    with pytest.raises(ValueError, match="put"):
        cache.put(0, 1)
    model.step(cache, 0)
    for i in (0, 1):
        with pytest.raises(ValueError, match=r"before put\(0"):
            model.step(cache, i)
    with pytest.raises(ValueError, match="put"):
        cache.put(1, 0)
    cache.put(0, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="put"):
        cache.put(0, 1)
    for i in (0, 2, -1):
        with pytest.raises(ValueError, match="out of order"):
            model.step(cache, i)
    for i in (1, 2, 3):
        model.step(cache, i)
        cache.put(i, i % 3)
    assert cache.x.flatten(1).tolist() == [[1, 1, 2, 0], [2, 1, 2, 0]]
    with pytest.raises(ValueError, match="every rank is filled"):
        model.step(cache, 4)


def test_steps_show_the_live_canvas() -> None:
    model = build("made-shuffled", (1, 2, 3), 4)
    canvas = None
    for i, state in enumerate(model.sample_steps(2, seed=3)):
        assert isinstance(state, State) and state.i == i and state.logits.shape == (2, 4)
        assert canvas is None or state.x is canvas
        canvas = state.x
        assert not by_rank(model, canvas)[:, i + 1 :].any()
    assert canvas is not None and torch.equal(canvas, model.sample(2, seed=3))


def test_logits_of_a_state_are_before_the_temperature() -> None:
    model = marginal((1, 2, 2), 3)
    for state in model.sample_steps(1, temperature=0.1):
        assert torch.equal(state.logits[0], model.table[state.i])


@pytest.mark.parametrize("cached", [True, False])
def test_sampling_leaves_gradients_and_dropout_as_they_were(cached: bool) -> None:
    model = build("gated", (1, 2, 2), 3, dropout=0.5)  # type: ignore[arg-type]
    still = model.sample(3)
    model.train()
    model.layers[0].eval()
    for state in model.sample_steps(3, cached=cached):
        assert torch.is_grad_enabled() and not state.logits.requires_grad
        assert model.training and model.head.training and not model.layers[0].training
    assert torch.equal(state.x, still)  # dropout is off while sampling
    view = naive(model)
    model.eval()
    view.sample(1)
    assert not model.training and not model.head.training


def test_many_images_and_one() -> None:
    model = build("pixelcnn", (1, 2, 2), 3)
    u = uniforms(7, model)
    singly = torch.cat([model.sample(1, u=u[j : j + 1]) for j in range(7)])
    assert torch.equal(model.sample(7, u=u), singly)


MODEL = MADE((1, 2, 2), 3, width=8)
MASK, ZEROS = torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be"),
        ({"n": 2, "temperature": 0.0}, "temperature"),
        ({"n": 2, "temperature": float("nan")}, "temperature"),
        ({"n": 2, "u": torch.rand(2, 4)}, "u must be"),
        ({"n": 2, "u": torch.rand(3, 4).double()}, "u must be"),
        ({"n": 1, "u": torch.ones(1, 4).double()}, r"\[0, 1\)"),
        ({"n": 2, "known": (MASK.long(), ZEROS)}, "mask"),
        ({"n": 2, "known": (MASK[0], ZEROS)}, "mask"),
        ({"n": 2, "known": (MASK, ZEROS[None])}, "values"),
        ({"n": 2, "known": (MASK, ZEROS.float())}, "values"),
        ({"n": 2, "known": (MASK, ZEROS + 3)}, "0..2"),
        ({"n": 2, "label": 0}, "no classes"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_step(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MODEL.sample_steps(**arguments)  # type: ignore[arg-type]


def test_unknown_values_may_be_anything() -> None:
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    x = MODEL.sample(2, known=(nothing, ZEROS - 1))
    assert torch.equal(x, MODEL.sample(2))


def test_logits_that_are_no_numbers_are_refused() -> None:
    bad = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])
    with pytest.raises(ValueError, match="not finite"):
        draw(bad, torch.tensor([0.5, 0.5], dtype=torch.float64))
