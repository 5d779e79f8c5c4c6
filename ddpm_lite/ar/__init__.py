"""Autoregressive image models: a chain of easy draws, one position at a time."""

from .base import ARModel, Cache, State, naive
from .conv import MaskedConv2d, PixelCNN
from .dense import MADE, LinearAR, Marginal
from .gated import GatedPixelCNN
from .heads import Categorical, LogisticMixture
from .transformer import ImageGPT

__all__ = [
    "MADE",
    "ARModel",
    "Cache",
    "Categorical",
    "GatedPixelCNN",
    "ImageGPT",
    "LinearAR",
    "LogisticMixture",
    "Marginal",
    "MaskedConv2d",
    "PixelCNN",
    "State",
    "naive",
]
