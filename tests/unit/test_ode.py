"""The probability flow's likelihood, where the truth is known: densities, masses, and the trace."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lite.diffusion import (
    Denoiser,
    Prediction,
    density_bits,
    dequantise,
    ode_bits,
    ode_encode,
    ode_log_likelihood,
)
from ddpm_lite.exact import GaussianMixture, KernelDenoiser
from ddpm_lite.samplers import heun, last
from ddpm_lite.schedules import (
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    Schedule,
    Sigmoid,
    log_snr_grid,
    shifted,
    zero_terminal_snr,
)

ONE = GaussianMixture([[-0.7], [0.1], [0.8]], torch.tensor([0.02, 0.05, 0.03]), [0.3, 0.3, 0.4])
TWO = GaussianMixture(
    [[-0.6, 0.2], [0.5, -0.3], [0.2, 0.7]],
    torch.tensor(
        [[[0.05, 0.03], [0.03, 0.06]], [[0.02, 0], [0, 0.1]], [[0.04, -0.01], [-0.01, 0.03]]]
    ),
    [0.3, 0.5, 0.2],
)
GRIDS: dict[str, Schedule] = {
    "linear": LinearBeta(),
    "cosine": Cosine(),
    "sigmoid": Sigmoid(),
    "zero terminal SNR": zero_terminal_snr(LinearBeta()),
    "flow": Flow(),
    "shifted flow": shifted(Flow(), 1 / 3),
    "karras": Karras(),
}


def images(mixture: GaussianMixture, n: int = 12) -> Tensor:
    return mixture.sample(n, seed=1).view(n, 1, 1, -1)


@pytest.mark.parametrize("mixture", [ONE, TWO], ids=["1-D", "2-D"])
@pytest.mark.parametrize("name", GRIDS)
def test_density_of_a_mixture_within_a_hundredth_of_a_nat(
    mixture: GaussianMixture, name: str
) -> None:
    # from sigma = 0, on every path, and from alpha = 0 where the grid begins there
    x = images(mixture, 6)
    found = ode_log_likelihood(mixture.denoise, x, GRIDS[name].grid(20), rtol=1e-4, atol=1e-4)
    assert found.dtype == torch.float64 and found.shape == (6,)
    torch.testing.assert_close(found, mixture.log_prob(x), rtol=0, atol=0.01)


def test_where_nothing_is_left_of_the_image_only_the_tolerance_remains() -> None:
    x = images(TWO)
    errors = [
        (ode_log_likelihood(TWO.denoise, x, Flow().grid(1), rtol=tol, atol=tol) - TWO.log_prob(x))
        .abs().max().item()
        for tol in (1e-3, 1e-4, 1e-6)
    ]  # fmt: skip
    assert errors[0] < 0.2 and errors[1] < 0.01 and errors[2] < 1e-4
    assert errors[0] > errors[1] > errors[2]


def test_the_steps_of_the_grid_do_not_matter_and_its_ends_do() -> None:
    x = images(TWO)
    few, many = (ode_log_likelihood(TWO.denoise, x, Flow().grid(n)) for n in (1, 500))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-9)
    short = log_snr_grid(5, 3.0, -12.0, "ve")  # ends among noise: the density there, on its path
    level = tuple(short[-1].tolist())
    y = x + level[1] * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(
        ode_log_likelihood(TWO.denoise, y, short), TWO.log_prob(y, *level), rtol=0, atol=0.01
    )


@pytest.mark.parametrize("path", ["vp", "flow", "ve"])
def test_noise_is_what_a_sampler_makes_the_image_of(path: str) -> None:
    grid, x = log_snr_grid(500, 8.0, -8.0, path), images(TWO)
    found = ode_encode(TWO.denoise, x, grid, rtol=1e-6, atol=1e-6)
    back = last(heun(TWO.denoise, found.noise, grid)).x
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)


def test_hutchinson_is_unbiased_and_knows_its_error() -> None:
    x, quick = images(TWO, 12), {"rtol": 1e-3, "atol": 1e-3}
    exact = ode_encode(TWO.denoise, x, Flow().grid(1), **quick)
    assert not exact.standard_error.any()
    some = ode_encode(TWO.denoise, x, Flow().grid(1), probes=20, **quick)
    z = (some.log_prob - exact.log_prob) / some.standard_error
    assert z.square().mean().sqrt() < 1.7 and z.mean().abs() < 0.9
    again = ode_encode(TWO.denoise, x[:2], Flow().grid(1), probes=3, **quick)
    same = ode_encode(TWO.denoise, x[:2], Flow().grid(1), probes=3, **quick)
    other = ode_encode(TWO.denoise, x[:2], Flow().grid(1), probes=3, seed=1, **quick)
    assert torch.equal(again.log_prob, same.log_prob)
    assert not torch.equal(other.log_prob, same.log_prob)


def test_large_images_get_one_probe_unless_told() -> None:
    wide = GaussianMixture(torch.zeros(1, 81), 0.25)
    x = wide.sample(3).view(3, 1, 9, 9)
    found = ode_encode(wide.denoise, x, Flow().grid(1))
    assert found.standard_error.isnan().all()
    # the Jacobian is a multiple of 1, whose trace every Rademacher probe finds exactly
    torch.testing.assert_close(found.log_prob, wide.log_prob(x), rtol=0, atol=0.02)
    assert found.calls > 20  # counted, not declared


def test_bins_of_a_mixture_sum_to_their_mass_and_the_bound_lies_above() -> None:
    """E_u p(x+u) is the bin's mass; E_u log p(x+u) is below its logarithm: a bound in bits."""
    levels, edge = 9, torch.linspace(-1.125, 1.125, 10, dtype=torch.float64)
    cdf = sum(
        w * 0.5 * (1 + torch.erf((edge - m) / math.sqrt(2 * v)))
        for w, m, v in zip(ONE.weights, ONE.means[:, 0], (0.02, 0.05, 0.03), strict=True)
    )
    mass = torch.as_tensor(cdf).diff()  # [9], of level k
    points = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    x = torch.arange(levels).repeat_interleave(16).view(-1, 1, 1, 1)
    y = dequantise(x, levels, points.repeat(levels).view(-1, 1, 1, 1))
    assert y.amin() > -1.125 and y.amax() < 1.125
    log_p = ode_log_likelihood(ONE.denoise, y, Flow().grid(1)).view(levels, 16)
    masses = (log_p.logsumexp(1) - math.log(16)).exp() * 2 / (levels - 1)
    torch.testing.assert_close(masses.log(), mass.log(), rtol=0, atol=0.01)  # within 0.01 nat
    bits = density_bits(log_p.flatten(), 1, levels).view(levels, 16).mean(1)
    assert (bits >= -mass.log2()).all() and (bits + mass.log2()).max() > 0.05


