"""Small autoregressive models for the tests, with weights that leave nothing dead or saturated."""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_lite.ar import MADE, ARModel, GatedPixelCNN, LinearAR, Marginal, PixelCNN

Build = Callable[..., ARModel]
Shape = tuple[int, int, int]


def shuffled_made(shape: Shape, levels: int, **kw: int) -> MADE:
    D = shape[0] * shape[1] * shape[2]
    order = torch.randperm(D, generator=torch.Generator().manual_seed(D))
    return MADE(shape, levels, width=8 * D, layers=2, order=order, **kw)


BUILD: dict[str, Build] = {
    "linear": LinearAR,
    "made": lambda s, k, **kw: MADE(s, k, width=8 * s[0] * s[1] * s[2], layers=2, **kw),
    "made-shuffled": shuffled_made,
    "pixelcnn": lambda s, k, **kw: PixelCNN(s, k, width=12, layers=5, **kw),
    "gated": lambda s, k, **kw: GatedPixelCNN(s, k, width=12, layers=4, **kw),
    "gated-logistic": lambda s, k, **kw: GatedPixelCNN(
        s, k, width=12, layers=4, head="logistic", **kw
    ),
}
NAMES = sorted(BUILD)


def awake(model: ARModel, dtype: torch.dtype = torch.float64, seed: int = 0) -> ARModel:
    """The model in evaluation mode, every parameter moved by noise of a fixed seed."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            fan_in = max(1, p[0].numel()) if p.ndim > 1 else 4
            p.add_(torch.randn(p.shape, generator=g) / fan_in**0.5)
    return model.to(dtype).eval()


def build(
    name: str, shape: Shape, levels: int, dtype: torch.dtype = torch.float64, **kw: int
) -> ARModel:
    torch.manual_seed(0)
    return awake(BUILD[name](shape, levels, **kw), dtype)


def images(model: ARModel, n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(model.levels, (n, *model.shape), generator=g)


def by_rank(model: ARModel, x: Tensor) -> Tensor:
    """[B,C,H,W,...] -> [B,D,...], sorted by rank."""
    return x.flatten(1, 3)[:, model.order]


@torch.no_grad()
def influence(model: ARModel, seed: int = 0) -> Tensor:
    """bool[D,D]: do the logits of rank i move when the value of rank j is any other level?

    Both batches have the same shape, so an image that is not influenced takes exactly the same
    floating-point operations: equality is exact.
    """
    K, D, x = model.levels, model.D, images(model, 1, seed)
    changed = x.flatten(1).repeat(D * (K - 1), 1)  # [D(K-1),D]
    for j, position in enumerate(model.order.tolist()):
        for k in range(K - 1):
            changed[j * (K - 1) + k, position] += k + 1
    changed = (changed % K).view(-1, *model.shape)
    moved = model.logits(changed) != model.logits(x.expand_as(changed).contiguous())
    return by_rank(model, moved).any(-1).view(D, K - 1, D).any(1).T  # [i,j]


def marginal(shape: Shape, levels: int) -> ARModel:
    return awake(Marginal(shape, levels))
