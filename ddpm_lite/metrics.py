"""Distances between sets of images, as distances between sets of features [N,F].

Every figure made with these states n, the feature space, the reference set, and the floor: the
same distance between two sets of real images. All of it is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Interval",
    "Moments",
    "PrecisionRecall",
    "bootstrap",
    "features",
    "frechet",
    "kernel_distance",
    "moments",
    "precision_recall",
]


class FeatureNet(Protocol):
    """Anything with `.features(x levels [B,C,H,W]) -> [B,F]`, such as `ruler.Ruler`."""

    def features(self, x: Tensor) -> Tensor: ...


class Moments(NamedTuple):
    """Mean [F] and covariance [F,F] (divisor n-1) of n features: all that `frechet` needs."""

    mean: Tensor
    cov: Tensor
    n: int


class PrecisionRecall(NamedTuple):
    """Share of generated features near real ones, and of real ones near generated ones."""

    precision: float
    recall: float


class Interval(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@torch.no_grad()
def features(net: FeatureNet, x: Tensor, batch: int = 500) -> Tensor:
    """Features of levels x [N,C,H,W] (uint8): float64 [N,F] on the CPU.

    A module is put in evaluation mode for the time of the call, and is given x on its own
    device. Generated images pass `to_levels` before this, exactly as real ones are stored, for a
    metric sees rounding too.
    """
    if x.is_floating_point():
        raise ValueError(f"features reads whole levels, not {x.dtype}: use data.to_levels first")
    if len(x) == 0:
        raise ValueError("features needs at least one image")
    if not isinstance(net, torch.nn.Module):
        return torch.cat([net.features(part).double().cpu() for part in x.split(batch)])
    training, weight = net.training, next(net.parameters(), None)
    device = x.device if weight is None else weight.device
    net.eval()
    try:
        return torch.cat([net.features(part.to(device)).double().cpu() for part in x.split(batch)])
    finally:
        net.train(training)


def moments(a: Tensor) -> Moments:
    """Mean and covariance of features [N,F], N > 1."""
    a = _checked(a, "features")
    return Moments(a.mean(0), a.T.cov().reshape(a.shape[1], a.shape[1]), len(a))


def frechet(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """Squared Fréchet (Wasserstein-2) distance between the Gaussians fitted to two feature sets.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982; as a score of images,
    Heusel et al. 2017, eq. 6). Features [N,F] or their `Moments`. Its expectation falls with n:
    compare at equal n only, and keep n well above F.

    The trace of the root is the sum of singular values of A^(1/2) B^(1/2), each root taken from
    symmetric eigenvalues clamped at 0: no root of a non-symmetric product, which fails or turns
    complex where a covariance is singular.
    """
    a, b = (m if isinstance(m, Moments) else moments(m) for m in (a, b))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"{len(a.mean)} features cannot be compared with {len(b.mean)}")
    root = torch.linalg.svdvals(_root(a.cov) @ _root(b.cov)).sum()
    gap = (a.mean - b.mean).square().sum()
    return max(0.0, float(gap + a.cov.trace() + b.cov.trace() - 2 * root))


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov.double())
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kernel_distance(fake: Tensor, real: Tensor, block: int = 2_000) -> float:
    """Unbiased squared maximum mean discrepancy, cubic polynomial kernel (KID).

    k(u, v) = (u.v/F + 1)^3 (Bińkowski et al. 2018, section 4), on features [N,F] standardised by
    the mean and standard deviation of `real`: without that one wide feature decides alone. Zero in
    expectation where the laws agree, at every n; so it can be negative. (The scaling by `real`
    costs a bias of order 1/n.) Features that do not vary in `real` are only centred.
    """
    fake, real = _checked(fake, "fake"), _checked(real, "real")
    _same_width(fake, real)
    scale = real.std(0)
    scale = torch.where(scale > 1e-12 * (1 + real.abs().amax(0)), scale, 1.0)
    u, v = (fake - real.mean(0)) / scale, (real - real.mean(0)) / scale

    def total(x: Tensor, y: Tensor) -> Tensor:
        parts = [((p @ y.T / x.shape[1] + 1) ** 3).sum() for p in x.split(block)]
        return torch.stack(parts).sum()

    def within(x: Tensor) -> Tensor:  # pairs of different points
        itself = ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum()
        return (total(x, x) - itself) / (len(x) * (len(x) - 1))

    return float(within(u) + within(v) - 2 * total(u, v) / (len(u) * len(v)))


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, block: int = 2_000) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eqs 1 and 2).

    A set's manifold is the union of balls around its points, each reaching to its k-th nearest
    neighbour. Precision: share of `fake` [M,F] inside the manifold of `real` [N,F]; recall: share
    of `real` inside the manifold of `fake`. Both depend on N and M: compare at equal sizes.
    """
    real, fake = _checked(real, "real"), _checked(fake, "fake")
    _same_width(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k={k} needs more than k points in each set and k >= 1")

    def inside(points: Tensor, centres: Tensor) -> float:
        # The exact formula, not |a|^2 + |b|^2 - 2ab: a point must lie at distance 0 from itself.
        exact = "donot_use_mm_for_euclid_dist"
        # k + 1, because the nearest neighbour found is the point itself.
        radius = torch.cat(
            [
                torch.cdist(part, centres, compute_mode=exact).kthvalue(k + 1).values
                for part in centres.split(block)
            ]
        )
        hits = [
            (torch.cdist(part, centres, compute_mode=exact) <= radius).any(1)
            for part in points.split(block)
        ]
        return float(torch.cat(hits).double().mean())

    return PrecisionRecall(inside(fake, real), inside(real, fake))


def bootstrap(
    fn: Callable[..., float],
    *arrays: Tensor,
    n: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of `fn(*arrays)`: rows of each array are redrawn independently.

    Percentiles of n redrawn values (Efron and Tibshirani 1993, chapter 13), shifted so that their
    mean is the value: a redrawn row appears twice, which inflates `frechet` and `kernel_distance`
    and would leave the value outside of its interval. What the value's own bias is, the floor
    tells. Arrays that belong together row by row go in as one (`torch.stack(..., 1)`).
    """
    if not arrays or n < 1 or not 0 < level < 1 or any(len(a) == 0 for a in arrays):
        raise ValueError("bootstrap needs non-empty arrays, n >= 1 and 0 < level < 1")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        redrawn = [a[torch.from_numpy(rng.integers(0, len(a), len(a)))] for a in arrays]
        values.append(float(fn(*redrawn)))
    value = float(fn(*arrays))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) - np.mean(values) + value
    return Interval(value, float(low), float(high))


def _checked(a: Tensor, name: str) -> Tensor:
    if a.ndim != 2 or len(a) < 2 or a.shape[1] < 1:
        raise ValueError(f"{name} must be [N,F] with N > 1, not {list(a.shape)}")
    if not a.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")
    return a.detach().double().cpu()


def _same_width(a: Tensor, b: Tensor) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} features cannot be compared with {b.shape[1]}")
