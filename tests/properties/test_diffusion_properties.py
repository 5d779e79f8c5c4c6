"""Properties of the diffusion seam that hold for every level, path and target."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ddpm_lite.diffusion import TARGETS, Denoiser, diffuse
from ddpm_lite.samplers import SAMPLERS, last
from ddpm_lite.schedules import Discrete, from_spec, log_snr_grid, on_path, shifted

RATIOS = st.floats(-15, 15)  # log-SNR in nats
PATHS = st.sampled_from(["vp", "flow", "ve"])


class Answer(nn.Module):
    """A network with one answer."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(
        self, x: torch.Tensor, log_snr: torch.Tensor, label: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.answer


@given(RATIOS, PATHS, st.sampled_from(sorted(TARGETS)), st.floats(0.1, 3), st.integers(0, 2**31))
def test_prediction_splits_x_exactly(
    log_snr: float, path: str, predicts: str, sigma_data: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    x, answer = torch.randn(2, 2, 1, 3, 3, generator=g, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    alpha, sigma = (v.item() for v in on_path(one, one * math.exp(-log_snr / 2), path))
    x0, eps = Denoiser(Answer(answer), predicts, sigma_data)(x, alpha, sigma)
    scale = max(1.0, x0.abs().max().item(), eps.abs().max().item())
    torch.testing.assert_close(diffuse(x0, alpha, sigma, eps), x, rtol=0, atol=1e-13 * scale)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40), st.data())
def test_any_betas_make_a_schedule(betas: list[float], data: st.DataObject) -> None:
    schedule = Discrete(betas)
    n = data.draw(st.integers(1, len(betas)))
    grid = schedule.grid(n)
    torch.testing.assert_close(
        grid.square().sum(1), torch.ones(n + 1, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert (grid[:, 1].diff() <= 0).all() and grid[-1].tolist() == [1.0, 0.0]
    assert torch.equal(from_spec(schedule.spec).grid(n), grid)
    factor = data.draw(st.floats(0.1, 10))
    there_and_back = shifted(shifted(schedule, factor), 1 / factor).grid(n)
    torch.testing.assert_close(there_and_back, grid, rtol=1e-9, atol=1e-12)


@given(st.sampled_from(sorted(SAMPLERS)), PATHS, st.integers(2, 12), st.floats(-1, 1))
def test_one_known_image_is_reached_by_every_sampler(
    sampler: str, path: str, n: int, value: float
) -> None:
    # if the data are one image, the exact denoiser knows it, and one step is as good as many
    def denoise(
        x: torch.Tensor, alpha: float, sigma: float, label: object = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x0 = torch.full_like(x, value)
        return x0, (x - alpha * x0) / sigma

    from ddpm_lite.diffusion import Prediction

    grid = log_snr_grid(n, 8.0, -8.0, path)
    end = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    noise = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    x = last(
        SAMPLERS[sampler](
            lambda *a, **k: Prediction(*denoise(*a, **k)), noise, torch.cat([grid, end])
        )
    ).x
    torch.testing.assert_close(x, torch.full_like(x, value), rtol=0, atol=1e-9)
