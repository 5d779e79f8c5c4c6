"""Every autoregressive model: causal, normalised, and its cached step is its logits."""

import json
import math
from itertools import product

import pytest
import torch
from ar_models import (
    BUILD,
    NAMES,
    awake,
    build,
    by_rank,
    images,
    influence,
    jacobian,
    marginal,
)

from ddpm_lite.ar import MADE, ARModel, GatedPixelCNN, ImageGPT, LinearAR, Marginal, PixelCNN, naive
from ddpm_lite.cost import macs
from ddpm_lite.specs import build as from_spec

SHAPES = [(1, 2, 2), (1, 4, 5), (3, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_logits_see_lower_ranks_only(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, 3)
    moved = influence(model)
    assert not moved.triu().any()
    assert moved.any(0)[:-1].all()  # each rank moves some later one
    if name != "pixelcnn":  # which has a blind spot: test_ar_conv.py
        assert torch.equal(moved, torch.ones_like(moved).tril(-1))


@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_jacobian_is_strictly_lower_triangular(
    name: str, shape: tuple[int, int, int], label: int | None
) -> None:
    """All D² pairs of positions, by gradients: exactly zero on the diagonal and above it."""
    model = build(name, shape, 3) if label is None else build(name, shape, 3, classes=2)
    J = jacobian(model, label)
    assert not J.triu().any()
    assert (J.amax(0)[:-1] > 0).all()  # each position influences some later one
    if name != "pixelcnn":
        assert (J[torch.ones_like(J).tril(-1).bool()] > 0).all()  # and each later one hears it


def test_marginal_sees_nothing() -> None:
    model = marginal((1, 3, 3), 3)
    assert not influence(model).any()


def test_the_check_of_causality_can_fail() -> None:
    conv = build("pixelcnn", (1, 4, 4), 3)
    assert isinstance(conv, PixelCNN)
    conv.first.mask = torch.ones_like(conv.first.mask)
    conv.first.mask[:, :, 2, 3:] = conv.first.mask[:, :, 3:] = 0  # type B where A belongs

    made = build("made", (1, 2, 3), 3)
    assert isinstance(made, MADE)
    made.out.mask = made.out.mask.roll(-made.levels, 0)

    class Unshifted(GatedPixelCNN):
        def features(self, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
            return super().features(x.roll(-1, 2), y)  # row r is told of row r itself

    class Told(ImageGPT):
        def tell(self, values: torch.Tensor) -> torch.Tensor:
            return super().tell(values).roll(-1, 1)  # token i is told the value of rank i

    gated = awake(Unshifted((1, 4, 4), 3, width=8, layers=2))
    gpt = awake(Told((1, 2, 3), 3, width=8, layers=2, heads=2))
    for leaking in (conv, made, gated, gpt):
        assert influence(leaking).triu().any()
        assert jacobian(leaking).triu().any()


def test_attention_that_is_not_causal_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention",
        lambda q, k, v, is_causal=False: attend(q, k, v),
    )
    assert jacobian(build("imagegpt", (1, 2, 3), 3)).triu().any()


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_all_binary_images_sum_to_one(
    name: str, shape: tuple[int, int, int]
) -> None:
    D = math.prod(shape)
    every = torch.tensor(list(product((0, 1), repeat=D))).view(-1, *shape)
    for model, label in ((build(name, shape, 2), None), (build(name, shape, 2, classes=2), 1)):
        total = model.log_prob(every, label).detach().exp().sum()
        assert abs(float(total) - 1) < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 5, 4), (3, 4, 3), (1, 3, 17)])
