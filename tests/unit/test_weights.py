"""Weights of the training loss: closed forms, the bound they make, and where they are used."""

import math

import pytest
import torch
from torch import Tensor, nn

from ddpm_lite.diffusion import (
    TARGETS,
    WEIGHTS,
    Denoiser,
    diffuse,
    elbo_by_level,
    elbo_weight,
    loss,
    min_snr,
    uniform,
    weighting,
)
from ddpm_lite.draws import Draws
from ddpm_lite.exact import GaussianMixture
from ddpm_lite.schedules import (
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    Schedule,
    shifted,
    zero_terminal_snr,
)
from ddpm_lite.train import TrainConfig, diffusion_loss, loss_for

GAMMA = 5.0
CLOSED = {  # Hang et al. 2023: the weight of each target, as functions of the SNR
    "x0": lambda snr: torch.clamp(snr, max=GAMMA),
    "eps": lambda snr: torch.clamp(snr, max=GAMMA) / snr,
    "v": lambda snr: torch.clamp(snr, max=GAMMA) / (snr + 1),
    "flow": lambda snr: torch.clamp(snr, max=GAMMA) / (snr.sqrt() + 1) ** 2,
}


class Wrong(nn.Module):
    """A network that is wrong in its own way at every level."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = {"class": "Wrong"}

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.3 * torch.tanh(x) + 0.1 * torch.sin(log_snr)[:, None, None, None]


def denoiser(predicts: str, sigma_data: float = 1.0) -> Denoiser:
    return Denoiser(Wrong(), predicts, sigma_data)


@pytest.mark.parametrize("predicts", TARGETS)
@pytest.mark.parametrize("sigma_data", [1.0, 0.4])
def test_min_snr_in_closed_form(predicts: str, sigma_data: float) -> None:
    for schedule in (LinearBeta(50), Flow(), Karras(0.01, 20)):
        alpha, sigma = schedule(torch.linspace(0.02, 0.98, 49, dtype=torch.float64))
        expected = CLOSED[predicts]((alpha * sigma_data / sigma) ** 2)
        found = min_snr(denoiser(predicts, sigma_data), GAMMA)(alpha, sigma)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("predicts", TARGETS)
def test_min_snr_is_one_weight_on_the_error_of_x0(predicts: str) -> None:
    # whatever the target, the weighted raw error is min(SNR, γ) times the squared error of x0
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 1, 2, 2, generator=g, dtype=torch.float64)
    alpha = torch.tensor([0.99, 0.9, 0.5, 0.2, 0.02], dtype=torch.float64)
    sigma = (1 - alpha**2).sqrt()
    model = denoiser(predicts)
    x = diffuse(x0, alpha, sigma, noise)
    raw = model.raw(x, alpha, sigma) - model.target(x0, alpha, sigma, noise)
    weighted = min_snr(model)(alpha, sigma) * raw.square().flatten(1).mean(1)
    error = (model(x, alpha, sigma).x0 - x0).square().flatten(1).mean(1)
    expected = ((alpha / sigma) ** 2).clamp(max=5) * error
    torch.testing.assert_close(weighted, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("predicts", TARGETS)
def test_min_snr_at_the_ends(predicts: str) -> None:
    alpha, sigma = torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 0.0]).double()
    expected = {"eps": [1, 0], "x0": [0, GAMMA], "v": [0, 0], "flow": [0, 0]}[predicts]
    assert min_snr(denoiser(predicts))(alpha, sigma).tolist() == expected
    with pytest.raises(ValueError, match="gamma"):
        min_snr(denoiser(predicts), 0.0)


@pytest.mark.parametrize("predicts", TARGETS)
@pytest.mark.parametrize("sigma_data", [1.0, 0.4])
@pytest.mark.parametrize("first", [1, 4])
def test_elbo_weight_makes_the_loss_the_bound_s_diffusion_term(
    predicts: str, sigma_data: float, first: int
) -> None:
    """Mean over the levels of the weighted loss = the sum of the bound's terms, to the last digit.

    The same noise is drawn for a level in both.
    """
    n, levels = 30, 5
    model, grid = denoiser(predicts, sigma_data), LinearBeta(n, 1e-3, 0.2).grid(n)
    x = torch.randint(0, levels, (7, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    x0, weight = x.double() / 2 - 1, elbo_weight(model, grid, first)
    torch.set_default_dtype(torch.float64)
    try:
        bound = elbo_by_level(model, x, grid, levels, first, seed=2)
        total = torch.zeros(())
        for k in range(1, n + 1):
            noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(200_006 + k))
            alpha, sigma = grid[n - k].expand(7, 2).unbind(1)
            term = loss(model, x0, alpha, sigma, noise, weight=weight(alpha, sigma))
            if k > first:  # level by level
                nats = bound.diffusion[:, k - first - 1].mean() * math.log(2)
                torch.testing.assert_close(term / n, nats, rtol=1e-9, atol=1e-15)
            else:
                assert term == 0
            total += term / n
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(
        total, bound.diffusion.sum(1).mean() * math.log(2), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize(
    "schedule",
    [LinearBeta(200), shifted(Cosine(100), 0.5), zero_terminal_snr(LinearBeta(200)), Flow(0.99)],
    ids=["linear", "shifted", "zero terminal", "flow"],
)
def test_in_expectation_over_drawn_levels(schedule: Schedule) -> None:
    """With levels drawn as in training, on a Gaussian whose error of x0 is known in closed form."""
    spread = 0.6
    n = schedule.steps or 1000

    class Exact(nn.Module):  # v of the exact denoiser of N(0, spread²)
        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
            snr = log_snr.double().exp()[:, None, None, None]
            a, s = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
            x0 = a * spread**2 / (a**2 * spread**2 + s**2) * x
            return (a * x - x0) / s

    model, grid = Denoiser(Exact(), "v"), schedule.grid(n)
    first = 10
    weight = elbo_weight(model, grid, first)
    u = (torch.arange(40 * n, dtype=torch.float64) + 0.5) / (40 * n)  # every level equally often
    alpha, sigma = schedule.draw(u)
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(u), 1, 4, 4, generator=g, dtype=torch.float64)
    found = loss(model, spread * x0, alpha, sigma, noise, weight=weight(alpha, sigma)).item()
    snr = (grid[:, 0] / grid[:, 1]) ** 2
    mmse = 1 / (spread**-2 + snr)
    # a continuous schedule draws from all of the interval, a table its noisier end
    mmse = mmse[:-1] if schedule.steps else (mmse[:-1] + mmse[1:]) / 2
    truth = (0.5 * snr.diff() * mmse)[: n - first].sum().item()
    assert found == pytest.approx(truth, rel=0.02)


def test_names() -> None:
    model, schedule = denoiser("v"), Cosine(20)
    alpha, sigma = schedule.draw(torch.rand(6))
    assert weighting("uniform", model, schedule) is uniform
    assert torch.equal(uniform(alpha, sigma), torch.ones(6, dtype=torch.float64))
    for name in WEIGHTS:
        assert weighting(name, model, schedule)(alpha, sigma).shape == (6,)
    with pytest.raises(ValueError, match="elbo, min-snr, uniform"):
        weighting("snr", model, schedule)
    with pytest.raises(ValueError, match="alpha = 0"):
        weighting("elbo", denoiser("eps"), Flow())
    with pytest.raises(ValueError, match=r"from 1 to 20"):
        elbo_weight(model, schedule.grid(20), first=21)


@pytest.mark.parametrize("name", WEIGHTS)
def test_training_uses_the_weight_of_its_config(name: str) -> None:
    model, schedule = denoiser("v"), Cosine(20)
    x = torch.randint(0, 17, (8, 1, 4, 4)).byte()
    y = torch.zeros(8).long()
    config = TrainConfig(weight=name)
    found = loss_for(model_with_spec(model), 17, config, schedule)(model, x, y, Draws(0, 0, 8))
    weight = weighting(name, model, schedule)
    again = diffusion_loss(schedule, 17, weight=weight)(model, x, y, Draws(0, 0, 8))
    plain = diffusion_loss(schedule, 17)(model, x, y, Draws(0, 0, 8))
    assert found.dtype == torch.float32 and torch.equal(found, again)
    assert torch.equal(found, plain) == (name == "uniform")


def model_with_spec(model: Denoiser) -> Denoiser:
    assert "classes" not in model.spec["net"]
    return model


def test_a_weight_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="elbo, min-snr, uniform"):
        TrainConfig(weight="snr")
    with pytest.raises(ValueError, match="has none"):
        loss_for(nn.Linear(1, 1), 17, TrainConfig(weight="elbo"))


def test_all_weights_have_the_same_minimum() -> None:
    # the exact denoiser beats a shrunken one under each of them
    mixture = GaussianMixture([[-0.6], [0.5]], 0.02)
    x0 = mixture.sample(4000).view(-1, 1, 1, 1)
    schedule = LinearBeta(100)
    alpha, sigma = schedule.draw(torch.rand(4000, generator=torch.Generator().manual_seed(0)))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).double()
    x = diffuse(x0, alpha, sigma, noise)
    exact = mixture.denoise(x, alpha, sigma).x0
    model = denoiser("x0")
    for name in WEIGHTS:
        weight = weighting(name, model, schedule)(alpha, sigma)
        errors = [(weight * (f * exact - x0).square().flatten()).mean() for f in (1.0, 0.9)]
        assert errors[0] < errors[1]
