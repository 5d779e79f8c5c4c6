"""Noise schedules: how much of the image and how much noise there is at each time.

One convention throughout: **t = 0 is data, t = 1 is noise**, a noisy image is
``x = alpha * x0 + sigma * eps`` and ``log_snr = log(alpha² / sigma²)``.

A schedule is a path, which ties alpha to sigma, and a ratio sigma/alpha that runs along it:

=======  ==================  ==========================================
path     tie                 who uses it
=======  ==================  ==========================================
``vp``   alpha² + sigma² = 1  DDPM (variance preserving)
``flow`` alpha + sigma = 1    flow matching, rectified flow
``ve``   alpha = 1            score matching with Langevin dynamics, EDM
=======  ==================  ==========================================

Samplers, the ELBO and the ODE know a schedule only as a *grid*: rows (alpha, sigma), the
noisiest first. Lectures write ᾱ; the code's ``alpha`` is √ᾱ (DDPM's own α_t is 1 - β_t).
"""

from collections.abc import Callable
from typing import Any

from .. import require
from .base import Schedule, check_grid, on_path
from .continuous import Flow, Karras, Shifted, log_snr_grid, shifted
from .discrete import Cosine, Discrete, LinearBeta, Sigmoid, zero_terminal_snr

__all__ = [
    "SCHEDULES",
    "Cosine",
    "Discrete",
    "Flow",
    "Karras",
    "LinearBeta",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "check_grid",
    "from_spec",
    "log_snr_grid",
    "on_path",
    "shifted",
    "zero_terminal_snr",
]


def from_spec(spec: dict[str, Any]) -> Schedule:
    """The schedule that a spec describes. ValueError names the known ones, or what does not fit."""
    if not isinstance(spec, dict):
        raise ValueError(f'a spec is a table such as {{"class": "Cosine"}}, not {spec!r:.40}')
    arguments = dict(spec)
    name = require.choice("schedule", arguments.pop("class", None), SCHEDULES)
    if "schedule" in arguments:
        arguments["schedule"] = from_spec(arguments["schedule"])
    try:
        return SCHEDULES[name](**arguments)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made from its spec: {error}") from error


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "Cosine": Cosine,
    "Discrete": Discrete,
    "Flow": Flow,
    "Karras": Karras,
    "LinearBeta": LinearBeta,
    "Sigmoid": Sigmoid,
    "shifted": shifted,
    "zero_terminal_snr": zero_terminal_snr,
}
