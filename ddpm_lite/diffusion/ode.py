"""The probability flow: the same marginals without noise, and with it a density for any image.

dx = x0·dα + eps·dσ carries N(0, sigma_T²) to the data and back. Followed from an image to noise it
gives log p(x) by the change of variables: exact up to the integrator's tolerance where the
denoiser is exact, and otherwise the density of what the network would generate this way.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import require
from ..data import to_unit
from ..schedules import check_grid
from .denoiser import Denoise, Label

MOST_CALLS = 5_000  # some 40 to 200 are usual
EXACT_UP_TO = 64  # numbers in an image: the trace then costs at most so many backward passes


class Encoded(NamedTuple):
    """An image followed to noise, and what that says about it."""

    noise: Tensor  # [B, C, H, W], what a sampler would start from (times the first sigma)
    log_prob: Tensor  # [B] float64, nats: log density of x at the grid's last level
    standard_error: Tensor  # [B] float64, nats, of the trace's estimate; 0 exact, NaN for 1 probe
    calls: int  # of the denoiser, each with its backward passes


class OdeBits(NamedTuple):
    """A bound from the probability flow: bits/dim [B], the trace's standard error [B], calls."""

    bits: Tensor
    standard_error: Tensor
    calls: int


def ode_encode(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    *,
    label: Label = None,
    probes: int | None = None,
    seed: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Encoded:
    """Follow x up the probability flow to the noisiest level of the grid (Song et al. 2021b, §4.3).

    In the angle θ = atan2(sigma, alpha) every Gaussian path is the same ODE: with x = c·z and
    c = √(alpha² + sigma²), dz/dθ = eps·cos θ - x0·sin θ. It is finite at alpha = 0 and at
    sigma = 0, and log p(x) = log N(z_T; 0, sin²θ_T) + ∫ div(dz/dθ) dθ - D·log c. Of the grid, the
    first and last rows matter, and in between the scale c at which the denoiser is asked (c has no
    effect on one that treats x, alpha, sigma alike); the steps are those of ``scipy``'s adaptive
    Dormand-Prince pair (``solve_ivp``, method RK45), shared by the images of a batch.

    Args:
        denoise: differentiable in x; not ``clipped``, whose divergence vanishes where it clips.
        x: real images at the level of the grid's last row [B, C, H, W]; see ``dequantise``.
        probes: None takes the trace exactly for D = C·H·W <= 64 (D backward passes a call) and
            with one probe beyond; a number asks for Hutchinson's estimate with so many Rademacher
            vectors an image, held fixed along the path (Grathwohl et al. 2019, eq. 7-8).
        seed: of the probes, which depend on their number, not on the device.
        rtol, atol: the integrator's; log p is an entry of its state like every number of the image.

    Returns:
        Encoded. ValueError for a grid, images or probes that make no sense, and whatever the
        denoiser raises; FloatingPointError where the integrator gives up.
    """
    from scipy.integrate import solve_ivp

    grid = check_grid(grid)
    require.images("x", x)
    if probes is not None:
        require.whole("probes, or None for the exact trace,", probes)
    size, dim = len(x), x[0].numel()
    if probes is None and dim > EXACT_UP_TO:
        probes = 1
    vectors = _probes(x, probes, seed)  # [R, B or 1, C, H, W]
    angles, scales = _angles(grid)
    alpha, sigma = grid[0].tolist()
    denoise(x, alpha, sigma, label)  # an eps-network that cannot start at alpha = 0 says so
    calls = 1

    def velocity(angle: float, state: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise FloatingPointError(
                f"the probability flow is not followed in {MOST_CALLS} calls: raise rtol and atol, "
                "or end at a noisier level (a network of whole levels has none at sigma = 0)"
            )
        scale = float(np.exp(np.interp(angle, angles, scales)))
        cos, sin = max(0.0, math.cos(angle)), math.sin(angle)  # π/2, rounded up, lies beyond it
        z = torch.from_numpy(state[: size * dim]).to(x).view_as(x).requires_grad_()
        with torch.enable_grad():
            x0, eps = denoise(scale * z, scale * cos, scale * sin, label)
            dz = cos * eps - sin * x0  # [B, C, H, W]
        traces = []
        for j, v in enumerate(vectors):
            more = j + 1 < len(vectors)
            (row,) = torch.autograd.grad(dz, z, v.expand_as(dz), retain_graph=more)
            traces.append((row.double() * v).flatten(1).sum(1))  # vᵀ J v, [B]
        trace = torch.stack(traces)  # [R, B]
        if probes is None:
            trace = trace.sum(0, keepdim=True)
        rates = torch.cat([dz.detach().double().flatten(), trace.flatten()])
        if not bool(rates.isfinite().all()):  # the integrator would go on for ever
            raise FloatingPointError(
                f"the denoiser's answer or its slope is not finite at alpha = {scale * cos:.3g}, "
                f"sigma = {scale * sin:.3g}"
            )
        return rates.cpu().numpy()

    rows = 1 if probes is None else probes
    z = x.detach().double().cpu().flatten() / math.exp(scales[0])
    start = np.concatenate([z.numpy(), np.zeros(rows * size)])
    ends = (float(angles[0]), float(angles[-1]))
    found = solve_ivp(velocity, ends, start, "RK45", t_eval=ends[1:], rtol=rtol, atol=atol)
    if not found.success:
        raise FloatingPointError(f"the probability flow could not be followed: {found.message}")
    end = torch.from_numpy(found.y[:, -1])
    top, change = end[: size * dim].view(size, dim), end[size * dim :].view(rows, size)
    spread = math.sin(ends[1])
    gauss = -0.5 * (top / spread).square().sum(1) - dim * math.log(spread * math.sqrt(2 * math.pi))
    error = torch.zeros(size, dtype=torch.float64)
    if probes is not None:  # of one probe nothing is known
        error = change.std(0) / math.sqrt(rows) if rows > 1 else error * math.nan
    log_prob = gauss + change.mean(0) - dim * float(scales[0])
    noise = (top / spread).view_as(x).to(x)
    return Encoded(noise, log_prob, error, calls)


def ode_log_likelihood(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    *,
    label: Label = None,
    probes: int | None = None,
    seed: int = 0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """log p(x) of the probability flow in nats, float64 [B], for real x[B, C, H, W].

    A density at the grid's last level, as a sampler that starts from N(0, sigma_T²) would make it;
    ``ode_encode`` says how, what the arguments are, and gives the standard error with it.
    ``density_bits`` makes bits per dimension of it.
    """
    options = {"label": label, "probes": probes, "seed": seed, "rtol": rtol, "atol": atol}
    return ode_encode(denoise, x, grid, **options).log_prob  # type: ignore[arg-type]


def dequantise(x: Tensor, levels: int, u: Tensor) -> Tensor:
    """Whole levels x and uniforms u in [0, 1) of one shape -> real images, u's dtype.

    ``to_unit`` with noise that fills each level's bin evenly to both sides: 2(x + u - ½)/(K-1) - 1
    (Uria et al. 2013, made symmetric). Bins have width 2/(K-1); the outer two reach beyond ±1.
    """
    if x.is_floating_point() or x.shape != u.shape or not u.is_floating_point():
        raise ValueError("dequantise takes whole levels, and uniforms in [0, 1) of their shape")
    return to_unit(x, levels, u.dtype) + (2 * u - 1) / (levels - 1)


def density_bits(log_prob: Tensor, dim: int, levels: int) -> Tensor:
    """log densities [B] in nats of images scaled to [-1, 1], as bits per dimension [B].

    -log2 p(x)/D + log2((K-1)/2), for a bin is 2/(K-1) wide. For dequantised images it is, on
    average over the uniforms, an upper bound on -log2 P(x)/D of the whole levels: by Jensen's
    inequality E_u log p(x+u) <= log E_u p(x+u), whose bin's mass is P(x) (Theis et al. 2016, §3.1).
    """
    return -log_prob / (dim * math.log(2)) + math.log2((levels - 1) / 2)


def ode_bits(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    levels: int,
    first: int = 0,
    *,
    probes: int | None = None,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> OdeBits:
    """An upper bound on -log2 P(x)/D for whole levels x, by uniform dequantisation.

    P is what the flow from N(0, sigma_T²) down to level ``first`` (row n-first), divided by alpha
    and rounded, would generate. A network that was trained on whole levels wants a noise
    of about a bin's width there: it knows of no density below (on the way to sigma = 0 it would
    pile everything up on the levels). One draw of the uniforms an image, from ``seed``.
    """
    require.whole("first", first, 0, len(grid) - 2)
    require.whole("levels", levels, 2)
    grid = grid[: len(grid) - first]
    alpha, dim = grid[-1, 0].item(), x[0].numel()
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    y = alpha * dequantise(x, levels, u.to(x.device))
    options = {"probes": probes, "seed": seed + 1, "rtol": rtol, "atol": atol}
    found = ode_encode(denoise, y, grid, **options)  # type: ignore[arg-type]
    bits = density_bits(found.log_prob + dim * math.log(alpha), dim, levels)
    return OdeBits(bits, found.standard_error / (dim * math.log(2)), found.calls)


def _angles(grid: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Angle and log of the scale √(alpha² + sigma²) of each row, the cleanest level first."""
    alpha, sigma = grid.flip(0).unbind(1)
    return torch.atan2(sigma, alpha).numpy(), torch.hypot(alpha, sigma).log().numpy()


def _probes(x: Tensor, probes: int | None, seed: int) -> Tensor:
    """The vectors v of vᵀJv: every axis [D, 1, C, H, W], or Rademacher draws [R, B, C, H, W]."""
    if probes is None:
        return torch.eye(x[0].numel()).view(-1, 1, *x.shape[1:]).to(x)
    generator = torch.Generator().manual_seed(seed)
    return (2.0 * torch.randint(0, 2, (probes, *x.shape), generator=generator) - 1).to(x)
