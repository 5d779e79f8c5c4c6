"""The same levels and steps as diffusers' schedulers, between the levels that those print."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_lite.data import import_torchvision
from ddpm_lite.diffusion import Prediction
from ddpm_lite.samplers import ddim, ddpm, heun, last
from ddpm_lite.schedules import Cosine, Flow, Karras, LinearBeta, shifted, zero_terminal_snr


@pytest.fixture(scope="module")
def diffusers() -> Iterator[Any]:
    import_torchvision()  # or diffusers fails to import beside a CPU build of torch
    yield pytest.importorskip("diffusers")


def unit(n: int = 6) -> Tensor:
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def network(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
    """A made-up denoiser, whose velocity (Flow) is tanh(1.7 x)."""
    v = torch.tanh(1.7 * x)
    x0 = (x - sigma * v) / (alpha + sigma)
    return Prediction(x0, v + x0)


def test_zero_terminal_snr_end_to_end(diffusers: Any) -> None:
    theirs = diffusers.DDPMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, rescale_betas_zero_snr=True
    )
    ours = zero_terminal_snr(LinearBeta()).alpha_bar
    np.testing.assert_allclose(
        ours[:-1].numpy(), theirs.alphas_cumprod[:-1].double().numpy(), rtol=1e-3, atol=1e-7
    )
    assert ours[-1] == 0 and theirs.alphas_cumprod[-1] < 1e-7  # they keep 2^-24


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_and_euler_steps(diffusers: Any, shift: float) -> None:
    """An Euler step on the velocity is a ddim step on the straight path."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    theirs.set_timesteps(12)
    sigmas = theirs.sigmas.double()
    grid = torch.stack([1 - sigmas, sigmas], 1)
    t = (theirs.config.num_train_timesteps * shift_back(sigmas, shift)) / 1000
    torch.testing.assert_close(
        shifted(Flow(), 1 / shift)(t)[1], sigmas, rtol=1e-5, atol=1e-6
    )  # at the printed levels, our schedule has the same sigma
    x = unit()
    got = last(ddim(network, x / sigmas[0].item(), grid)).x
    for step in theirs.timesteps:
        x = theirs.step(torch.tanh(1.7 * x), step, x).prev_sample
    torch.testing.assert_close(got, x, rtol=3e-6, atol=3e-6)


def shift_back(sigma: Tensor, shift: float) -> Tensor:
    return sigma / (shift - (shift - 1) * sigma)


def test_karras_levels(diffusers: Any) -> None:
    theirs = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0)
    theirs.set_timesteps(18)
    ours = Karras(0.002, 80.0).grid(18)
    torch.testing.assert_close(ours[:, 1], theirs.sigmas.double(), rtol=1e-5, atol=1e-7)


def test_heun_s_steps(diffusers: Any) -> None:
    """Their Heun works with alpha = 1, and each level but the ends stands twice in their list."""
    theirs = diffusers.HeunDiscreteScheduler(
        1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear"
    )
    theirs.set_timesteps(8)
    sigmas = theirs.sigmas.double()
    levels = torch.cat([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]])
    grid = torch.stack([torch.ones_like(levels), levels], 1)

    def denoise(x: Tensor, alpha: Any, sigma: Any, label: Any = None) -> Prediction:
        eps = torch.tanh(1.7 * x / (sigma**2 + 1) ** 0.5)  # they scale the network's input
        return Prediction(x - sigma * eps, eps)

    x = unit() * sigmas[0].item()
    got = last(heun(denoise, unit(), grid)).x
    for t in theirs.timesteps:
        scaled = theirs.scale_model_input(x, t)
        x = theirs.step(torch.tanh(1.7 * scaled), t, x).prev_sample
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [980, 500, 20])
def test_single_steps_for_each_target(diffusers: Any, predicts: str, t: int) -> None:
    """Cosine levels, 50 steps: what a step does with a network's answer, whatever it predicts."""
    ours, y = Cosine().table, torch.tanh(1.7 * unit())
    grid = torch.stack([ours[t + 1], ours[t - 19]])
    alpha, sigma = grid[0].tolist()

    def denoise(x: Tensor, *_: Any) -> Prediction:
        if predicts == "epsilon":
            return Prediction((x - sigma * y) / alpha, y)
        x0 = y if predicts == "sample" else alpha * x - sigma * y
        return Prediction(x0, (x - alpha * x0) / sigma)

    options = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": predicts,
               "clip_sample": False}  # fmt: skip
    theirs = diffusers.DDIMScheduler(1000, **options)
    theirs.set_timesteps(50)
    expected = theirs.step(y, t, unit(), eta=0.0).prev_sample
    slack = 3e-6 if t < 900 else 3e-4  # ᾱ of the noisy end in float32
    slack = 2e-4 if (predicts, t) == ("sample", 20) else slack  # eps is (x - alpha·x0) / 0.04
    got = last(ddim(denoise, unit() / sigma, grid)).x
    torch.testing.assert_close(got, expected, rtol=slack, atol=slack)
    theirs = diffusers.DDPMScheduler(1000, variance_type="fixed_small", **options)
    theirs.set_timesteps(50)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    expected = theirs.step(y, t, unit(), generator=generator).prev_sample
    got = last(ddpm(denoise, unit() / sigma, grid, fresh=lambda i: noise)).x
    torch.testing.assert_close(got, expected, rtol=max(slack, 2e-5), atol=max(slack, 2e-5))
