"""Continuous schedules, and the shift that any schedule can be given."""

import torch
from torch import Tensor

from .. import require
from .base import Levels, Schedule, Time, as_time, check_steps, on_path


class Flow(Schedule):
    """The straight path alpha = 1 - s, sigma = s with s = t_max · t (Lipman et al. 2023).

    ``t_max`` < 1 stops short of pure noise, where an eps-network has no answer.
    """

    path = "flow"

    def __init__(self, t_max: float = 1.0) -> None:
        require.real("t_max", t_max, 0, 1, open_low=True)
        self.t_max = t_max
        self.spec = {"class": "Flow", "t_max": t_max}

    def __call__(self, t: Time) -> Levels:
        sigma = as_time(t) * self.t_max
        return 1 - sigma, sigma

    def grid(self, n: int) -> Tensor:
        check_steps(n)
        return torch.stack(self(torch.linspace(1, 0, n + 1, dtype=torch.float64)), 1)


class Karras(Schedule):
    """alpha = 1; sigma^(1/rho) is linear in t (Karras et al. 2022, eq. 5).

    t = 0 gives sigma_min, not 0: the grid has n levels from sigma_max to sigma_min, then (1, 0).
    """

    path = "ve"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        require.real("sigma_max", sigma_max, 0, open_low=True)
        require.real("sigma_min", sigma_min, 0, sigma_max, open_low=True, open_high=True)
        require.real("rho", rho, 0, open_low=True)
        self.low, self.high, self.rho = sigma_min ** (1 / rho), sigma_max ** (1 / rho), rho
        self.spec = {"class": "Karras", "sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}

    def __call__(self, t: Time) -> Levels:
        sigma = (self.low + as_time(t) * (self.high - self.low)) ** self.rho
        return torch.ones_like(sigma), sigma

    def grid(self, n: int) -> Tensor:
        check_steps(n)
        levels = torch.stack(self(torch.linspace(1, 0, n, dtype=torch.float64)), 1)
        return torch.cat([levels, torch.tensor([[1.0, 0.0]], dtype=torch.float64)])


class Shifted(Schedule):
    """``schedule`` with 2·log(factor) added to its log-SNR, on the same path."""

    def __init__(self, schedule: Schedule, factor: float) -> None:
        if not isinstance(schedule, Schedule):
            raise ValueError(f"shifted needs a schedule, such as Flow(), not {schedule!r:.40}")
        require.real("factor", factor, 0, open_low=True)
        self.steps = schedule.steps
        self.schedule, self.factor, self.path = schedule, factor, schedule.path
        self.spec = {"class": "shifted", "schedule": schedule.spec, "factor": factor}

    def _shift(self, alpha: Tensor, sigma: Tensor) -> Levels:
        return on_path(alpha, sigma / self.factor, self.path)

    def __call__(self, t: Time) -> Levels:
        return self._shift(*self.schedule(t))

    def grid(self, n: int) -> Tensor:
        return torch.stack(self._shift(*self.schedule.grid(n).unbind(1)), 1)

    def draw(self, u: Tensor) -> Levels:
        return self._shift(*self.schedule.draw(u))


def shifted(schedule: Schedule, factor: float) -> Schedule:
    """Add 2·log(factor) to log_snr and keep the path (Hoogeboom et al. 2023, §3.1).

    Larger images need more noise to hide the same content: factor < 1. Stable Diffusion 3's
    shift s (Esser et al. 2024, eq. 23) is factor 1/s on ``Flow``.
    """
    return Shifted(schedule, factor)


def log_snr_grid(n: int, hi: float, lo: float, path: str = "vp") -> Tensor:
    """n steps uniform in log-SNR from lo (noisiest, first) to hi -> float64[n+1, 2].

    For studies of convergence: it has no end points, where every solver loses its order.
    """
    check_steps(n)
    require.real("hi", hi)
    require.real("lo", lo, high=hi, open_high=True)
    log_snr = torch.linspace(lo, hi, n + 1, dtype=torch.float64)
    ratio = (-0.5 * log_snr).exp()
    return torch.stack(on_path(torch.ones_like(ratio), ratio, path), 1)
