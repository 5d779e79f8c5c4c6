"""Samplers: closed forms, diffusers' steps between given levels, orders, hooks, and bad input."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lite.data import import_torchvision
from ddpm_lite.diffusion import Denoise, Denoiser, Prediction
from ddpm_lite.guidance import guided
from ddpm_lite.samplers import SAMPLERS, State, ddim, ddpm, dpmpp_2m, heun, last, sample
from ddpm_lite.schedules import (
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    Sigmoid,
    log_snr_grid,
    shifted,
    zero_terminal_snr,
)
from ddpm_lite.unet import UNet

MEAN, SPREAD = 0.3, 0.5


def gaussian(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
    """The exact denoiser of N(MEAN, SPREAD²): E[x0 | x] of two Gaussians."""
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    x0 = MEAN + gain * (x - alpha * MEAN)
    eps = (x - alpha * x0) / sigma if sigma > 0 else torch.zeros_like(x)
    return Prediction(x0, eps)


def flow_map(x: Tensor, grid: Tensor) -> Tensor:
    """Where the probability-flow ODE of N(MEAN, SPREAD²) takes x: it keeps the standard score."""
    (a, s), (b, r) = grid[0].tolist(), grid[-1].tolist()
    z = (x - a * MEAN) / math.hypot(a * SPREAD, s)
    return b * MEAN + math.hypot(b * SPREAD, r) * z


def ancestral_law(grid: Tensor) -> tuple[float, float]:
    """Mean and deviation that ancestral sampling of N(MEAN, SPREAD²) has: each step is linear."""
    mean, variance = 0.0, grid[0, 1].item() ** 2
    for (a, s), (b, r) in pairwise(grid.tolist()):
        kept = (a / b) * r**2 / s**2  # of x; the posterior mean is kept·x + given·x0 (eq. 7)
        given = (b - kept * a) if s else 1.0
        gain = a * SPREAD**2 / (a**2 * SPREAD**2 + s**2)
        slope = kept + given * gain
        mean = slope * mean + given * (1 - gain * a) * MEAN
        variance = slope**2 * variance + r**2 - (a / b) ** 2 * r**4 / s**2
    return mean, variance**0.5


def unit(n: int = 64, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 1, 2, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# -- the orders of convergence, where the truth is known ---------------------------------------


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence_without_end_points(
    sampler: Callable[..., Iterator[State]], order: int
) -> None:
    errors = []
    for n in (32, 64, 128):
        grid = log_snr_grid(n, 8.0, -8.0)
        noise = unit()
        got = last(sampler(gaussian, noise, grid)).x
        errors.append((got - flow_map(noise * grid[0, 1], grid)).abs().max().item())
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(slope - order) < 0.25 for slope in slopes), (slopes, errors)


GRIDS = {
    "linear": LinearBeta(),
    "cosine": Cosine(),
    "sigmoid": Sigmoid(),
    "zero-terminal": zero_terminal_snr(LinearBeta()),
    "flow": Flow(),
    "shifted-flow": shifted(Flow(), 1 / 3),
    "karras": Karras(0.002, 80.0),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_finite_and_right_on_every_grid(name: str, sampler: str) -> None:
    grid = GRIDS[name].grid(100)
    noise = unit(4000 if sampler == "ddpm" else 64)
    torch.manual_seed(0)
    x = last(SAMPLERS[sampler](gaussian, noise, grid)).x
    assert x.isfinite().all()
    if sampler == "ddpm":
        mean, std = ancestral_law(grid)
        assert x.mean().item() == pytest.approx(mean, abs=0.02)
        assert x.std().item() == pytest.approx(std, abs=0.01)
    else:
        tolerance = 0.05 if sampler == "ddim" else 0.02
        start = noise * grid[0, 1]
        assert (x - flow_map(start, grid)).abs().max() < tolerance


def test_heun_stays_accurate_at_five_steps_of_cosine() -> None:
    grid, noise = Cosine().grid(5), unit()
    error = (last(heun(gaussian, noise, grid)).x - flow_map(noise * grid[0, 1], grid)).abs().max()
    assert error < 0.3  # in the coordinates x/alpha it is tens


def test_heun_is_edm_s_on_alpha_one() -> None:
    grid, noise = Karras(0.02, 10.0).grid(6), unit()
    x = noise * grid[0, 1]
    sigmas = grid[:, 1].tolist()
    for s, r in pairwise(sigmas):  # EDM, algorithm 1, without churn
        d = (x - gaussian(x, 1.0, s).x0) / s
        there = x + (r - s) * d
        if r > 0:
            d = (d + (there - gaussian(there, 1.0, r).x0) / r) / 2
        x = x + (r - s) * d
    torch.testing.assert_close(last(heun(gaussian, noise, grid)).x, x, rtol=1e-12, atol=1e-12)


# -- against diffusers, between the same two levels --------------------------------------------


def nonlinear(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
    eps = torch.tanh(1.7 * x)
    return Prediction((x - sigma * eps) / alpha, eps)


@pytest.mark.parametrize("t", [980, 500, 40, 20])
def test_one_ddim_and_one_ddpm_step_equal_diffusers(t: int) -> None:
    import_torchvision()
    from diffusers import DDIMScheduler, DDPMScheduler

    ours = LinearBeta()
    x = unit(8, dtype=torch.float32)
    grid = torch.stack([ours.table[t + 1], ours.table[t - 20 + 1]])
    options = {"beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    start = x / grid[0, 1].item()  # the sampler scales its first state by sigma
    eps = torch.tanh(1.7 * x)

    theirs = DDIMScheduler(1000, **options)
    theirs.set_timesteps(50)
    expected = theirs.step(eps, t, x, eta=0.0).prev_sample
    torch.testing.assert_close(last(ddim(nonlinear, start, grid)).x, expected, rtol=3e-6, atol=3e-6)

    theirs = DDPMScheduler(1000, variance_type="fixed_small", **options)
    theirs.set_timesteps(50)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    expected = theirs.step(eps, t, x, generator=torch.Generator().manual_seed(5)).prev_sample
    got = last(ddpm(nonlinear, start, grid, fresh=lambda i: noise)).x
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)


def test_dpmpp_2m_equals_diffusers_over_its_own_sigmas() -> None:
    import_torchvision()
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler(
        1000, beta_start=1e-4, beta_end=0.02, final_sigmas_type="zero"
    )
    theirs.set_timesteps(20)
    ratio = theirs.sigmas.double()
    grid = torch.stack([1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt()], 1)
    x = unit(8, dtype=torch.float32) * grid[0, 1].item()
    got = last(dpmpp_2m(nonlinear, x / grid[0, 1].item(), grid)).x
    for t in theirs.timesteps:
        x = theirs.step(torch.tanh(1.7 * x), t, x).prev_sample
    torch.testing.assert_close(got, x, rtol=2e-4, atol=2e-4)


# -- the contract ------------------------------------------------------------------------------


def counting(denoise: Denoise) -> tuple[Denoise, list[float]]:
    seen: list[float] = []

    def counted(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
        seen.append(sigma)
        return denoise(x, alpha, sigma, label)

    return counted, seen


@pytest.mark.parametrize(
    ("sampler", "calls"), [("ddim", 9), ("ddpm", 9), ("dpmpp_2m", 9), ("heun", 17)]
)
def test_states_and_calls(sampler: str, calls: int) -> None:
    grid, noise = Cosine().grid(9), unit()
    denoise, seen = counting(gaussian)
    states = list(SAMPLERS[sampler](denoise, noise, grid))
    assert [state.i for state in states] == list(range(10))
    assert states[0].x0 is None and torch.equal(states[0].x, noise * grid[0, 1].item())
    assert len(seen) == calls and min(seen) > 0  # never asked about a clean image
    first = gaussian(states[0].x, *grid[0].tolist()).x0
    torch.testing.assert_close(states[1].x0, first)


def test_ddpm_adds_no_noise_on_the_last_step() -> None:
    made: list[int] = []

    def fresh(i: int) -> Tensor:
        made.append(i)
        return unit(seed=i)

    list(ddpm(gaussian, unit(), LinearBeta().grid(6), fresh=fresh))
    assert made == [1, 2, 3, 4, 5]
    made.clear()
    list(ddim(gaussian, unit(), LinearBeta().grid(6), fresh=fresh))
    assert made == []


def test_images_depend_on_their_own_noise_only() -> None:
    fresh = {i: unit(8, seed=i) for i in range(1, 6)}
    grid = LinearBeta().grid(5)
    batch = last(ddpm(gaussian, unit(8), grid, fresh=fresh.__getitem__)).x
    alone = last(ddpm(gaussian, unit(8)[3:4], grid, fresh=lambda i: fresh[i][3:4])).x
    torch.testing.assert_close(batch[3:4], alone, rtol=0, atol=1e-14)


def test_ddim_with_eta_one_is_ddpm_and_the_variance_is_the_posterior_s() -> None:
    grid = LinearBeta(1000).grid(1000)
    fresh = {i: unit(seed=i) for i in range(1, 4)}
    a = list(ddim(gaussian, unit(), grid[:4], eta=1.0, fresh=fresh.__getitem__))
    b = list(ddpm(gaussian, unit(), grid[:4], fresh=fresh.__getitem__))
    assert all(torch.equal(s.x, r.x) for s, r in zip(a, b, strict=True))
    schedule = LinearBeta()
    step = last(ddpm(gaussian, unit(), grid[:2], fresh=lambda i: torch.ones_like(unit())))
    mean = last(ddpm(gaussian, unit(), grid[:2], fresh=lambda i: torch.zeros_like(unit())))
    beta, bar = schedule.betas[-1], schedule.alpha_bar
    posterior = beta * (1 - bar[-2]) / (1 - bar[-1])  # Ho et al. 2020, eq. 7
    torch.testing.assert_close((step.x - mean.x)[0, 0, 0, 0] ** 2, posterior, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_after_is_applied_at_the_new_level(sampler: str) -> None:
    levels: list[tuple[float, float]] = []

    def after(x: Tensor, alpha: float, sigma: float) -> Tensor:
        levels.append((alpha, sigma))
        return torch.full_like(x, 0.25) if sigma == 0 else x

    grid = Cosine().grid(5)
    x = last(SAMPLERS[sampler](gaussian, unit(), grid, after=after)).x
    assert levels == [tuple(row) for row in grid[1:].tolist()]
    assert (x == 0.25).all()  # known pixels are exact at the end


def test_a_sampler_does_not_leak_no_grad_to_its_consumer() -> None:
    states = ddim(gaussian, unit(), Cosine().grid(3))
    next(states)
    assert torch.is_grad_enabled()


def test_guidance() -> None:
    def labelled(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
        label = torch.as_tensor(-1 if label is None else label).expand(len(x))
        shift = torch.where(label == -1, 0.0, 1.0 + label)[:, None, None, None]
        x0 = torch.zeros_like(x) + shift
        a, s = (torch.as_tensor(v).reshape(-1, 1, 1, 1) for v in (alpha, sigma))
        return Prediction(x0, (x - a * x0) / s)

    x = unit(4)
    for weight, expected in [(0.0, 0.0), (1.0, 3.0), (2.5, 7.5)]:
        got = guided(labelled, weight)(x, 0.6, 0.8, 2)
        torch.testing.assert_close(got.x0, torch.full_like(x, expected))
        torch.testing.assert_close(0.6 * got.x0 + 0.8 * got.eps, x)  # still an exact split of x
    with pytest.raises(ValueError, match="label"):
        guided(labelled, 2.0)(x, 0.6, 0.8)


def test_sample_for_people_in_a_hurry() -> None:
    model = Denoiser(UNet(1, width=8, mults=(1,), attention=(False,), blocks=1))
    model.info = {"shape": [1, 8, 8], "schedule": Cosine().spec}
    a, b = sample(model, 3, steps=4, seed=1), sample(model, 3, steps=4, seed=1)
    assert a.shape == (3, 1, 8, 8) and torch.equal(a, b) and a.abs().max() <= 1
    assert not torch.equal(a, sample(model, 3, steps=4, seed=2))
    with pytest.raises(ValueError, match=r"ddim, ddpm, dpmpp_2m, heun"):
        sample(model, 3, sampler="euler")
    with pytest.raises(ValueError, match="at most 1000"):
        sample(model, 3, steps=1001)
    with pytest.raises(ValueError, match="at least 1"):
        sample(model, 0)
    model.info = {"shape": [1, 8, 8]}
    with pytest.raises(ValueError, match="lacks schedule"):
        sample(model, 3)
    with pytest.raises(ValueError, match="nothing"):
        last(iter(()))
