"""What each noise level's error counts for: the weights of the training loss.

Minimising any of them at every level gives the same perfect denoiser; a network that is not perfect
spends its strength where the weight is. All are functions (alpha[B], sigma[B]) -> weight[B] on
the error of a ``Denoiser``'s raw output, for levels that its schedule draws uniformly.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import require
from ..schedules import Schedule, check_grid
from .denoiser import TARGETS, Denoiser

Weight = Callable[[Tensor, Tensor], Tensor]  # (alpha[B], sigma[B]) -> [B]
DEPTH = 1000  # levels that the bound of a continuous schedule is cut into


def uniform(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1 at every level: DDPM's L_simple for eps (Ho et al. 2020, eq. 14), EDM's for v."""
    return torch.ones_like(alpha)


# min(SNR, γ) on the error of x0, said for the error of each target; from a² and s², a² + s² = 1
_MIN_SNR: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "eps": lambda a2, s2, gamma: (gamma * s2 / a2).clamp(max=1),  # min(SNR, γ) / SNR
    "x0": lambda a2, s2, gamma: (a2 / s2).clamp(max=gamma),  # min(SNR, γ)
    "v": lambda a2, s2, gamma: torch.minimum(a2, gamma * s2),  # min(SNR, γ) / (SNR + 1)
    "flow": lambda a2, s2, gamma: (  # min(SNR, γ) / (√SNR + 1)²
        torch.minimum(a2, gamma * s2) / (a2.sqrt() + s2.sqrt()) ** 2
    ),
}


def min_snr(denoiser: Denoiser, gamma: float = 5.0) -> Weight:
    """min(SNR, γ) on the squared error of x0 (Hang et al. 2023, eq. 8 and §3.4).

    For x0 that is the weight itself; for eps it becomes min(SNR, γ)/SNR, for v min(SNR, γ)/(SNR+1),
    for flow min(SNR, γ)/(√SNR+1)². SNR is that of the normalised coordinates, where the data have
    unit variance: (alpha·sigma_data/sigma)².
    """
    require.real("gamma", gamma, 0, open_low=True)

    def weight(alpha: Tensor, sigma: Tensor) -> Tensor:
        a, s = _normalised(denoiser, alpha, sigma)
        return _MIN_SNR[denoiser.predicts](a.square(), s.square(), gamma)

    return weight


def elbo_weight(denoiser: Denoiser, grid: Tensor, first: int = 1) -> Weight:
    """The weight with which the loss is the ELBO's diffusion term, in nats per dimension.

    Level k of the n levels of the grid counts n/2 · (SNR(k-1) - SNR(k)) for the squared error of x0
    (Kingma et al. 2021, eq. 13-14), so that the mean over uniformly drawn k is the sum over the
    chain; a level between two rows counts as the noisier one. Levels up to ``first``, where the
    chain stops and the decoder takes over without asking the network, count 0.

    ValueError for a ``first`` that the grid does not have, and for an eps-network on a grid that
    begins at alpha = 0, where its weight has no end.
    """
    grid = check_grid(grid)
    n = len(grid) - 1
    require.whole("first, a noisy level of the grid,", first, 1, n)
    if denoiser.predicts == "eps" and grid[0, 0] == 0:
        raise ValueError("the ELBO's weight of eps is infinite at alpha = 0: predict v, x0 or flow")
    ratio = grid[:, 0] / grid[:, 1]  # √SNR, rising; inf in the last row
    step = 0.5 * n * ratio.square().diff()
    step[n - first :] = 0.0  # levels first, …, 1

    def weight(alpha: Tensor, sigma: Tensor) -> Tensor:
        rows = torch.searchsorted(ratio.to(alpha.device), alpha / sigma, right=True) - 1
        of_x0 = step.to(alpha.device)[rows.clamp(0, n - 1)]  # [B]
        a, s = _normalised(denoiser, alpha, sigma)
        p, q = TARGETS[denoiser.predicts](a, s)
        of_target = (denoiser.sigma_data * s / (a * p - s * q)) ** 2  # squared error of x0 per raw
        return torch.where(of_x0 == 0, 0.0, of_x0 * of_target)

    return weight


WEIGHTS: dict[str, Callable[[Denoiser, Schedule], Weight]] = {
    "uniform": lambda denoiser, schedule: uniform,
    "min-snr": lambda denoiser, schedule: min_snr(denoiser),
    "elbo": lambda denoiser, schedule: elbo_weight(
        denoiser, schedule.grid(schedule.steps or DEPTH)
    ),
}


def weighting(name: str, denoiser: Denoiser, schedule: Schedule) -> Weight:
    """The weight of that name, for a denoiser that is trained on a schedule."""
    return WEIGHTS[require.choice("weight", name, WEIGHTS)](denoiser, schedule)


def _normalised(denoiser: Denoiser, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    signal, noise = alpha.double() * denoiser.sigma_data, sigma.double()
    c = torch.hypot(signal, noise)
    return signal / c, noise / c