def test_bins_of_a_mixture_in_two_dimensions() -> None:
    levels, m = 5, 12
    points = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    u = torch.cartesian_prod(points, points).view(-1, 1, 1, 2)
    for pixels in ([1, 2], [3, 1], [3, 4]):
        x = torch.tensor(pixels).view(1, 1, 1, 2).expand(m * m, 1, 1, 2)
        y = dequantise(x, levels, u)
        log_p = ode_log_likelihood(TWO.denoise, y, Flow().grid(1))
        mass = (log_p.logsumexp(0) - 2 * math.log(m) + 2 * math.log(2 / (levels - 1))).item()
        fine = torch.linspace(-0.25, 0.25, 201, dtype=torch.float64)
        square = torch.cartesian_prod(fine, fine).view(-1, 1, 1, 2)
        p = TWO.log_prob(square + (2 * x[0] / (levels - 1) - 1)).exp().view(201, 201)
        truth = torch.trapezoid(torch.trapezoid(p, fine), fine).log().item()
        assert mass == pytest.approx(truth, abs=0.01)
        assert density_bits(log_p, 2, levels).mean() * 2 * math.log(2) > -truth


def test_uniform_pixels_cost_log2_of_the_levels() -> None:
    # a density of 1/2 on [-1, 1] makes (K-1)/K of the bits of K levels: 1 + log2((K-1)/2)
    for levels in (17, 256):
        flat = torch.full((1,), math.log(0.5) * 12, dtype=torch.float64)
        assert density_bits(flat, 12, levels).item() == pytest.approx(math.log2(levels - 1))
    zero = torch.zeros(1, dtype=torch.float64)
    assert density_bits(zero, 1, 256).item() == pytest.approx(6.994, abs=1e-3)
    assert density_bits(zero, 1, 17).item() == 3


