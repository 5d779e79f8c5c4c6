"""Denoiser, loss, clipping and the bound."""

import math

import pytest
import torch
from torch import Tensor, nn

from ddpm_lite.diffusion import (
    TARGETS,
    Denoiser,
    Prediction,
    clipped,
    diffuse,
    elbo,
    elbo_by_level,
    like,
    loss,
)
from ddpm_lite.schedules import Cosine, Flow, Karras, LinearBeta, zero_terminal_snr
from ddpm_lite.unet import UNet

B, SHAPE = 3, (1, 4, 4)


class Fixed(nn.Module):
    """Answers with a given tensor; remembers what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.spec = answer, {"class": "Fixed"}
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen = (x, log_snr, label)
        return self.answer + self.bias


def pair(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x0 = torch.rand(B, *SHAPE, generator=g, dtype=dtype) * 2 - 1
    return x0, torch.randn(B, *SHAPE, generator=g, dtype=dtype)


@pytest.mark.parametrize("predicts", TARGETS)
@pytest.mark.parametrize("sigma_data", [1.0, 0.37])
@pytest.mark.parametrize("grid", [Cosine(20).grid(5), Flow().grid(5), Karras(0.01, 30).grid(5)])
def test_the_solve_inverts_the_target(predicts: str, sigma_data: float, grid: Tensor) -> None:
    # whatever is predicted, a perfect network gives back the image and the noise that were mixed
    x0, noise = pair()
    for alpha, sigma in grid[:-1].tolist():
        if predicts == "eps" and alpha == 0:
            continue
        denoiser = Denoiser(nn.Identity(), predicts, sigma_data)
        perfect = Fixed(denoiser.target(x0, alpha, sigma, noise))
        got = Denoiser(perfect, predicts, sigma_data)(
            diffuse(x0, alpha, sigma, noise), alpha, sigma
        )
        # error of eps-nets grows as 1/alpha, of x0-nets as 1/sigma
        slack = 1e-13 * max(1, sigma / max(alpha, 1e-300) if predicts == "eps" else alpha / sigma)
        torch.testing.assert_close(got.x0, x0, rtol=0, atol=max(slack, 1e-13))
        torch.testing.assert_close(got.eps, noise, rtol=0, atol=max(slack, 1e-13))


@pytest.mark.parametrize("predicts", TARGETS)
def test_x0_and_eps_always_recombine_to_x(predicts: str) -> None:
    net = UNet(1, width=8, mults=(1,), attention=(True,), blocks=1).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    x = torch.randn(B, *SHAPE, dtype=torch.float64)
    alpha = torch.tensor([0.9, 0.5, 0.1])
    sigma = (1 - alpha**2).sqrt()
    x0, eps = Denoiser(net, predicts)(x, alpha, sigma)
    torch.testing.assert_close(
        like(alpha, x) * x0 + like(sigma, x) * eps, x, rtol=1e-6, atol=1e-6
    )  # alpha is float32 here


def test_v_is_salimans_and_ho_s_and_flow_is_the_velocity() -> None:
    x0, noise = pair()
    alpha, sigma = 0.6, 0.8
    v = Denoiser(nn.Identity(), "v").target(x0, alpha, sigma, noise)
    torch.testing.assert_close(v, alpha * noise - sigma * x0)
    flow = Denoiser(nn.Identity(), "flow").target(x0, 0.3, 0.7, noise)
    torch.testing.assert_close(flow, noise - x0)  # dx/dt on x = (1-t) x0 + t noise


def test_network_sees_unit_variance_and_finite_log_snr() -> None:
    net = Fixed(torch.zeros(B, *SHAPE))
    denoiser = Denoiser(net, "v", sigma_data=0.5)
    for alpha, sigma in [(1.0, 0.0), (0.0, 1.0), (1.0, 80.0), (1.0, 1e-9)]:
        denoiser(torch.ones(B, *SHAPE), alpha, sigma)
        x, log_snr, _ = net.seen
        torch.testing.assert_close(
            x, torch.full_like(x, 1 / math.hypot(0.5 * alpha, sigma)), rtol=1e-6, atol=0
        )
        assert log_snr.shape == (B,) and (log_snr.abs() <= 20).all()
    denoiser(torch.ones(B, *SHAPE), 0.6, 0.8)
    assert net.seen[1][0].item() == pytest.approx(2 * math.log(0.3 / 0.8), rel=1e-6)


@pytest.mark.parametrize("predicts", TARGETS)
def test_at_sigma_zero_the_image_is_returned(predicts: str) -> None:
    x = torch.rand(B, *SHAPE)
    x0, eps = Denoiser(Fixed(torch.full((B, *SHAPE), 7.0)), predicts)(x, 0.5, 0.0)
    torch.testing.assert_close(x0, 2 * x)
    assert not eps.any()
    # also when only one image of the batch is clean, and with finite gradients
    leaf = x.clone().requires_grad_()
    sigma = torch.tensor([0.0, 0.5, 1.0])
    both = Denoiser(Fixed(torch.zeros(B, *SHAPE)), predicts)(
        leaf, torch.tensor([1.0, 0.8, 0.2]), sigma
    )
    torch.testing.assert_close(both.x0[0], x[0])
    (both.x0.sum() + both.eps.sum()).backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all()


def test_eps_network_at_pure_noise() -> None:
    denoiser = Denoiser(Fixed(torch.zeros(B, *SHAPE)), "eps")
    x0, noise = pair(torch.float32)
    with pytest.raises(ValueError, match="alpha = 0"):
        denoiser(x0, 0.0, 1.0)
    assert loss(denoiser, x0, 0.0, 1.0, noise).item() == pytest.approx(
        noise.square().mean().item(), rel=1e-6
    )
    for predicts in ("x0", "v", "flow"):
        assert Denoiser(Fixed(torch.zeros(B, *SHAPE)), predicts)(x0, 0.0, 1.0).x0.isfinite().all()


def test_loss_weights_images() -> None:
    x0, noise = pair(torch.float32)
    denoiser = Denoiser(Fixed(torch.zeros(B, *SHAPE)), "eps")
    each = noise.square().flatten(1).mean(1)
    alpha = torch.tensor([0.1, 0.5, 0.9])
    sigma = (1 - alpha**2).sqrt()
    weight = torch.tensor([0.0, 1.0, 3.0])
    torch.testing.assert_close(loss(denoiser, x0, alpha, sigma, noise), each.mean())
    torch.testing.assert_close(
        loss(denoiser, x0, alpha, sigma, noise, weight=weight), (weight * each).mean()
    )


def test_float32_in_float32_out() -> None:
    x0, _ = pair(torch.float32)
    net = UNet(1, width=8, mults=(1,), attention=(False,), blocks=1)
    got = Denoiser(net)(x0, torch.full((B,), 0.6, dtype=torch.float64), 0.8)
    assert got.x0.dtype == got.eps.dtype == torch.float32


def test_clipped_rederives_eps() -> None:
    x0, noise = pair()
    wild = lambda x, alpha, sigma, label=None: Prediction(3 * x0, noise)  # noqa: E731
    x = diffuse(x0, 0.6, 0.8, noise)
    got = clipped(wild)(x, 0.6, 0.8)
    assert got.x0.abs().max() <= 1
    torch.testing.assert_close(0.6 * got.x0 + 0.8 * got.eps, x)
    assert not clipped(wild)(x, 1.0, 0.0).eps.any()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="eps, flow, v, x0"):
        Denoiser(nn.Identity(), "noise")
    with pytest.raises(ValueError, match="sigma_data"):
        Denoiser(nn.Identity(), "v", 0.0)
    with pytest.raises(ValueError, match="one per image"):
        like(torch.ones(2), torch.ones(3, 1, 2, 2))


# -- the bound ---------------------------------------------------------------------------------


def test_bound_of_an_ignorant_denoiser_in_closed_form() -> None:
    # x̂0 = 0 costs ½ (SNR(k-1) - SNR(k)) x0² at each step, whatever the noise
    grid = LinearBeta(50).grid(50)
    x = torch.randint(0, 3, (4, *SHAPE), generator=torch.Generator().manual_seed(0))
    ignorant = lambda x, alpha, sigma, label=None: Prediction(  # noqa: E731
        torch.zeros_like(x), x / sigma
    )
    parts = elbo(ignorant, x, grid, levels=3, first=5)
    x0 = x.double() - 1
    snr = lambda k: (grid[50 - k, 0] / grid[50 - k, 1]) ** 2  # noqa: E731
    energy = x0.square().flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(
        parts.diffusion, 0.5 * (snr(5) - snr(50)) * energy, rtol=1e-5, atol=0
    )
    torch.testing.assert_close(parts.prior, 0.5 * snr(50) * energy, rtol=1e-5, atol=0)


def test_decoder_is_normalised_over_the_levels() -> None:
    # at a level of pure noise the decoder knows nothing: log2 K bits; at a clean one it knows all
    x = torch.randint(0, 17, (2, *SHAPE))
    nothing = lambda x, alpha, sigma, label=None: Prediction(x, x)  # noqa: E731
    blind = elbo(nothing, x, zero_terminal_snr(LinearBeta(2)).grid(1), levels=17)
    torch.testing.assert_close(
        blind.reconstruction,
        torch.full((2,), math.log2(17), dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )
    sharp = elbo(nothing, x, LinearBeta(1, 1e-6, 1e-6).grid(1), levels=17)
    assert sharp.reconstruction.max() < 1e-6


def test_by_level_sums_to_the_bound_and_every_term_counts() -> None:
    grid = Cosine(40).grid(40)
    x = torch.randint(0, 5, (3, *SHAPE), generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(UNet(1, width=8, mults=(1,), attention=(False,), blocks=1))
    by_level = elbo_by_level(denoiser, x, grid, 5, first=3)
    assert by_level.diffusion.shape == (3, 37) and by_level.reconstruction.shape == (3, 38)
    parts = elbo(denoiser, x, grid, 5, first=3)
    torch.testing.assert_close(parts.diffusion, by_level.diffusion.sum(1))
    assert torch.equal(parts.reconstruction, by_level.reconstruction[:, 0])
    torch.testing.assert_close(parts.total, parts.prior + parts.diffusion + parts.reconstruction)
    assert torch.equal(elbo(denoiser, x, grid, 5, first=3).total, parts.total)  # seeded
    assert (by_level.diffusion > 0).all()
    with pytest.raises(ValueError, match="from 1 to 40"):
        elbo(denoiser, x, grid, 5, first=41)
    for bad in (x - 1, x + 1, x.float()):
        with pytest.raises(ValueError, match=r"whole levels 0\.\.4"):
            elbo(denoiser, bad, grid, 5)


def test_an_image_s_bound_does_not_depend_on_its_neighbours() -> None:
    grid = Cosine(20).grid(20)
    x = torch.randint(0, 5, (6, *SHAPE), generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(UNet(1, width=8, mults=(1,), attention=(False,), blocks=1))
    whole, some = elbo(denoiser, x, grid, 5), elbo(denoiser, x[:2], grid, 5)
    torch.testing.assert_close(whole.total[:2], some.total, rtol=1e-5, atol=0)
    assert not torch.equal(elbo(denoiser, x, grid, 5, seed=1).total, whole.total)
