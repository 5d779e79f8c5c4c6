"""The evidence lower bound, as an upper bound on bits per dimension."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import require
from ..data import Images, to_unit
from ..schedules import check_grid
from .denoiser import Denoise, Denoiser, diffuse


class Elbo(NamedTuple):
    """The three parts of an upper bound on -log2 p(x) / D, each [B] in bits/dim."""

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """Bits per dimension, [B]: an estimate of a bound, not a likelihood."""
        return self.prior + self.diffusion + self.reconstruction


@torch.no_grad()
def elbo_by_level(
    denoiser: Denoise,
    x: Tensor,
    grid: Tensor,
    levels: int,
    first: int = 1,
    seed: int = 0,
    every_stop: bool = True,
) -> Elbo:
    """Every term of the bound by noise level; ``elbo`` sums them and says what the arguments are.

    Level k is row n-k of the grid, n = len(grid) - 1. Column j of ``diffusion`` [B, n-first] holds
    the cost of going from level first+j+1 to first+j; column j of ``reconstruction`` [B, n-first+1]
    that of decoding at level first+j, were the chain stopped there (without ``every_stop`` only
    column 0). ``prior`` is [B].
    """
    grid = check_grid(grid)
    n = len(grid) - 1
    require.whole("first, a noisy level of the grid,", first, 1, n)
    require.whole("levels", levels, 2)
    require.seed(seed)
    require.tensor("x", x, None, None, None, None)
    if x.is_floating_point() or x.dtype == torch.bool:
        raise ValueError(f"x must hold whole levels 0..{levels - 1}: use data.to_levels")
    if not len(x) or int(x.min()) < 0 or int(x.max()) >= levels:
        raise ValueError(f"x must hold images of whole levels 0..{levels - 1}")
    generator, dtype = torch.Generator(), torch.get_default_dtype()
    x0 = to_unit(x, levels, dtype)  # [B, C, H, W]
    rows = grid.tolist()

    def bits(nats: Tensor) -> Tensor:  # [B, ...] nats per dimension -> [B] bits/dim
        return nats.flatten(1).double().mean(1).cpu() / math.log(2)

    alpha, sigma = rows[0]  # of level n
    prior = bits(0.5 * (alpha * x0 / sigma) ** 2)  # KL of q(x_T | x0) from N(0, sigma_T²)
    # tables made beforehand: small tensors kept between large passing ones would hold their memory
    diffusion = torch.zeros(len(x), n - first, dtype=torch.float64)
    reconstruction = torch.zeros(len(x), n - first + 1 if every_stop else 1, dtype=torch.float64)
    for k in range(first, n + 1):
        alpha, sigma = rows[n - k]
        generator.manual_seed(seed * 100_003 + k)  # so that a subset's figures are a subset
        noise = torch.randn(x0.shape, generator=generator, dtype=dtype).to(x0.device)
        noisy = diffuse(x0, alpha, sigma, noise)
        if every_stop or k == first:
            nats = _decoder_nats(noisy, alpha, sigma, x, levels)
            reconstruction[:, k - first] = bits(nats)
        if k > first:
            below = rows[n - k + 1]
            snr, snr_below = (alpha / sigma) ** 2, (below[0] / below[1]) ** 2
            wrong = (denoiser(noisy, alpha, sigma).x0 - x0).square()
            diffusion[:, k - first - 1] = bits(0.5 * (snr_below - snr) * wrong)
    return Elbo(prior, diffusion, reconstruction)


def elbo(
    denoiser: Denoise, x: Tensor, grid: Tensor, levels: int, first: int = 1, seed: int = 0
) -> Elbo:
    """Evidence lower bound on log p(x), as bits per dimension (Ho et al. 2020, eq. 5).

    Prior: KL(q(x_T | x0), N(0, sigma_T²)). Diffusion: every step from T down to level ``first``
    with the posterior variance, ½·(SNR(k-1) - SNR(k))·‖x0 - x̂0‖² (Kingma et al. 2021, eq. 13).
    Reconstruction: p(k | x_first) ∝ N(x_first; alpha·v_k, sigma²) over the pixel values v_k.

    Args:
        denoiser: any ``Denoise``, unclipped, asked without labels. x: whole levels [B, C, H, W].
        grid: float64[n+1, 2]; level k is row n-k. first: where the chain stops, 1..n; chosen on the
            training split where it is not 1. seed: fixes the one noise draw per level and image.

    Returns:
        Elbo of [B] float64 each, in bits/dim. ValueError if ``first`` or ``x`` is out of range.
    """
    by_level = elbo_by_level(denoiser, x, grid, levels, first, seed, every_stop=False)
    return Elbo(by_level.prior, by_level.diffusion.sum(1), by_level.reconstruction[:, 0])


def _decoder_nats(noisy: Tensor, alpha: float, sigma: float, x: Tensor, levels: int) -> Tensor:
    values = to_unit(torch.arange(levels, device=noisy.device), levels, noisy.dtype)  # [K]
    some = max(1, 2**24 // (noisy[0].numel() * levels))  # images at a time: K numbers a pixel
    nats = []
    for y, k in zip(noisy.split(some), x.long().split(some), strict=True):
        distance = (y[..., None] - alpha * values) / sigma  # [b, C, H, W, K]
        log_p = (-0.5 * distance.square()).log_softmax(-1)
        nats.append(-log_p.gather(-1, k[..., None])[..., 0])
    return torch.cat(nats)


def choose_first(denoiser: Denoiser, images: Images, grid: Tensor, seed: int = 0) -> int:
    """The level at which stopping the chain gives the best mean bound on `images`.

    Choose on the training split: chosen on the test split, the bound would be no bound any more.
    """
    x = images.x.to(next(denoiser.parameters()).device)
    bound = elbo_by_level(denoiser, x, grid, images.levels, 1, seed)
    steps = bound.diffusion.mean(0)  # [n-1]: from level j+2 to level j+1
    above = torch.cat([steps.flip(0).cumsum(0).flip(0), steps.new_zeros(1)])  # [n]
    return 1 + int((above + bound.reconstruction.mean(0)).argmin())
