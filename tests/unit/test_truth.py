"""Where the truth is known: solvers on an exact mixture, the bound on enumerable pixels."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm_lite.diffusion import Denoise, Prediction, elbo
from ddpm_lite.exact import GaussianMixture, Table
from ddpm_lite.samplers import State, ddim, dpmpp_2m, heun, last
from ddpm_lite.schedules import Sigmoid, log_snr_grid

MIXTURE = GaussianMixture(
    means=torch.tensor([[-0.7], [0.1], [0.8]]),
    covs=torch.tensor([0.02, 0.05, 0.03]),
    weights=torch.tensor([0.3, 0.3, 0.4]),
)


def errors(
    sampler: Callable[..., Iterator[State]], grid_of: Callable[[int], Tensor]
) -> list[float]:
    """Largest error at n = 20, 40, 80, 160 steps against Heun with 5,120."""
    noise = torch.linspace(-2, 2, 33, dtype=torch.float64).view(-1, 1, 1, 1)
    fine = last(heun(MIXTURE.denoise, noise, grid_of(5120))).x
    return [
        (last(sampler(MIXTURE.denoise, noise, grid_of(n))).x - fine).abs().max().item()
        for n in (20, 40, 80, 160)
    ]


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
def test_orders_on_the_exact_mixture(sampler: Callable[..., Iterator[State]], order: int) -> None:
    found = errors(sampler, lambda n: log_snr_grid(n, 8.0, -8.0))
    slopes = [math.log2(a / b) for a, b in pairwise(found)]
    assert abs(slopes[-1] - order) < 0.3, (slopes, found)


@pytest.mark.parametrize("sampler", [heun, dpmpp_2m])
def test_the_ends_of_a_full_grid_spoil_the_order(sampler: Callable[..., Iterator[State]]) -> None:
    # second order needs steps that shrink everywhere; the sigmoid schedule's last ones do not
    found = errors(sampler, lambda n: Sigmoid(5120).grid(n))
    assert math.log2(found[-2] / found[-1]) < 1.3


LEVELS = 17


def pixel() -> Table:
    """One pixel of 17 levels with a law that has no symmetry."""
    p = torch.tensor([1.0 + (k % 5) + 3 * (k == 0) + 2 * (k == 11) for k in range(LEVELS)])
    return Table(p.double() / p.sum(), (1, 1, 1), LEVELS)


def bound_above_entropy(denoise: Denoise, n: int, copies: int = 400) -> float:
    """ELBO minus entropy in bits/dim: exact over the pixel, ``copies`` noise draws a level."""
    table = pixel()
    x, weights = table.images().repeat(copies, 1, 1, 1), table.p.repeat(copies) / copies
    torch.set_default_dtype(torch.float64)
    try:
        total = elbo(denoise, x, log_snr_grid(n, 10.0, -10.0), LEVELS).total
    finally:
        torch.set_default_dtype(torch.float32)
    return (weights * total).sum().item() - table.entropy() / math.log(2)


def test_the_bound_lies_above_the_entropy_and_closes_as_one_over_n() -> None:
    exact = pixel().denoiser()
    gaps = [bound_above_entropy(exact, n) for n in (50, 100, 200, 400)]
    assert min(gaps) > 0
    assert all(a / b == pytest.approx(2, rel=0.15) for a, b in pairwise(gaps)), gaps


def test_a_wrong_denoiser_pays() -> None:
    exact = pixel().denoiser()

    def off(x: Tensor, alpha: float, sigma: float, label: object = None) -> Prediction:
        x0 = 0.9 * exact(x, alpha, sigma).x0
        return Prediction(x0, (x - alpha * x0) / sigma)

    assert bound_above_entropy(off, 100) > bound_above_entropy(exact, 100) + 0.05
