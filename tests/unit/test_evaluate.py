"""Evaluation against what is known exactly."""

import math

import pytest
import torch
from torch import Tensor, nn

from ddpm_lite.ar.dense import Marginal
from ddpm_lite.data import Images, load
from ddpm_lite.diffusion import Denoiser, choose_first, elbo
from ddpm_lite.evaluate import BATCH, EvalConfig, evaluate, generate, likelihood
from ddpm_lite.evaluate import quality as quality_of
from ddpm_lite.schedules import Cosine
from ddpm_lite.unet import UNet

LEVELS = 4


def made_up(n: int, seed: int) -> Images:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(0, LEVELS, (n, 1, 4, 4), generator=draws, dtype=torch.uint8)
    return Images(x, torch.zeros(n, dtype=torch.int64), LEVELS, "made up")


TRAIN, TEST = made_up(40, 0), made_up(30, 1)


def uniform() -> nn.Module:
    model = Marginal((1, 4, 4), LEVELS).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


def denoiser() -> Denoiser:
    torch.manual_seed(0)
    net = UNet(1, 8, mults=(1,), blocks=1, attention=(False,))
    model = Denoiser(net, "v").eval()
    model.info = {"schedule": Cosine(20).spec, "shape": [1, 4, 4], "levels": LEVELS}
    return model


class Pixels(nn.Module):
    """The first four pixels as features."""

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4].float()


def test_a_uniform_model_costs_log2_k() -> None:
    found = likelihood(uniform(), TEST, TRAIN, EvalConfig())
    assert found["kind"] == "exact" and found["n"] == 30
    assert found["value"] == pytest.approx(math.log2(LEVELS)) and found["standard_error"] < 1e-6
    assert likelihood(uniform(), TEST, TRAIN, EvalConfig(images=7))["n"] == 7


def test_the_standard_error_is_that_of_a_mean() -> None:
    model = uniform()
    with torch.no_grad():
        next(model.parameters()).normal_(generator=torch.Generator().manual_seed(0))
        bits = model.bits_per_dim(TEST.x).double()
    found = likelihood(model, TEST, TRAIN, EvalConfig())
    assert found["value"] == pytest.approx(bits.mean().item())
    assert found["standard_error"] == pytest.approx(bits.std().item() / math.sqrt(30))


def test_the_bound_is_the_elbo_with_all_terms() -> None:
    model, config = denoiser(), EvalConfig(first=3)
    found = likelihood(model, TEST, TRAIN, config)
    expected = elbo(model, TEST.x, Cosine(20).grid(20), LEVELS, 3)
    assert found["kind"] == "bound" and (found["first"], found["levels"]) == (3, 20)
    assert found["value"] == pytest.approx(expected.total.mean().item())
    assert found["value"] == pytest.approx(sum(found["terms"].values()))
    assert found["terms"]["diffusion"] == pytest.approx(expected.diffusion.mean().item())


def test_the_chain_stops_where_the_training_images_say() -> None:
    """Against the plain search: one whole bound for every place to stop."""
    model, grid = denoiser(), Cosine(20).grid(20)
    totals = {f: elbo(model, TRAIN.x, grid, LEVELS, f).total.mean().item() for f in range(1, 21)}
    chosen = choose_first(model, TRAIN, grid)
    assert totals[chosen] < min(totals.values()) + 0.05 and totals[chosen] < totals[1]
    found = likelihood(model, TEST, TRAIN, EvalConfig())
    assert found["first"] == chosen  # and not what the test images would have liked


def test_evaluation_is_a_function_of_the_seed() -> None:
    config = EvalConfig(n=20, steps=2, bootstraps=5, first_images=10)
    model = denoiser()
    first = evaluate(model, TEST, TRAIN, Pixels(), config)
    torch.rand(5)
    assert evaluate(model, TEST, TRAIN, Pixels(), config) == first
    other = evaluate(model, TEST, TRAIN, Pixels(), EvalConfig(**{**first["config"], "seed": 1}))
    assert other["quality"]["frechet"]["value"] != first["quality"]["frechet"]["value"]
    assert other["likelihood"]["value"] != first["likelihood"]["value"]
    assert evaluate(model, TEST, TRAIN, None, config)["quality"] is None


@pytest.mark.parametrize("make", [uniform, denoiser])
def test_no_two_batches_repeat_their_images(make: object) -> None:
    images = generate(make(), BATCH + 20, EvalConfig(steps=1, sampler="ddim"))  # type: ignore
    assert images.dtype == torch.uint8 and images.shape == (BATCH + 20, 1, 4, 4)
    assert int(images.max()) < LEVELS
    assert not torch.equal(images[:20], images[BATCH:])


def test_real_images_reach_the_floor_and_uniform_noise_does_not() -> None:
    test, train = load("digits", "test"), load("digits", "train")
    config = EvalConfig(bootstraps=20)
    ruler = Pixels()
    ruler.features = lambda x: x.flatten(1)[:, 18:22].float()  # type: ignore[method-assign]
    real = quality_of(ruler, train.x[:300], test, train, config)
    for name in ("frechet", "kernel"):
        assert real[name]["value"] == real[name]["floor"]  # the same images, called generated
        low, high = real[name]["interval"]
        assert low <= real[name]["value"] <= high
    draws = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 17, (300, 1, 8, 8), dtype=torch.uint8, generator=draws)
    bad = quality_of(ruler, noise, test, train, config)
    assert bad["n"] == bad["floor_n"] == 300 and bad["reference_n"] == 397
    for name in ("frechet", "kernel"):
        assert bad[name]["interval"][0] > real[name]["interval"][1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("n", -1), ("steps", 0), ("bootstraps", 0), ("first_images", 0)],
        *[("images", 0), ("levels", 0), ("first", 0)],
    ],
)
def test_bad_configurations(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        EvalConfig(**{field: value})


def test_what_the_model_does_not_have() -> None:
    with pytest.raises(ValueError, match="unknown sampler"):
        generate(denoiser(), 2, EvalConfig(sampler="euler"))
    with pytest.raises(ValueError, match="21 sampling steps"):
        generate(denoiser(), 2, EvalConfig(steps=21))
    with pytest.raises(ValueError, match="no classes"):
        generate(uniform(), 2, EvalConfig(), label=1)
    for model in (uniform(), denoiser()):
        with pytest.raises(ValueError, match="without classes"):
            evaluate(model, TEST, TRAIN, None, EvalConfig(labels=True))
    with pytest.raises(ValueError, match="guidance needs labels"):
        EvalConfig(guidance=2.0)


def test_labels_are_told_in_turn() -> None:
    """Each sample is the one that its own class gives, from the same noise."""
    torch.manual_seed(0)
    net = UNet(1, 8, (1,), 1, (False,), classes=3)
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    model = Denoiser(net, "x0", sigma_data=0.5).eval()
    model.info = {"shape": [1, 4, 4], "levels": 256, "schedule": Cosine().spec}
    usual = {"steps": 2, "sampler": "ddim"}
    told = generate(model, 7, EvalConfig(**usual, labels=True))
    single = [generate(model, 7, EvalConfig(**usual), label=c) for c in range(3)]
    assert all(torch.equal(told[i], single[i % 3][i]) for i in range(7))
    assert not torch.equal(told, single[0])
    more = generate(model, 7, EvalConfig(**usual, labels=True, guidance=3.0))
    guided = generate(model, 7, EvalConfig(**usual), label=1, guidance=3.0)
    assert torch.equal(more[1::3], guided[1::3]) and not torch.equal(more, told)
