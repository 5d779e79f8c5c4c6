"""The diffusion seam: ``denoise(x, alpha, sigma, label) -> Prediction(x0, eps)``.

Whatever a network was trained to predict, a sampler sees both the clean image it expects and
the noise it expects, which always satisfy ``x = alpha * x0 + sigma * eps``.
"""

from .bound import Elbo, elbo, elbo_by_level
from .denoiser import (
    TARGETS,
    Denoise,
    Denoiser,
    Label,
    Level,
    Prediction,
    clipped,
    diffuse,
    like,
    loss,
)

__all__ = [
    "TARGETS",
    "Denoise",
    "Denoiser",
    "Elbo",
    "Label",
    "Level",
    "Prediction",
    "clipped",
    "diffuse",
    "elbo",
    "elbo_by_level",
    "like",
    "loss",
]
