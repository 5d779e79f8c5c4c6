"""Filling holes, held against the exact conditional of a Gaussian and of a mixture."""

import math

import pytest
import torch
from torch import Tensor

from ddpm_lite.exact import GaussianMixture
from ddpm_lite.inpaint import repaint, replacement
from ddpm_lite.samplers import SAMPLERS, ddpm, last
from ddpm_lite.schedules import Cosine, Flow, Karras, LinearBeta

RHO, SPREAD, GIVEN = 0.9, 0.5, 0.8
PAIR = GaussianMixture(torch.zeros(1, 2), SPREAD**2 * torch.tensor([[[1.0, RHO], [RHO, 1.0]]]))
MASK = torch.tensor([[[True, False]]])
VALUES = torch.tensor([[[GIVEN, 0.0]]])
GRID = LinearBeta(60, 1e-3, 0.2).grid(60)


def noise(n: int = 2000, seed: int = 0) -> Tensor:
    return torch.randn(n, 1, 1, 2, generator=torch.Generator().manual_seed(seed)).double()


def filled(resample: int, mixture: GaussianMixture = PAIR, **options: int) -> Tensor:
    """The unknown pixel of 2,000 images whose other pixel is known."""
    torch.manual_seed(0)
    states = repaint(mixture, noise(), GRID, (MASK, VALUES), resample=resample, **options)
    x = last(states).x
    assert (x[..., 0] == torch.tensor(GIVEN).double()).all()
    return x[..., 1].flatten()


def test_replacement_is_biased_and_resampling_less_so() -> None:
    truth = RHO * GIVEN  # E[unknown | known] of a Gaussian; its variance is SPREAD² (1 - RHO²)
    found = {r: filled(r) for r in (1, 3, 10)}
    bias = {r: (x.mean() - truth).abs().item() for r, x in found.items()}
    error = SPREAD / math.sqrt(2000)
    assert bias[1] > 10 * error, bias  # far outside of what 2,000 draws explain
    assert bias[3] < 0.7 * bias[1] and bias[10] < 0.35 * bias[1], bias
    assert found[1].std() > 1.1 * SPREAD * math.sqrt(1 - RHO**2)  # it agrees less than it should


def test_resampling_repeats_what_a_coarse_step_loses_in_variance() -> None:
    exact, short = SPREAD * math.sqrt(1 - RHO**2), []
    for n in (30, 120):
        torch.manual_seed(0)
        grid = LinearBeta(n, 0.06 / n, 12.0 / n).grid(n)
        x = last(repaint(PAIR, noise(), grid, (MASK, VALUES), resample=6)).x[..., 1]
        short.append(1 - x.std().item() / exact)
    assert short[0] > 0.1 and abs(short[1]) < 0.8 * short[0], short


def test_more_steps_do_not_cure_replacement() -> None:
    biases = []
    for n in (30, 120):
        torch.manual_seed(0)
        grid = LinearBeta(n, 0.06 / n, 12.0 / n).grid(n)
        x = last(ddpm(PAIR, noise(), grid, after=replacement((MASK, VALUES)))).x
        biases.append((x[..., 1].mean() - RHO * GIVEN).abs().item())
    assert biases[1] > 0.6 * biases[0] > 0.02, biases


def test_a_mixture_s_hole_takes_the_wrong_mode_less_often() -> None:
    two = GaussianMixture([[0.6, 0.6], [-0.2, -0.6]], 0.04, [0.3, 0.7])
    values = torch.tensor([[[0.45, 0.0]]])
    # p(mode 1 | known): from the two one-dimensional densities
    odds = 0.3 * math.exp(-(0.15**2) / 0.08) / (0.7 * math.exp(-(0.65**2) / 0.08))
    truth, share = odds / (1 + odds), {}
    for r in (1, 8):
        torch.manual_seed(0)
        x = last(repaint(two, noise(), GRID, (MASK, values), resample=r)).x[..., 1]
        share[r] = (x > 0).double().mean().item()
    assert abs(share[1] - truth) > 0.1, (share, truth)
    assert abs(share[8] - truth) < 0.5 * abs(share[1] - truth), (share, truth)


