"""Checks of the numbered equations of chapter 5, each shown to fail on a planted error."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_lite import samplers
from ddpm_lite.diffusion import Prediction, diffuse
from ddpm_lite.exact import GaussianMixture
from ddpm_lite.schedules import log_snr_grid

GRID = torch.tensor([[0.28, 0.96], [0.6, 0.8], [0.8, 0.6]], dtype=torch.float64)
MIXTURE = GaussianMixture([[-1.0], [0.6]], [0.04, 0.16], [0.4, 0.6])


def unit(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)


def one_step(sampler: str, x: Tensor, **options: object) -> Tensor:
    """The sampler's state after the first step of GRID, started at x."""
    states = samplers.SAMPLERS[sampler](MIXTURE, x / GRID[0, 1], GRID[:2], **options)
    return samplers.last(states).x


# ---- DDIM: the same two unknowns at the next level


def test_eq_ddim_step() -> None:
    (a, s), (a_next, s_next) = GRID[:2].tolist()
    x0, noise = unit(8, 1), unit(8, 2)

    def told(x: Tensor, *_: object) -> Prediction:  # a denoiser that knows what is behind x
        return Prediction(x0, noise)

    start = diffuse(x0, a, s, noise)
    (_, after) = samplers.ddim(told, start / s, GRID[:2])
    assert torch.allclose(after.x, diffuse(x0, a_next, s_next, noise), atol=1e-12)
    assert torch.allclose(after.x, a_next * x0 + s_next * noise, atol=1e-12)
    planted = a_next * x0 + s * noise  # the old noise level kept
    assert not torch.allclose(after.x, planted, atol=1e-3)


# ---- ancestral sampling: how much of the noise is drawn anew


def posterior_variance(a: float, s: float, a_next: float, s_next: float) -> float:
    return s_next**2 - (a / a_next * s_next**2 / s) ** 2


def test_eq_posterior_noise() -> None:
    (a, s), (a_next, s_next) = GRID[:2].tolist()
    # given x0: x_next = s_next·e1, x = (a/a_next)·s_next·e1 + rest·e2, a Markov chain
    c = a / a_next
    mix = torch.tensor([[s_next, 0.0], [c * s_next, math.sqrt(s**2 - (c * s_next) ** 2)]])
    cov = mix.double() @ mix.double().T
    schur = cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]
    assert abs(schur - posterior_variance(a, s, a_next, s_next)) < 1e-6
    planted = s_next**2 - (a / a_next * s_next / s) ** 2  # s_next not squared
    assert abs(schur - planted) > 1e-2


def test_eq_posterior_noise__is_what_ddpm_adds() -> None:
    x = unit(8)
    quiet = one_step("ddpm", x, fresh=lambda i: torch.zeros_like(x))
    loud = one_step("ddpm", x, fresh=lambda i: torch.ones_like(x))
    (a, s), (a_next, s_next) = GRID[:2].tolist()
    v = posterior_variance(a, s, a_next, s_next)
    assert torch.allclose(loud - quiet, torch.full_like(x, v**0.5), atol=1e-12)
    x0, eps = MIXTURE(x, a, s)
    assert torch.allclose(quiet, a_next * x0 + (s_next**2 - v) ** 0.5 * eps, atol=1e-12)


# ---- the flow that DDIM follows


def gaussian_flow(alpha: Tensor, sigma: Tensor, spread: float) -> Tensor:
    """Where a pixel of N(0, spread²) is carried: its quantile is kept."""
    return (alpha**2 * spread**2 + sigma**2).sqrt()


def test_eq_flow() -> None:
    spread = 0.5
    exact = GaussianMixture([[0.0]], spread**2)
    angle = torch.linspace(1.5, 0.1, 15, dtype=torch.float64, requires_grad=True)
    alpha, sigma = angle.cos(), angle.sin()
    x = gaussian_flow(alpha, sigma, spread)
    (speed,) = torch.autograd.grad(x.sum(), angle)
    at = x.detach().view(-1, 1, 1, 1)
    x0, eps = (p.flatten() for p in exact(at, alpha.detach(), sigma.detach()))
    d_alpha, d_sigma = -angle.sin(), angle.cos()
    assert torch.allclose(speed, x0 * d_alpha + eps * d_sigma, atol=1e-12)
    assert not torch.allclose(speed, x0 * d_alpha - eps * d_sigma, atol=1e-2)  # a planted sign


# ---- Heun: the mean of the slopes at both ends


def test_eq_heun() -> None:
    (a, s), (a_next, s_next) = GRID[:2].tolist()
    x = unit(8)
    here = MIXTURE(x, a, s)
    there = MIXTURE(a_next * here.x0 + s_next * here.eps, a_next, s_next)
    mean_x0, mean_eps = (here.x0 + there.x0) / 2, (here.eps + there.eps) / 2
    formula = x + (a_next - a) * mean_x0 + (s_next - s) * mean_eps
    assert torch.allclose(one_step("heun", x), formula, atol=1e-12)
    planted = x + (a_next - a) * mean_x0 + (s_next - s) * here.eps  # eps of one end only
    assert not torch.allclose(one_step("heun", x), planted, atol=1e-4)


# ---- the step as an exact integral over the signal-to-noise ratio


