"""Discrete schedules: tables of levels made from variances β_1 … β_T, as in DDPM."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import require
from .base import Levels, Schedule, Time, as_time, as_unit, check_steps

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, §3.2: keeps the last step of a closing schedule finite


class Discrete(Schedule):
    """DDPM's kind: a table of T+1 levels made from T variances β (Ho et al. 2020, eq. 2 and 4).

    Entry 0 is clean, (1, 0); entry k is the level after k steps. Between entries the angle
    atan2(sigma, alpha) is interpolated, so every t in [0, 1] lies on the VP path.

    Args:
        betas: T numbers in (0, 1]; ValueError otherwise.
    """

    path = "vp"
    steps: int

    def __init__(self, betas: Tensor | list[float]) -> None:
        try:
            self.betas = torch.as_tensor(betas, dtype=torch.float64)  # [T]
        except (TypeError, ValueError) as error:
            raise ValueError(f"betas must be a vector of numbers, not {betas!r:.40}") from error
        if self.betas.ndim != 1 or not len(self.betas):
            raise ValueError(f"betas must be a non-empty vector, got shape {[*self.betas.shape]}")
        if not bool(((self.betas > 0) & (self.betas <= 1)).all()):
            raise ValueError("every beta must lie in (0, 1]")
        self.steps = len(self.betas)  # T, the number of noising steps
        log_alpha_bar = torch.log1p(-self.betas).cumsum(0)  # log, so that 1 - ᾱ keeps its digits
        self.alpha_bar = log_alpha_bar.exp()  # [T], ᾱ_1 … ᾱ_T
        alpha, sigma = (0.5 * log_alpha_bar).exp(), (-torch.expm1(log_alpha_bar)).sqrt()
        clean = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        self.table = torch.cat([clean, torch.stack([alpha, sigma], 1)])  # [T+1, 2]
        self.spec = {"class": "Discrete", "betas": self.betas.tolist()}

    def __call__(self, t: Time) -> Levels:
        position = as_time(t) * self.steps
        k = position.floor().long().clamp(max=self.steps - 1)
        table = self.table.to(position.device)
        angle = torch.atan2(table[:, 1], table[:, 0])
        angle = torch.lerp(angle[k], angle[k + 1], position - k)
        on_entry, entry = position == position.round(), table[position.round().long()]
        alpha = torch.where(on_entry, entry[..., 0], angle.cos())  # table entries come back exactly
        sigma = torch.where(on_entry, entry[..., 1], angle.sin())
        return alpha, sigma

    def grid(self, n: int) -> Tensor:
        """As in ``Schedule``; visits entries round(T (n-i)/n). ValueError if n > T."""
        check_steps(n)
        if n > self.steps:
            raise ValueError(
                f"{n} sampling steps asked of a schedule with {self.steps} levels: "
                f"use at most {self.steps}"
            )
        visited = (2 * self.steps * torch.arange(n, -1, -1) + n) // (2 * n)  # halves round up
        return self.table[visited]

    def draw(self, u: Tensor) -> Levels:
        k = 1 + (as_unit(u) * self.steps).floor().long()  # 1 … T: entry 0 is never trained
        levels = self.table.to(u.device)[k]
        return levels[:, 0], levels[:, 1]


class LinearBeta(Discrete):
    """β rises linearly from beta_start to beta_end in T = steps (Ho et al. 2020, §4)."""

    def __init__(self, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        check_steps(steps)
        for name, beta in (("beta_start", beta_start), ("beta_end", beta_end)):
            require.real(name, beta, 0, 1, open_low=True)
        super().__init__(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))
        self.spec = {
            "class": "LinearBeta",
            "steps": steps,
            "beta_start": beta_start,
            "beta_end": beta_end,
        }


class Cosine(Discrete):
    """ᾱ(t) = cos²(π/2 · (t + 0.008) / 1.008), normalised to ᾱ(0) = 1, β ≤ 0.999.

    Nichol & Dhariwal 2021, eq. 17. The clip leaves ᾱ_T ≈ 2e-9 for T = 1000: an error in eps
    is magnified 20,000-fold in x0 at the first sampling step. Predict v or x0, or clip.
    """

    def __init__(self, steps: int = 1000) -> None:
        super().__init__(_betas(steps, lambda t: torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2))
        self.spec = {"class": "Cosine", "steps": steps}


class Sigmoid(Discrete):
    """ᾱ(t) falls as a sigmoid, rescaled to run from 1 to 0, β ≤ 0.999 (Chen 2023, alg. 1)."""

    def __init__(
        self, steps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0
    ) -> None:
        require.real("end", end)
        require.real("start", start, high=end, open_high=True)  # the other way ᾱ would rise
        require.real("tau", tau, 0, open_low=True)

        def alpha_bar(t: Tensor) -> Tensor:
            ends = torch.tensor([start, end], dtype=torch.float64)
            at_start, at_end = torch.sigmoid(ends / tau)
            return (at_end - torch.sigmoid((start + t * (end - start)) / tau)) / (at_end - at_start)

        super().__init__(_betas(steps, alpha_bar))
        self.spec = {"class": "Sigmoid", "steps": steps, "start": start, "end": end, "tau": tau}


def zero_terminal_snr(schedule: Discrete) -> Discrete:
    """Rescale √ᾱ so that the last level carries no signal (Lin et al. 2024, alg. 1).

    √ᾱ_T is subtracted, then the first level restored by a factor. The network must predict
    v, x0 or flow: at alpha = 0 nothing can be told from eps. ValueError unless ``Discrete``.
    """
    if not isinstance(schedule, Discrete) or schedule.steps < 2:
        raise ValueError("zero_terminal_snr needs a discrete schedule: a table of 2 betas or more")
    alpha = schedule.alpha_bar.sqrt()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha[:-1]])
    rescaled = Discrete(1 - (alpha / before) ** 2)
    rescaled.spec = {"class": "zero_terminal_snr", "schedule": schedule.spec}
    return rescaled


def _betas(steps: int, alpha_bar: Callable[[Tensor], Tensor]) -> Tensor:
    """β_k = 1 - ᾱ(k/T) / ᾱ((k-1)/T) from T+1 boundaries, at most ``MAX_BETA``."""
    check_steps(steps)
    bar = alpha_bar(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    return (1 - bar[1:] / bar[:-1]).clamp(max=MAX_BETA)
