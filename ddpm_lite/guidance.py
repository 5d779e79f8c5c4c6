"""Classifier-free guidance (Ho & Salimans 2022): one network, asked with and without the label."""

import torch
from torch import Tensor

from . import require
from .diffusion import Denoise, Label, Level, Prediction, label_rows, like


def guided(denoise: Denoise, weight: float) -> Denoise:
    """eps_u + weight·(eps_c - eps_u): 1 is the conditional model, 0 the unconditional one.

    Ho & Salimans write (1 + w)·eps_c - w·eps_u, so ``weight`` is their w + 1. Both predictions come
    from one batched pass over 2B images; neither is clipped (see ``diffusion.clipped``).
    The returned function raises ValueError when called without a label.
    """

    require.real("weight", weight)

    def denoise_guided(x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        if label is None:
            raise ValueError("guidance needs a label to guide towards: pass label=")
        label = label_rows(label, len(x)).to(x.device)
        both = denoise(
            torch.cat([x, x]),
            like(alpha, x).flatten().expand(len(x)).repeat(2),
            like(sigma, x).flatten().expand(len(x)).repeat(2),
            torch.cat([label, torch.full_like(label, -1)]),
        )
        (x0_c, x0_u), (eps_c, eps_u) = both.x0.chunk(2), both.eps.chunk(2)
        # at a given x, x0 is affine in eps and the two weights sum to 1: it combines the same way
        return Prediction(x0_u + weight * (x0_c - x0_u), eps_u + weight * (eps_c - eps_u))

    return denoise_guided
