"""Small autoregressive models for the tests, with weights that leave nothing dead or saturated."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_lite.ar import MADE, ARModel, GatedPixelCNN, ImageGPT, LinearAR, Marginal, PixelCNN
from ddpm_lite.ar.heads import LevelEmbedding

Build = Callable[..., ARModel]
Shape = tuple[int, int, int]


def shuffled(shape: Shape) -> Tensor:
    D = shape[0] * shape[1] * shape[2]
    return torch.randperm(D, generator=torch.Generator().manual_seed(D))


def made(shape: Shape, levels: int, **kw: Any) -> MADE:
    return MADE(shape, levels, width=8 * shape[0] * shape[1] * shape[2], layers=2, **kw)


BUILD: dict[str, Build] = {
    "linear": LinearAR,
    "linear-shuffled": lambda s, k, **kw: LinearAR(s, k, order=shuffled(s), **kw),
    "made": made,
    "made-shuffled": lambda s, k, **kw: made(s, k, order=shuffled(s), **kw),
    "pixelcnn": lambda s, k, **kw: PixelCNN(s, k, width=12, layers=5, **kw),
    "gated": lambda s, k, **kw: GatedPixelCNN(s, k, width=12, layers=4, **kw),
    "gated-logistic": lambda s, k, **kw: GatedPixelCNN(
        s, k, width=12, layers=4, head="logistic", **kw
    ),
    "gated-positions": lambda s, k, **kw: GatedPixelCNN(
        s, k, width=12, layers=4, positions=True, **kw
    ),
    "imagegpt": lambda s, k, **kw: ImageGPT(s, k, width=16, layers=2, heads=2, **kw),
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


def jacobian(model: ARModel, label: int | None = None, seed: int = 0) -> Tensor:
    """float64[D,D]: how strongly the logits of rank i (row) change with the value of rank j.

    Models read whole levels, so each is continued to all reals: where an embedding is looked up,
    by the polynomials that are one-hot at the levels; everywhere else values are numbers already.
    At an image the continued model is the model, to rounding, and that is asserted.
    """
    model = copy.deepcopy(model).double()
    whole = images(model, 1, seed)
    expected = model.logits(whole, label).detach()
    K, D = model.levels, model.D
    for module in model.modules():
        if isinstance(module, LevelEmbedding):
            module.forward = partial(_continued, module.weight)  # type: ignore[method-assign]
    model.check = lambda x: x  # type: ignore[method-assign]
    x = whole.double().expand(D, -1, -1, -1).clone().requires_grad_()
    logits = model.logits(x, label)  # [D,C,H,W,K]
    torch.testing.assert_close(logits[:1], expected)
    own = by_rank(model, logits)[torch.arange(D), torch.arange(D)]  # copy i keeps rank i: [D,K]
    rows = [torch.autograd.grad(own[:, k].sum(), x, retain_graph=True)[0] for k in range(K)]
    return by_rank(model, torch.stack(rows).square().sum(0).sqrt())


def _continued(weight: Tensor, x: Tensor) -> Tensor:
    """Rows of `weight` [K,F] at real x [...]: Lagrange's polynomial through the levels."""
    K = len(weight)
    gaps = x[..., None] - torch.arange(K)  # [...,K]
    factors = gaps[..., None, :].expand(*x.shape, K, K)  # level k, other level m
    steps = torch.arange(K)[:, None] - torch.arange(K)
    same = torch.eye(K, dtype=torch.bool)
    ones = torch.where(same, 1.0, factors / torch.where(same, 1, steps)).prod(-1)  # [...,K]
    return ones @ weight


def marginal(shape: Shape, levels: int) -> ARModel:
    return awake(Marginal(shape, levels))
