"""Checks of the equations of chapter 3, each shown to fail on a planted error."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm_lite.exact import GaussianMixture, Table
from ddpm_lite.schedules import Cosine, LinearBeta, log_snr_grid

Level = tuple[float, float]  # (alpha, sigma)

CENTRES, SPREADS, SHARES = [-0.6, 0.5], [0.02, 0.03], [0.45, 0.55]
HUMPS = GaussianMixture([[c] for c in CENTRES], SPREADS, SHARES)
VALUES = torch.linspace(-1, 1, 5, dtype=torch.float64)
PIXEL = Table([0.1, 0.3, 0.05, 0.35, 0.2], (1, 1, 1), levels=5)
BEST = PIXEL.denoiser()
DRAWS = torch.linspace(-7, 7, 141, dtype=torch.float64)
CHANCE = (-(DRAWS**2) / 2).softmax(0)  # a grid of draws of eps, and how likely each is


def fails_on(check: Callable[..., None], *planted: Callable[..., object]) -> None:
    for wrong in planted:
        with pytest.raises(AssertionError):
            check(wrong)


def line(x: Tensor) -> Tensor:
    """Numbers as images of one pixel."""
    return x.reshape(-1, 1, 1, 1)


def snr(level: Level) -> float:
    return (level[0] / level[1]) ** 2


def log_normal(x: Tensor, mean: Tensor | float, variance: float) -> Tensor:
    return -((x - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


def posterior(t: Level, s: Level) -> tuple[float, float, float]:
    """q(x_s | x_t, x_0) = N(keep x_t + gain x_0, variance)."""
    shrink = t[0] / s[0]
    added = t[1] ** 2 - shrink**2 * s[1] ** 2
    return shrink * (s[1] / t[1]) ** 2, s[0] * added / t[1] ** 2, added * (s[1] / t[1]) ** 2


# -- x_t in one jump ------------------------------------------------------------------------------


def check_one_jump(jump: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    for schedule in (LinearBeta(100, 1e-4, 0.05), Cosine(50)):
        mean, variance = 1.0, 0.0
        for k, beta in enumerate(schedule.betas.tolist(), 1):
            mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
            factor, spread = jump((1 - schedule.betas[:k]).prod())
            assert math.isclose(factor, mean, rel_tol=1e-9)
            assert math.isclose(spread, variance, rel_tol=1e-9)


def test_eq_one_jump() -> None:
    check_one_jump(lambda bar: (bar.sqrt(), 1 - bar))
    fails_on(check_one_jump, lambda bar: (bar, 1 - bar), lambda bar: (bar.sqrt(), (1 - bar).sqrt()))


def test_eq_one_jump__is_the_table_of_the_package() -> None:
    schedule = LinearBeta(100, 1e-4, 0.05)
    bar = (1 - schedule.betas).cumprod(0)
    assert torch.allclose(schedule.table[1:, 0], bar.sqrt(), rtol=1e-12)
    assert torch.allclose(schedule.table[1:, 1] ** 2, 1 - bar, rtol=1e-9)


# -- each frequency has its own signal-to-noise ratio ---------------------------------------------


def check_band_snr(ratio: Callable[[Tensor, float, float], Tensor]) -> None:
    """Exactly, from covariances: signal and noise in the Fourier basis of 4 x 4 images."""
    place = torch.cartesian_prod(torch.arange(4), torch.arange(4)).double()
    near = torch.exp(-torch.cdist(place, place))  # a covariance with a falling spectrum
    waves = torch.fft.fft2(torch.eye(16).view(16, 4, 4).double(), norm="ortho").view(16, 16)
    power = torch.einsum("if,ij,jf->f", waves.conj(), near.to(waves.dtype), waves).real
    alpha, sigma = 0.8, 0.6
    signal = alpha**2 * power
    both = alpha**2 * near + sigma**2 * torch.eye(16)
    total = torch.einsum("if,ij,jf->f", waves.conj(), both.to(waves.dtype), waves).real
    assert torch.allclose(signal / (total - signal), ratio(power, alpha, sigma))


def test_eq_band_snr() -> None:
    check_band_snr(lambda power, a, s: power * a**2 / s**2)
    fails_on(
        check_band_snr,
        lambda power, a, s: power * a / s,
        lambda power, a, s: power * 0 + a**2 / s**2,
    )


# -- what a Gaussian answers: a blur --------------------------------------------------------------


def check_wiener(formula: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> None:
    """Images on a ring whose covariance depends on distance alone, against the whole posterior."""
    place = torch.arange(12)
    apart = torch.minimum((place[:, None] - place) % 12, (place - place[:, None]) % 12).double()
    near = torch.exp(-apart / 2)  # [12, 12], circulant: independent in the Fourier basis
    power = torch.fft.fft(near[0]).real  # [12]
    mixture = GaussianMixture(torch.zeros(1, 12), near[None])
    x_t = torch.randn(1, 1, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    waves = torch.fft.fft(torch.eye(12, dtype=torch.complex128), norm="ortho")
    for alpha, sigma in ((0.8, 0.6), (0.1, 0.99), (1.0, 3.0)):
        mean, variance = formula(torch.fft.fft(x_t), power * alpha**2 / sigma**2, alpha)
        expected = mixture.denoise(x_t, alpha, sigma).x0
        assert torch.allclose(torch.fft.ifft(mean).real, expected, atol=1e-10)
        cov = torch.linalg.inv(torch.linalg.inv(near) + alpha**2 / sigma**2 * torch.eye(12))
        spread = (waves.conj() @ cov.to(waves.dtype) @ waves).diagonal().real
        assert torch.allclose(variance * power, spread, atol=1e-10)


def test_eq_wiener() -> None:
    check_wiener(lambda x, snr, a: (snr / (1 + snr) * x / a, 1 / (1 + snr)))
    fails_on(
        check_wiener,
        lambda x, snr, a: (snr / (1 + snr) * x, 1 / (1 + snr)),
        lambda x, snr, a: (x / (1 + snr) / a, 1 / (1 + snr)),
        lambda x, snr, a: (snr / (1 + snr) * x / a, snr / (1 + snr)),
    )


# -- one step back, x_0 known ---------------------------------------------------------------------


def check_posterior(formula: Callable[[Level, Level], tuple[float, float, float]]) -> None:
    """Bayes' rule on a grid of x_s."""
    schedule = LinearBeta()
    for before, after in ((0.30, 0.35), (0.05, 0.9)):
        s, t = ((a.item(), b.item()) for a, b in (schedule(before), schedule(after)))
        x0, x_t, x_s = 0.8, -0.4, torch.linspace(-6, 6, 24_001, dtype=torch.float64)
        shrink = t[0] / s[0]
        forward = log_normal(x_t - shrink * x_s, 0.0, t[1] ** 2 - shrink**2 * s[1] ** 2)
        q = (log_normal(x_s, s[0] * x0, s[1] ** 2) + forward).softmax(0)
        mean = (q * x_s).sum().item()
        variance = (q * (x_s - mean) ** 2).sum().item()
        keep, gain, tilde = formula(t, s)
        assert math.isclose(keep * x_t + gain * x0, mean, abs_tol=1e-8)
        assert math.isclose(tilde, variance, abs_tol=1e-8)