@pytest.mark.parametrize("name", NAMES)
def test_step_is_logits(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    model = build(name, shape, 4, dtype, classes=3)
    x, label = images(model, 3), torch.tensor([2, -1, 0])
    logits = by_rank(model, model.logits(x, label)).detach()  # [3,D,K]
    model.logits = None  # type: ignore[method-assign,assignment]  # step must not need it
    cache, values = model.begin(3, label), by_rank(model, x)
    for i in range(model.D):
        gap = (model.step(cache, i) - logits[:, i]).abs().max()
        assert gap <= tolerance * max(1.0, float(logits.abs().max()))
        cache.put(i, values[:, i])
    assert torch.equal(cache.x, x)


def test_the_transformer_s_colours_are_tokens_of_their_own() -> None:
    """A pixel's G hears its R through the net, and R hears neither G nor B of its own pixel."""
    J = jacobian(build("imagegpt", (3, 2, 2), 3))
    for first in range(0, 12, 3):
        own = J[first : first + 3, first : first + 3] > 0
        assert torch.equal(own, torch.ones(3, 3).tril(-1).bool())


def test_the_prefix_is_all_that_the_transformer_needs() -> None:
    model = build("imagegpt", (1, 3, 4), 5, classes=2)
    assert isinstance(model, ImageGPT)
    x, y = images(model, 2), torch.tensor([1, 2])
    logits, values = by_rank(model, model.logits(x, torch.tensor([1, -1]))), by_rank(model, x)
    for i in (0, 1, 7, 11):
        prefix = model.out(model.features(values[:, :i], y))
        torch.testing.assert_close(prefix, logits[:, : i + 1])


def test_marginal_steps_through_its_table() -> None:
    model = marginal((2, 2, 3), 4)
    cache = model.begin(2)
    for i in range(model.D):
        assert torch.equal(model.step(cache, i), model.table[i].expand(2, -1))
        cache.put(i, 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_override_is_its_own(name: str) -> None:
    model = build(name, (1, 2, 2), 3)
    assert type(model).step is not ARModel.step
    assert type(naive(model)).step is ARModel.step
    calls = []
    model.register_forward_hook(lambda *_: calls.append("forward"))
    model.logits = lambda *_: calls.append("logits")  # type: ignore[method-assign,assignment]
    model.sample(2)
    assert not calls  # the cached path never runs the full forward
    with pytest.raises(AttributeError):
        model.sample(2, cached=False)
    assert calls == ["logits"]  # the naive one does


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_adds_up_the_conditionals(name: str) -> None:
    model = build(name, (3, 3, 2), 5, classes=2)
    x, label = images(model, 4), torch.tensor([0, 1, -1, 0])
    picked = model.logits(x, label).log_softmax(-1).gather(-1, x[..., None])
    torch.testing.assert_close(model.log_prob(x, label), picked.flatten(1).sum(1))
    bits = -model.log_prob(x, label) / model.D / math.log(2)
    torch.testing.assert_close(model.bits_per_dim(x, label), bits)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    model = build(name, (3, 4, 4), 4, classes=2).train()
    model.bits_per_dim(images(model, 6), torch.tensor([0, 1, -1, 0, 1, -1])).mean().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None and p.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_label_matters_and_none_is_the_null_class(name: str) -> None:
    model = build(name, (1, 3, 3), 3, classes=2)
    x = images(model, 2)
    assert torch.equal(model.logits(x), model.logits(x, -1))
    assert torch.equal(model.logits(x, 1), model.logits(x, torch.tensor([1, 1])))
    a, b, null = (by_rank(model, model.logits(x, y)) for y in (0, 1, None))
    assert (a != b).any(-1).all() and (a != null).any(-1).all()  # at rank 0 too


@pytest.mark.parametrize("name", NAMES)
def test_spec_rebuilds_the_model(name: str) -> None:
    model = BUILD[name]((1, 2, 3), 4, classes=2)
    spec = json.loads(json.dumps(model.spec))
    twin = from_spec(spec)
    assert type(twin) is type(model) and twin.spec == model.spec == spec
    assert torch.equal(twin.order, model.order)
    twin.load_state_dict(model.state_dict())
    x = images(model, 2)
    assert torch.equal(twin.eval().logits(x), model.eval().logits(x))


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("linear")])
def test_dropout_acts_in_training_only(name: str) -> None:
    model = build(name, (1, 4, 4), 3, dropout=0.5)  # type: ignore[arg-type]
    x = images(model, 2)
    assert torch.equal(model.logits(x), model.logits(x))
    model.train()
    assert not torch.equal(model.logits(x), model.logits(x))


def test_uniform_model_costs_log2_levels() -> None:
    model = Marginal((1, 2, 2), 16)
    torch.testing.assert_close(model.bits_per_dim(images(model, 3)), torch.full((3,), 4.0))


def test_marginal_fit_is_the_maximum_of_the_likelihood() -> None:
    model = Marginal((2, 2, 2), 3).double()
    x = images(model, 50)
    best = model.fit(x, smoothing=0.0).bits_per_dim(x).mean()
    share = torch.stack([(x == k).double().mean(0) for k in range(3)])  # [K,C,H,W]
    entropy = -(share * share.log2()).sum(0).mean()
    torch.testing.assert_close(best, entropy)
    best.backward()
    assert model.table.grad is not None and model.table.grad.abs().max() < 1e-12
    counts = (x[:, 1, 0, 1] == 2).sum()
    table = model.fit(x, smoothing=2.0).table.view(4, 2, 3)  # pixel, channel, level
    torch.testing.assert_close(table[1, 1, 2].exp(), (counts + 2).double() / (50 + 6))


