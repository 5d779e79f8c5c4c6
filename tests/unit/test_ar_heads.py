"""Heads: the order of the channels, and mixtures that add up."""

import math

import pytest
import torch
from torch import Tensor

from ddpm_lite.ar import Categorical, LogisticMixture
from ddpm_lite.ar.heads import Head, LevelEmbedding

HEADS = [Categorical, LogisticMixture]


def head(kind: type[Head], channels: int = 3, levels: int = 4, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    made = kind(6, channels, levels).double()  # type: ignore[call-arg]
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.7 * torch.randn(p.shape, dtype=p.dtype))
    return made


def inputs(n: int, channels: int, levels: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    features = 2 * torch.randn(n, 6, dtype=torch.float64, generator=g)
    return features, torch.randint(levels, (n, channels), generator=g)


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("kind", HEADS)
def test_logits_agree_with_the_joint(kind: type[Head], levels: int) -> None:
    made = head(kind, 3, levels)
    features, values = inputs(20, 3, levels)
    log_p = made.logits(features, values).log_softmax(-1).gather(-1, values[..., None])
    torch.testing.assert_close(made.log_prob(features, values), log_p[..., 0].sum(1))


@pytest.mark.parametrize("kind", HEADS)
def test_a_pixel_s_colours_sum_to_one(kind: type[Head]) -> None:
    made = head(kind)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)  # [64,3]
    features = inputs(1, 3, 4)[0].expand(64, -1)
    assert abs(float(made.log_prob(features, every).detach().exp().sum()) - 1) < 1e-12


@pytest.mark.parametrize("kind", HEADS)
def test_blue_reads_red_and_green_and_red_reads_neither(kind: type[Head]) -> None:
    made = head(kind)
    features, values = inputs(30, 3, 4)
    reads = torch.zeros(3, 3, dtype=torch.bool)
    for source in range(3):
        changed = values.clone()
        changed[:, source] = (changed[:, source] + 1) % 4
        moved = made.logits(features, changed) != made.logits(features, values)
        reads[:, source] = moved.any(-1).any(0)
    assert torch.equal(reads, torch.ones(3, 3).tril(-1).bool())


def test_prior_weights_sum_to_one_and_are_wrong() -> None:
    """The planted error that normalisation alone would let through."""

    class Prior(LogisticMixture):
        def step(self, state: Tensor, values: Tensor, c: int) -> Tensor:
            every = torch.arange(self.levels)
            log_p = self._component(state[:, None], values[:, None], c, every)
            return torch.logsumexp(self._split(state)[0][:, None] + log_p, -1)

    wrong = head(Prior)
    features, values = inputs(20, 3, 4)
    logits = wrong.logits(features, values)
    torch.testing.assert_close(logits.logsumexp(-1), torch.zeros(20, 3).double())
    log_p = logits.gather(-1, values[..., None])[..., 0].sum(1)
    assert (log_p - wrong.log_prob(features, values)).abs().max() > 0.01


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_mixture_logits_are_normalised_log_probabilities(levels: int) -> None:
    made = head(LogisticMixture, 3, levels)
    features, values = inputs(20, 3, levels)
    total = made.logits(features, values).logsumexp(-1)
    assert total.abs().max() < 1e-12
    total = made.float().logits(features.float(), values).logsumexp(-1)
    assert total.abs().max() < 1e-4


def test_one_component_is_a_difference_of_sigmoids_with_tails_at_the_edges() -> None:
    made = LogisticMixture(6, 1, 5, mixtures=1).double()
    mean, log_scale = 0.3, -1.1
    state = torch.tensor([[[0.0, mean, log_scale]]]).double()
    edges = torch.tensor([-0.75, -0.25, 0.25, 0.75]).double()  # between centres -1, -.5, 0, .5, 1
    cdf = torch.sigmoid((edges - mean) / math.exp(log_scale))
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    expected = torch.diff(torch.cat([zero, cdf, one])).log()
    got = made.step(state, torch.zeros(1, 1).long(), 0)[0]
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)  # mean and scale were float32


def test_mixture_is_finite_and_differentiable_far_out() -> None:
    made = LogisticMixture(6, 3, 256)
    state = torch.zeros(1, 10, 10)
    state[..., 1:4], state[..., 4:7] = 40.0, -20.0  # means off the range, vanishing scales
    state.requires_grad_()
    made.begin = lambda features: state  # type: ignore[method-assign]
    log_p = made.log_prob(torch.zeros(1, 6), torch.tensor([[0, 128, 255]]))
    log_p.sum().backward()
    assert log_p.isfinite().all() and state.grad is not None and state.grad.isfinite().all()


def test_mixture_likelihood_never_builds_all_levels() -> None:
    made = LogisticMixture(6, 3, 256)
    made.step = None  # type: ignore[method-assign,assignment]  # the way to K levels
    features, values = inputs(20, 3, 256)
    assert made.log_prob(features.float(), values).isfinite().all()


def test_levels_start_ordered() -> None:
    weight = LevelEmbedding(17).weight.detach()
    k, j = 5, 3
    torch.testing.assert_close(weight[k, j], torch.tensor(math.cos(math.pi * j * k / 16)))
    distance = torch.cdist(weight, weight)
    assert (distance[0].diff() > 0).sum() >= 4  # the near levels come first
    assert distance.fill_diagonal_(9).argmin(1).sub(torch.arange(17)).abs().max() == 1
