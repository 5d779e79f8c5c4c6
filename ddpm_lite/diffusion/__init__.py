"""The diffusion seam: ``denoise(x, alpha, sigma, label) -> Prediction(x0, eps)``.

Whatever a network was trained to predict, a sampler sees both the clean image it expects and
the noise it expects, which always satisfy ``x = alpha * x0 + sigma * eps``.
"""

from .bound import Elbo, choose_first, elbo, elbo_by_level
from .denoiser import (
    TARGETS,
    Denoise,
    Denoiser,
    Label,
    Level,
    Prediction,
    clipped,
    diffuse,
    label_rows,
    like,
    loss,
)
from .ode import (
    Encoded,
    OdeBits,
    density_bits,
    dequantise,
    ode_bits,
    ode_encode,
    ode_log_likelihood,
)
from .weights import WEIGHTS, Weight, elbo_weight, min_snr, uniform, weighting

__all__ = [
    "TARGETS",
    "WEIGHTS",
    "Denoise",
    "Denoiser",
    "Elbo",
    "Encoded",
    "Label",
    "Level",
    "OdeBits",
    "Prediction",
    "Weight",
    "choose_first",
    "clipped",
    "density_bits",
    "dequantise",
    "diffuse",
    "elbo",
    "elbo_by_level",
    "elbo_weight",
    "label_rows",
    "like",
    "loss",
    "min_snr",
    "ode_bits",
    "ode_encode",
    "ode_log_likelihood",
    "uniform",
    "weighting",
]