def test_linear_ar_is_linear_in_the_earlier_values() -> None:
    model = build("linear", (1, 1, 3), 5)
    x = torch.tensor([[0, 2, 1], [4, 2, 1], [2, 2, 1]]).view(3, 1, 1, 3)  # values -1, 1, 0
    logits = by_rank(model, model.logits(x))
    torch.testing.assert_close((logits[0] + logits[1]) / 2, logits[2])


def test_made_follows_its_order() -> None:
    order = [3, 0, 2, 1]
    model = awake(MADE((1, 2, 2), 3, width=20, order=order))
    assert model.order.tolist() == order and model.spec["order"] == order
    x = images(model, 1)
    x[0, 0, 1, 1] = 0
    y = x.clone()
    y[0, 0, 1, 1] = 2  # flat position 3 is rank 0: it moves every other position, not itself
    moved = (model.logits(x) != model.logits(y)).any(-1).flatten().tolist()
    assert moved == [True, True, True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MADE((1, 2, 2), 3, order=[0, 1, 2, 2]), "permutation"),
        (lambda: MADE((1, 2, 2), 3, order=[0, 1, 2]), "permutation"),
        (lambda: MADE((1, 2, 2), 3, width=0), "width"),
        (lambda: Marginal((2, 2), 3), "shape"),
        (lambda: Marginal((1, 0, 2), 3), "shape"),
        (lambda: LinearAR((1, 2, 2), 1), "levels"),
        (lambda: LinearAR((1, 2, 2), 3, classes=0), "classes"),
        (lambda: PixelCNN((1, 2, 2), 3, width=0), "width"),
        (lambda: GatedPixelCNN((1, 2, 2), 3, layers=0), "layers"),
        (lambda: ImageGPT((1, 2, 2), 3, width=6, heads=4), "multiple of heads"),
        (lambda: ImageGPT((1, 2, 2), 3, heads=0), "heads"),
        (lambda: LinearAR((1, 2, 2), 3, order=[0, 1, 2]), "permutation"),
        (lambda: GatedPixelCNN((1, 2, 2), 3, head="softmax"), "categorical, logistic"),
        (lambda: Marginal((1, 2, 2), 3).fit(torch.zeros(1, 1, 2, 2).long(), -1), "smoothing"),
    ],
)
def test_bad_construction(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("name", NAMES)
def test_bad_images_and_labels(name: str) -> None:
    model, conditional = build(name, (1, 2, 3), 4), build(name, (1, 2, 3), 4, classes=2)
    x = images(model, 2)
    for bad, message in (
        (x[0], "shape"),
        (x.transpose(2, 3), "shape"),
        (x.float(), "integer levels"),
        (x + 3, "0..3"),
        (x - 4, "0..3"),
    ):
        for call in (model.logits, model.log_prob, model.bits_per_dim):
            with pytest.raises(ValueError, match=message):
                call(bad)
    assert torch.equal(model.logits(x.to(torch.uint8)), model.logits(x))
    for call in (model.logits, model.log_prob):
        with pytest.raises(ValueError, match="no classes"):
            call(x, 0)
    with pytest.raises(ValueError, match="no classes"):
        model.sample(2, label=0)
    for label in (2, -2, torch.tensor([0, 1, 0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="label"):
            conditional.log_prob(x, label)


def test_a_cached_image_of_the_transformer_costs_one_forward() -> None:
    """Every token passes the layers once and attends to itself and those before it, as in one
    causal forward."""
    model = ImageGPT((1, 4, 4), 5, width=16, layers=2, heads=2).eval()
    x = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    forward = macs(model.logits, x)
    assert macs(model.sample, 1) == forward
    assert macs(model.sample, 1, cached=False) == 16 * forward


@pytest.mark.parametrize("name", ["gated", "gpt"])
def test_bfloat16_autocast_does_not_round_probabilities(name: str) -> None:
    """Near 1 bfloat16 knows p to 1/256: its log is 0, and the gradient p - 1 with it."""
    kind = {"gated": GatedPixelCNN, "gpt": ImageGPT}[name]
    torch.manual_seed(0)
    model = kind((1, 4, 4), 4, width=8, layers=2, **({"heads": 2} if name == "gpt" else {}))
    last = model.head.out[0] if name == "gated" else model.out
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.copy_(torch.tensor([7.0, 0.0, 0.0, 0.0]))  # p(0) = 0.997
    x = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    exact = model.log_prob(x)
    exact.sum().backward()
    wanted = last.bias.grad.clone()
    last.bias.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.log_prob(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0)
    rounded.sum().backward()
    torch.testing.assert_close(last.bias.grad, wanted, rtol=0.05, atol=1e-4)
