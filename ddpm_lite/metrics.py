"""Distances between sets of images, as distances between sets of features [N,F].

Every figure made with these states n, the feature space, the reference set, and the floor: the
same distance between two sets of real images. All of it is computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from . import require
from ._bootstrap import Interval, bootstrap, nested_bootstrap

__all__ = [
    "Interval",
    "Moments",
    "PrecisionRecall",
    "bootstrap",
    "features",
    "frechet",
    "kernel_distance",
    "moments",
    "nearest",
    "nested_bootstrap",
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


@torch.no_grad()
def features(net: FeatureNet, x: Tensor, batch: int = 500) -> Tensor:
    """Features of levels x [N,C,H,W] (uint8): float64 [N,F] on the CPU.

    A module is put in evaluation mode for the time of the call, and is given x on its own
    device. Generated images pass `to_levels` before this, exactly as real ones are stored, for a
    metric sees rounding too.
    """
    if not hasattr(net, "features"):
        raise ValueError(f"a {type(net).__name__} has no .features(x): give a Ruler, or the like")
    if require.tensor("x", x).is_floating_point():
        raise ValueError(f"features reads whole levels, not {x.dtype}: use data.to_levels first")
    if len(x) == 0:
        raise ValueError("features needs at least one image")
    require.whole("batch", batch)
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


def kernel_distance(fake: Tensor, real: Tensor, *, block: int = 2_000) -> float:
    """Unbiased squared maximum mean discrepancy, cubic polynomial kernel (KID).

    k(u, v) = (u.v/F + 1)^3 (Bińkowski et al. 2018, section 4), on features [N,F] standardised by
    the mean and standard deviation of `real`: without that one wide feature decides alone. Zero in
    expectation where the laws agree, at every n; so it can be negative. (The scaling by `real`
    costs a bias of order 1/n.) Features that do not vary in `real` are only centred; one that
    varies there less than half as much as in both sets together is divided by that half, or a few
    dozen images in which a class happens to be missing would make the cube explode.
    """
    fake, real = _checked(fake, "fake"), _checked(real, "real")
    _same_width(fake, real)
    require.whole("block", block)
    scale = torch.maximum(real.std(0), 0.5 * torch.cat([fake, real]).std(0))
    scale = torch.where(scale > 1e-12 * (1 + real.abs().amax(0)), scale, 1.0)
    u, v = (fake - real.mean(0)) / scale, (real - real.mean(0)) / scale

    def total(x: Tensor, y: Tensor) -> Tensor:
        parts = [((p @ y.T / x.shape[1] + 1) ** 3).sum() for p in x.split(block)]
        return torch.stack(parts).sum()

    def within(x: Tensor) -> Tensor:  # pairs of different points
        itself = ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum()
        return (total(x, x) - itself) / (len(x) * (len(x) - 1))

    return float(within(u) + within(v) - 2 * total(u, v) / (len(u) * len(v)))


def precision_recall(
    fake: Tensor, real: Tensor, *, k: int = 3, block: int = 2_000
) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eqs 1 and 2).

    A set's manifold is the union of balls around its points, each reaching to its k-th nearest
    neighbour. Precision: share of `fake` [M,F] inside the manifold of `real` [N,F]; recall: share
    of `real` inside the manifold of `fake`. Both depend on N and M: compare at equal sizes.
    """
    fake, real = _checked(fake, "fake"), _checked(real, "real")
    _same_width(fake, real)
    if require.whole("k", k) >= min(len(real), len(fake)):
        raise ValueError(f"k={k} needs more than k points in each set")
    require.whole("block", block)

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


def nearest(x: Tensor, reference: Tensor, block: int = 1_000) -> tuple[Tensor, Tensor]:
    """Distance [N] of each of x [N, ...] to the nearest of `reference` [M, ...], and its index [N].

    Root mean square over the numbers of an image, in their unit.
    The test for memorising: generated images against training images, beside held-out real images
    against the same ones (Carlini et al. 2023). A model that has copied comes out near 0.
    """
    if x.shape[1:] != reference.shape[1:] or not len(x) or not len(reference):
        raise ValueError(f"{[*x.shape]} and {[*reference.shape]} must be images of one shape")
    points, exact = reference.flatten(1).double(), "donot_use_mm_for_euclid_dist"
    parts = [
        torch.cdist(part, points, compute_mode=exact).min(1)
        for part in x.flatten(1).double().split(block)
    ]
    distance = torch.cat([p.values for p in parts]) / points.shape[1] ** 0.5
    return distance, torch.cat([p.indices for p in parts])


def _checked(a: Tensor, name: str) -> Tensor:
    if require.tensor(name, a).ndim != 2 or len(a) < 2 or a.shape[1] < 1:
        raise ValueError(f"{name} must be [N,F] with N > 1, not {list(a.shape)}")
    return require.finite(name, a).detach().double().cpu()


def _same_width(a: Tensor, b: Tensor) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} features cannot be compared with {b.shape[1]}")