def test_jumps_of_several_steps() -> None:
    assert (filled(4, jump=5).mean() - RHO * GIVEN).abs() < 0.5 * (
        filled(1).mean() - RHO * GIVEN
    ).abs()


def test_an_independent_hole_is_not_disturbed() -> None:
    apart = GaussianMixture(torch.zeros(1, 2), torch.tensor([[[0.25, 0.0], [0.0, 0.25]]]))
    for resample, lost in ((1, 0.05), (4, 0.08)):
        x = filled(resample, apart)
        assert x.mean().abs() < 0.04 and abs(x.std().item() - 0.5) < lost


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_pixels_are_exact_at_the_end_and_noised_to_the_next_level(sampler: str) -> None:
    for schedule in (Cosine(50), Flow(), Karras(0.01, 20)):
        grid, numbers = schedule.grid(8), []

        def fresh(i: int, numbers: list = numbers) -> Tensor:
            numbers.append(i)
            return torch.full((5, 1, 1, 2), 0.5, dtype=torch.float64)

        after = replacement((MASK, VALUES), fresh)
        states = list(SAMPLERS[sampler](PAIR, noise(5), grid, after=after))
        for state, (alpha, sigma) in zip(states[1:], grid[1:].tolist(), strict=True):
            expected = alpha * VALUES[0, 0, 0].double().item() + sigma * 0.5
            torch.testing.assert_close(
                state.x[..., 0], torch.full((5, 1, 1), expected, dtype=torch.float64)
            )
        assert torch.equal(states[-1].x[..., 0], VALUES[..., 0].double().expand(5, 1, 1))
        assert numbers == list(range(1, 8))  # none at sigma = 0


def test_repaint_fits_the_sampler_s_contract() -> None:
    grid = LinearBeta().grid(7)
    for jump in (1, 3, 7):
        states = list(repaint(PAIR, noise(5), grid, (MASK, VALUES), resample=3, jump=jump))
        assert [s.i for s in states] == list(range(8))
        assert states[0].x0 is None and torch.equal(states[0].x, noise(5) * grid[0, 1])
        assert all(s.x0 is not None for s in states[1:])
        assert torch.equal(states[-1].x[..., 0], VALUES[..., 0].double().expand(5, 1, 1))
    made = {i: noise(5, seed=i) for i in range(1, 200)}
    a, b = (
        last(repaint(PAIR, noise(5), grid, (MASK, VALUES), resample=3, fresh=made.__getitem__)).x
        for _ in range(2)
    )
    assert torch.equal(a, b)  # every draw comes from `fresh`
    alone = {i: v[2:3] for i, v in made.items()}
    c = last(
        repaint(PAIR, noise(5)[2:3], grid, (MASK, VALUES), resample=3, fresh=alone.__getitem__)
    ).x
    torch.testing.assert_close(a[2:3], c, rtol=0, atol=1e-12)  # an image has its own noise only
    plain = last(
        ddpm(PAIR, noise(5), grid, fresh=lambda i: made[2 * i - 1],
             after=replacement((MASK, VALUES), lambda i: made[2 * i]))
    ).x  # fmt: skip
    once = last(repaint(PAIR, noise(5), grid, (MASK, VALUES), resample=1, fresh=made.__getitem__)).x
    torch.testing.assert_close(once, plain, rtol=0, atol=1e-12)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="mask must be bool"):
        replacement((MASK.float(), VALUES))
    with pytest.raises(ValueError, match="values must be"):
        replacement((MASK, VALUES[..., :1]))
    with pytest.raises(ValueError, match="values must be"):
        replacement((MASK, torch.zeros(1, 1, 2).long()))
    for options in ({"resample": 0}, {"jump": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            next(repaint(PAIR, noise(5), GRID, (MASK, VALUES), **options))
