"""ddpm_lite: autoregressive and diffusion image models from nothing, on the same pixels.

Two seams carry everything: ``denoise(x, alpha, sigma, label) -> Prediction(x0, eps)`` for
diffusion and ``step(cache, i) -> logits`` beside ``logits(x)`` for autoregression. The names below
are those a notebook starts with; everything else lives in the submodules.
"""

from .ar import MADE, ARModel, GatedPixelCNN, ImageGPT, LinearAR, Marginal, PixelCNN
from .checkpoint import pretrained
from .data import Images, to_levels, to_unit
from .diffusion import Denoiser, Prediction
from .guidance import guided
from .samplers import last, sample
from .schedules import Cosine, Discrete, Flow, Karras, LinearBeta, Schedule, Sigmoid
from .unet import UNet
from .version import __version__

__all__ = [
    "MADE",
    "ARModel",
    "Cosine",
    "Denoiser",
    "Discrete",
    "Flow",
    "GatedPixelCNN",
    "ImageGPT",
    "Images",
    "Karras",
    "LinearAR",
    "LinearBeta",
    "Marginal",
    "PixelCNN",
    "Prediction",
    "Schedule",
    "Sigmoid",
    "UNet",
    "__version__",
    "guided",
    "last",
    "pretrained",
    "sample",
    "to_levels",
    "to_unit",
]