def test_bits_of_whole_levels_stop_where_they_are_told() -> None:
    # of a Gaussian: what reaches level `first`, divided by alpha, is N(0, 0.25 + (sigma/alpha)²)
    one, levels = GaussianMixture(torch.zeros(1, 4), 0.25), 17
    x = torch.randint(0, levels, (6, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    grid = zero_terminal_snr(LinearBeta(100)).grid(100)
    for first in (0, 20):
        alpha, sigma = grid[100 - first].tolist()
        u = torch.rand(x.shape, generator=torch.Generator().manual_seed(3))
        reached = GaussianMixture(torch.zeros(1, 4), 0.25 + (sigma / alpha) ** 2)
        truth = density_bits(reached.log_prob(dequantise(x, levels, u)), 4, levels)
        found = ode_bits(one.denoise, x, grid, levels, first, seed=3)
        torch.testing.assert_close(found.bits, truth, rtol=0, atol=2e-3)
        assert found.bits.shape == (6,) and found.calls > 10
    assert one.log_prob(x.double()).isfinite().all()


def test_kernel_denoiser_at_a_noisy_level() -> None:
    # D = 4 points in the plane: the density of the data set, smoothed
    data = torch.tensor([[-0.5, -0.5], [0.5, 0.5], [-0.5, 0.6], [0.7, -0.4]]).view(4, 1, 1, 2)
    kernel, grid = KernelDenoiser(data.double()), log_snr_grid(1, 3.0, -14.0)
    x = torch.randn(8, 1, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    truth = kernel.log_prob(x, *grid[-1].tolist())
    found = ode_log_likelihood(kernel, x, grid)
    torch.testing.assert_close(found, truth, rtol=0, atol=0.01)


class Mixed(nn.Module):
    """A network with weights, whose Jacobian is not symmetric."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = {"class": "Mixed"}
        self.matrix = nn.Parameter(torch.tensor([[0.3, -0.7], [0.2, 0.5]]))

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        turned = (x.flatten(1) @ self.matrix.T).tanh().view_as(x)
        return turned * torch.sigmoid(log_snr)[:, None, None, None]


@pytest.mark.parametrize("predicts", ["v", "x0", "flow"])
def test_a_network_s_density_integrates_to_one(predicts: str) -> None:
    # whatever the network says, its flow carries one Gaussian: the density has mass 1
    model, width = Denoiser(Mixed(), predicts, 0.5), torch.linspace(-4, 4, 61)
    x = torch.cartesian_prod(width, width).view(-1, 1, 1, 2)
    grid = log_snr_grid(1, 4.0, -8.0)
    p = ode_log_likelihood(model, x, grid).exp().view(61, 61)
    area = torch.trapezoid(torch.trapezoid(p, width.double()), width.double())
    assert area.item() == pytest.approx(1, abs=0.01)
    assert model.net.matrix.grad is None  # and nothing is left behind in the weights


def test_bad_input() -> None:
    x, grid = images(TWO), Flow().grid(4)
    for probes in (0, 1.5):
        with pytest.raises(ValueError, match="probes"):
            ode_encode(TWO.denoise, x, grid, probes=probes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must be"):
        ode_encode(TWO.denoise, x[0], grid)
    with pytest.raises(ValueError, match="to_unit"):
        ode_encode(TWO.denoise, torch.zeros(1, 1, 1, 2).long(), grid)
    with pytest.raises(ValueError, match="noisiest first"):
        ode_encode(TWO.denoise, x, grid.flip(0))
    with pytest.raises(ValueError, match="whole levels"):
        dequantise(x, 17, x)
    with pytest.raises(ValueError, match="first"):
        ode_bits(TWO.denoise, torch.zeros(1, 1, 1, 2).long(), grid, 17, first=4)
    eps = Denoiser(Mixed(), "eps")
    with pytest.raises(ValueError, match="alpha = 0"):  # at once, not after the integration
        ode_encode(eps, x.float(), grid)

    def broken(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
        return Prediction(x * math.nan, x)

    with pytest.raises(FloatingPointError, match="not finite"):
        ode_encode(broken, x, grid)