def test_eq_posterior() -> None:
    def beta_for_tilde(t: Level, s: Level) -> tuple[float, float, float]:
        keep, gain, _ = posterior(t, s)
        return keep, gain, t[1] ** 2 - (t[0] / s[0] * s[1]) ** 2

    def swapped(t: Level, s: Level) -> tuple[float, float, float]:
        keep, gain, tilde = posterior(t, s)
        return gain, keep, tilde

    check_posterior(posterior)
    fails_on(check_posterior, beta_for_tilde, swapped)


# -- score, expected image, expected noise --------------------------------------------------------


def check_tweedie(expected: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """The gradient by autograd, the posterior mean from the mixture's own formula."""
    mixture = GaussianMixture([[-1.0, 0.3], [0.6, -0.4], [0.2, 0.9]], [0.05, 0.1, 0.02])
    x = torch.randn(50, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    for alpha, sigma in ((0.9, 0.4), (0.3, 0.95), (1.0, 3.0)):
        (score,) = torch.autograd.grad(mixture.log_prob(x, alpha, sigma).sum(), x)
        known = mixture.denoise(x, alpha, sigma)
        assert torch.allclose(expected(x, score, alpha, sigma), known.x0, atol=1e-10)
        assert torch.allclose(-sigma * score, known.eps, atol=1e-10)


def test_eq_tweedie() -> None:
    check_tweedie(lambda x, score, a, s: (x + s**2 * score) / a)
    fails_on(
        check_tweedie,
        lambda x, score, a, s: (x - s**2 * score) / a,
        lambda x, score, a, s: (x + s * score) / a,
        lambda x, score, a, s: x + s**2 * score,
    )


# -- one term of the bound, and the bound ---------------------------------------------------------


def check_elbo_term(term: Callable[[Level, Level, float], float]) -> None:
    """Against the divergence of the two Gaussians of a reverse step."""
    rows = [(a, s) for a, s in log_snr_grid(6, 5, -5).tolist()]
    for t, s in pairwise(rows):
        keep, gain, tilde = posterior(t, s)
        x_t, x0, guess = 0.3, 0.8, -0.1
        true, model = (
            torch.distributions.Normal(
                torch.tensor(keep * x_t + gain * v, dtype=torch.float64), tilde**0.5
            )
            for v in (x0, guess)
        )
        kl = torch.distributions.kl_divergence(true, model).item()
        assert math.isclose(term(t, s, (x0 - guess) ** 2), kl, rel_tol=1e-9)


def test_eq_elbo_term() -> None:
    check_elbo_term(lambda t, s, error: 0.5 * (snr(s) - snr(t)) * error)
    fails_on(
        check_elbo_term,
        lambda t, s, error: (snr(s) - snr(t)) * error,
        lambda t, s, error: 0.5 * (snr(t) - snr(s)) * error,
    )


@cache
def mmse(t: Level) -> float:
    """Least expected squared error at a level, by quadrature over the draws."""
    x = t[0] * VALUES[:, None] + t[1] * DRAWS  # [5, 141]
    x0 = BEST(line(x), *t).x0.view_as(x)
    return (PIXEL.p[:, None] * CHANCE * (x0 - VALUES[:, None]) ** 2).sum().item()


def decoder(x: Tensor, t: Level) -> Tensor:
    """log p(level | x_1) [..., 5] by distance alone."""
    return log_normal(x[..., None], t[0] * VALUES, t[1] ** 2).log_softmax(-1)


def bound(rows: list[Level], factor: float = 0.5, prior: bool = True) -> float:
    """The mean of prior, step and decoding terms over the data, nats."""
    total = sum(factor * (snr(s) - snr(t)) * mmse(t) for t, s in pairwise(rows))
    if prior:
        total += 0.5 * snr(rows[0]) * (PIXEL.p * VALUES**2).sum().item()
    x = rows[-1][0] * VALUES[:, None] + rows[-1][1] * DRAWS  # [5, 141]
    paid = -decoder(x, rows[-1]).diagonal(dim1=0, dim2=2).T  # [5, 141]
    return total + (PIXEL.p[:, None] * CHANCE * paid).sum().item()


@cache
def cost_of_the_model(rows: tuple[Level, ...]) -> float:
    """E -log p(x) of the chain itself, its densities carried along a grid of x. Nats."""
    x = torch.linspace(-6, 6, 601, dtype=torch.float64)
    dx = (x[1] - x[0]).item()
    density = log_normal(x, 0.0, rows[0][1] ** 2).exp()
    for t, s in pairwise(rows):
        keep, gain, tilde = posterior(t, s)
        mean = keep * x + gain * BEST(line(x), *t).x0.flatten()
        density = log_normal(x[:, None], mean, tilde).exp() @ density * dx
    assert math.isclose(density.sum() * dx, 1, abs_tol=1e-6)
    p = (decoder(x, rows[-1]).exp() * density[:, None]).sum(0) * dx  # [5]
    return -(PIXEL.p * p.log()).sum().item()


def check_elbo(total: Callable[[list[Level]], float]) -> None:
    for n in (3, 16):
        rows = [(a, s) for a, s in log_snr_grid(n, 4, -4).tolist()]
        model = cost_of_the_model(tuple(rows))
        assert PIXEL.entropy() <= model <= total(rows)
    assert total(rows) < 1.3 * model  # a bound, and no idle one


def test_eq_elbo() -> None:
    check_elbo(bound)
    fails_on(
        check_elbo,
        lambda rows: bound(rows, factor=0.25),
        lambda rows: bound(rows, factor=1.0),
        lambda rows: bound(rows, factor=-0.5),
    )


# -- information and least squares ----------------------------------------------------------------


def check_immse(entropy: Callable[[Tensor, Tensor], float]) -> None:
    log_snr = torch.linspace(-14, 9, 231, dtype=torch.float64)
    error = torch.tensor([mmse((v, 1.0)) for v in (log_snr / 2).exp().tolist()]).double()
    assert math.isclose(entropy(log_snr.exp(), error), PIXEL.entropy(), rel_tol=1e-3)


def test_eq_immse() -> None:
    def integral(ratio: Tensor, error: Tensor) -> float:  # over log-SNR: dSNR = SNR dλ
        return torch.trapezoid(error * ratio, ratio.log()).item()

    check_immse(lambda ratio, error: 0.5 * integral(ratio, error))
    fails_on(check_immse, integral, lambda r, e: 0.5 * torch.trapezoid(e, r.log()).item())


def test_eq_immse__its_derivative() -> None:
    """dI/dSNR = mmse/2, the information by enumeration of x_0 and quadrature over x_t."""

    def information(ratio: float) -> float:
        x = ratio**0.5 * VALUES[:, None] + DRAWS  # [5, 141]
        log_joint = log_normal(x[..., None], ratio**0.5 * VALUES, 1.0) + PIXEL.p.log()
        log_given = log_normal(DRAWS, 0.0, 1.0)
        return (PIXEL.p[:, None] * CHANCE * (log_given - log_joint.logsumexp(-1))).sum().item()

    for ratio in (0.3, 2.0, 15.0):
        slope = (information(ratio + 1e-4) - information(ratio - 1e-4)) / 2e-4
        assert math.isclose(slope, 0.5 * mmse((ratio**0.5, 1.0)), rel_tol=1e-5)


def check_elbo_gap(law: Callable[[float, float], float]) -> None:
    hi, lo, n = 8.0, -10.0, 300
    rows = [(a, s) for a, s in log_snr_grid(n, hi, lo).tolist()]
    gap = bound(rows, prior=False) - PIXEL.entropy()  # the prior term is another price
    assert math.isclose(gap, law((hi - lo) / n, PIXEL.entropy()), rel_tol=0.03)


def test_eq_elbo_gap() -> None:
    check_elbo_gap(lambda step, entropy: 0.5 * step * entropy)
    fails_on(check_elbo_gap, lambda step, entropy: step * entropy)
    fails_on(check_elbo_gap, lambda step, entropy: 0.5 * step**2 * entropy)


# -- the probability-flow ODE ---------------------------------------------------------------------


def cdf(x: Tensor, alpha: float, sigma: float) -> Tensor:
    parts = zip(CENTRES, SPREADS, SHARES, strict=True)
    return sum(
        share * torch.special.ndtr((x - alpha * centre) / (alpha**2 * spread + sigma**2) ** 0.5)
        for centre, spread, share in parts
    )


def check_probability_flow(speed: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """Along the ODE every point keeps its rank: F_t(x_t) stays what it was."""
    angles = torch.linspace(1.5, 0.1, 101, dtype=torch.float64).tolist()  # VP: cos, sin

    def slope(x: Tensor, angle: float) -> Tensor:
        x0, eps = HUMPS.denoise(line(x), math.cos(angle), math.sin(angle))
        return speed(x0.flatten(), eps.flatten(), -math.sin(angle), math.cos(angle))

    x = torch.linspace(-1.5, 1.5, 21, dtype=torch.float64)
    start = cdf(x, math.cos(angles[0]), math.sin(angles[0]))
    for a, b in pairwise(angles):
        h, middle = b - a, (a + b) / 2
        k1 = slope(x, a)
        k2 = slope(x + h / 2 * k1, middle)
        k3 = slope(x + h / 2 * k2, middle)
        k4 = slope(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    end = cdf(x, math.cos(angles[-1]), math.sin(angles[-1]))
    assert torch.allclose(start, end, atol=1e-6)


def test_eq_probability_flow() -> None:
    check_probability_flow(lambda x0, eps, d_alpha, d_sigma: x0 * d_alpha + eps * d_sigma)
    fails_on(
        check_probability_flow,
        lambda x0, eps, d_alpha, d_sigma: x0 * d_alpha + 2 * eps * d_sigma,
        lambda x0, eps, d_alpha, d_sigma: x0 * d_alpha - eps * d_sigma,
    )


# -- the density that the flow carries along ------------------------------------------------------


def check_flow_density(at_data: Callable[[Tensor, Tensor], Tensor]) -> None:
    """log q at the data's end from log q at the noise's, and the divergence summed on the way."""
    angles = torch.linspace(0.1, 1.5, 401, dtype=torch.float64)  # VP: cos, sin; towards noise
    x = torch.linspace(-1.2, 1.2, 15, dtype=torch.float64)
    start, divergence, h = x.clone(), torch.zeros_like(x), (angles[1] - angles[0]).item()

    def speed(x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        x0, eps = HUMPS.denoise(line(x), math.cos(angle), math.sin(angle))
        v = (math.cos(angle) * eps - math.sin(angle) * x0).flatten()
        (slope,) = torch.autograd.grad(v.sum(), x)
        return v.detach(), slope

    for angle in angles[:-1].tolist():  # the midpoint rule
        v, _ = speed(x, angle)
        v, slope = speed(x + h / 2 * v, angle + h / 2)
        x, divergence = x + h * v, divergence + h * slope
    ends = [(math.cos(angle), math.sin(angle)) for angle in (0.1, 1.5)]
    truth, noisy = (
        HUMPS.log_prob(line(y), *level) for y, level in zip((start, x), ends, strict=True)
    )
    assert torch.allclose(at_data(noisy, divergence), truth, atol=1e-3)


def test_eq_flow_density() -> None:
    check_flow_density(lambda log_q, divergence: log_q + divergence)
    fails_on(
        check_flow_density,
        lambda log_q, divergence: log_q - divergence,
        lambda log_q, divergence: log_q,
        lambda log_q, divergence: log_q + 0.5 * divergence,
    )
