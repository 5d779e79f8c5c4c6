"""The ruler learns from its own split alone, and reads levels, nothing else."""

import pytest
import torch

from ddpm_lite import metrics
from ddpm_lite.checkpoint import build, pretrained
from ddpm_lite.data import Images, load
from ddpm_lite.ruler import Ruler, bent, fit_ruler


def test_committed_ruler_recognises_digits_and_has_no_dead_feature():
    net, test = pretrained("digits-ruler"), load("digits", "test")
    with torch.no_grad():
        accuracy = (net(test.x).argmax(1) == test.y).double().mean().item()
    assert accuracy >= 0.98
    assert accuracy == pytest.approx(net.info["metrics"]["test_accuracy"], abs=0.006)
    assert (metrics.features(net, test.x).std(0) > 0.1).all()


def test_committed_ruler_was_trained_on_the_ruler_split():
    assert pretrained("digits-ruler").info["data"]["hash"] == load("digits", "ruler").hash


def test_committed_ruler_tells_digits_from_their_caricatures():
    """Worse images score worse, and none comes near the floor."""
    net = pretrained("digits-ruler")
    test, train = load("digits", "test").x, load("digits", "train").x
    rng = torch.Generator().manual_seed(0)
    noisy = (train + 3 * torch.randn(train.shape, generator=rng)).round().clamp(0, 16)
    shuffled = torch.stack(
        [train.flatten(1)[torch.randperm(1000, generator=rng), i] for i in range(64)], 1
    )
    uniform = torch.randint(0, 17, train.shape, generator=rng)
    reference = metrics.features(net, test)
    floor, slight, marginal, noise = (
        metrics.frechet(metrics.features(net, x.to(torch.uint8)), reference)
        for x in (train, noisy, shuffled.view_as(train), uniform)
    )
    assert 2 * floor < slight < marginal
    assert 10 * floor < min(marginal, noise)


def test_fit_ruler_learns_in_a_few_steps_and_repeats_itself():
    images = load("digits", "ruler")
    before = torch.random.get_rng_state()
    net = fit_ruler(images, width=8, steps=80, seed=3)
    again = fit_ruler(images, width=8, steps=80, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())  # the caller's randomness is untouched
    assert all(map(torch.equal, net.state_dict().values(), again.state_dict().values()))
    assert not net.training
    test = load("digits", "test")
    with torch.no_grad():
        assert (net(test.x).argmax(1) == test.y).double().mean() > 0.6


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 3, 5), (2, 1, 1)])
def test_shapes_spec_and_dtypes(shape):
    net = Ruler(shape, 17, width=4, features=6, classes=3).eval()
    x = torch.randint(0, 17, (5, *shape), generator=torch.Generator().manual_seed(0))
    assert net.features(x).shape == (5, 6) and net(x).shape == (5, 3)
    assert torch.equal(net(x), net(x.to(torch.uint8)))
    twin = build(net.spec).eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))


def test_bent_images_are_levels_and_no_bend_is_the_identity():
    x, rng = load("digits", "ruler").x[:20], torch.Generator().manual_seed(0)
    assert torch.equal(bent(x, 17, rng, strength=0.0), x)
    moved = bent(x, 17, rng)
    assert moved.dtype == torch.uint8 and moved.max() <= 16 and not torch.equal(moved, x)


def test_bad_input():
    net = Ruler((1, 8, 8), 17)
    with pytest.raises(ValueError, match="use to_levels first"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="whole levels of shape"):
        net(torch.zeros(1, 1, 7, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="levels must be"):
        Ruler((1, 8, 8), 1)
    x, y = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 12])
    with pytest.raises(ValueError, match=r"classes 0\.\.9"):
        fit_ruler(Images(x, y, 17, "x"))