def test_eq_exact_step() -> None:
    grid = log_snr_grid(400, 1.0, -1.0)
    states = list(samplers.heun(MIXTURE, unit(8) / grid[0, 1], grid))
    ratio = grid[:, 0] / grid[:, 1]
    x0 = torch.stack([MIXTURE(s.x, *row).x0 for s, row in zip(states, grid, strict=True)])
    integral = torch.trapezoid(x0, ratio, dim=0)
    moved = states[-1].x / grid[-1, 1] - states[0].x / grid[0, 1]
    assert torch.allclose(moved, integral, atol=1e-4)
    planted = torch.trapezoid(x0, grid[:, 0], dim=0)  # over alpha, not over alpha/sigma
    assert not torch.allclose(moved, planted, atol=1e-2)


# ---- DPM-Solver++(2M): x0 extrapolated to the middle of the step


def two_m(grid: Tensor, x: Tensor, sign: float = 1.0) -> Tensor:
    """The formula of the page, step by step; sign = -1 plants an error."""
    log_ratio = grid[:, 0].log() - grid[:, 1].log()
    before: Tensor | None = None
    for i, ((a, s), (a_next, s_next)) in enumerate(pairwise(grid.tolist())):
        x0 = MIXTURE(x, a, s).x0
        middle = x0
        if before is not None:
            last, step = log_ratio[i] - log_ratio[i - 1], log_ratio[i + 1] - log_ratio[i]
            middle = x0 + sign * step / (2 * last) * (x0 - before)
        x = s_next / s * x + (a_next - a * s_next / s) * middle
        before = x0
    return x


def test_eq_two_m() -> None:
    grid = log_snr_grid(20, 4.0, -4.0)
    noise = unit(8)
    ours = samplers.last(samplers.dpmpp_2m(MIXTURE, noise, grid)).x
    assert torch.allclose(ours, two_m(grid, noise * grid[0, 1]), atol=1e-12)
    assert not torch.allclose(ours, two_m(grid, noise * grid[0, 1], sign=-1.0), atol=1e-3)


def test_eq_two_m__second_order() -> None:
    noise = unit(50)

    def error(n: int, sign: float) -> float:
        grid, fine = log_snr_grid(n, 4.0, -4.0), log_snr_grid(400, 4.0, -4.0)
        truth = samplers.last(samplers.heun(MIXTURE, noise, fine)).x
        off = two_m(grid, noise * grid[0, 1], sign) - truth
        return float(off.square().mean().sqrt())

    assert 3.5 < error(40, 1.0) / error(80, 1.0) < 4.6
    assert error(40, -1.0) / error(80, -1.0) < 2.6  # with the wrong sign it is first order


# ---- a unit Gaussian pixel under n DDIM steps


def test_eq_unit_pixel() -> None:
    pixel = GaussianMixture([[0.0]], 1.0)
    for n in (1, 2, 5, 40):
        angle = torch.linspace(math.pi / 2, 0, n + 1, dtype=torch.float64)
        grid = torch.stack([angle.cos(), angle.sin()], 1)
        left = samplers.last(samplers.ddim(pixel, torch.ones(1, 1, 1, 1).double(), grid)).x.item()
        assert abs(left - math.cos(math.pi / (2 * n)) ** n) < 1e-12
        if n > 2:
            assert abs(left - math.cos(math.pi / n) ** n) > 1e-2  # a planted factor of 2
            assert abs(left - (1 - math.pi**2 / (8 * n))) < 1 / n**2  # first order in 1/n


# ---- the price of a chain: total correlation of the new given the old


def kl(p: Tensor, q: Tensor) -> float:
    return float((p * (p.log() - q.log())).sum())


def alone(joint: Tensor) -> Tensor:
    """[..., 2, 2] two bits -> the product of their marginals, of the same shape."""
    return joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)


def test_eq_steps_price() -> None:
    """Two bits at each of three levels, all 64 chains enumerated."""
    generator = torch.Generator().manual_seed(0)

    def table(*shape: int) -> Tensor:
        p = torch.rand(*shape, generator=generator).double() + 0.05
        return p / p.sum((-2, -1), keepdim=True)

    top, middle, bottom = table(2, 2), table(2, 2, 2, 2), table(2, 2, 2, 2)  # [old, old, new, new]
    joint = torch.einsum("ab,abcd,cdef->abcdef", top, middle, bottom)
    model = torch.einsum("ab,abcd,cdef->abcdef", top, alone(middle), alone(bottom))
    at_middle = joint.sum((0, 1, 4, 5))

    def price(p_old: Tensor, step: Tensor) -> float:
        """E TC(new | old)."""
        return float((p_old[..., None, None] * step * (step / alone(step)).log()).sum())

    prices = price(top, middle) + price(at_middle, bottom)
    assert abs(kl(joint, model) - prices) < 1e-12
    # the generated pixels themselves are never further off than the whole chain
    assert 0 < kl(joint.sum((0, 1, 2, 3)), model.sum((0, 1, 2, 3))) <= prices
    blind = kl(at_middle, alone(at_middle)) + price(at_middle, bottom)
    assert abs(kl(joint, model) - blind) > 1e-3  # planted: the old state forgotten in one step
