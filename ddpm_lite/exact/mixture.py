"""Mixtures of Gaussians: closed under noise, so that every expectation of diffusion is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import require
from ..diffusion import Label, Level, Prediction, like


class GaussianMixture:
    """p(x0) = sum_m w_m N(mu_m, S_m) in any dimension D = C·H·W; computed in float64.

    means: [M,D] or [M,C,H,W].  covs: a float or [M] (variances, isotropic), [M,D] (diagonal) or
    [M,D,D]; semidefinite is enough wherever sigma > 0.  weights: [M], normalised here; default
    equal.  classes: int64[M], the class of each component; default: component m is class m.

    Images are x[B,C,H,W] with C·H·W = D (one dimension: [B,1,1,1]). Noised to level (alpha, sigma)
    component m is N(alpha mu_m, alpha^2 S_m + sigma^2 I); label None or -1 means all classes.
    Calling the mixture is `denoise`: it is a `diffusion.Denoise`.
    """

    def __init__(
        self,
        means: Tensor | Sequence,
        covs: Tensor | Sequence | float,
        weights: Tensor | Sequence[float] | None = None,
        classes: Tensor | Sequence[int] | None = None,
    ) -> None:
        means = require.finite("means", torch.as_tensor(means, dtype=torch.float64))
        if means.ndim < 2:
            raise ValueError(f"means must be [M,D] or [M,C,H,W], not {list(means.shape)}")
        self.means = means.flatten(1)  # [M,D]
        count, dim = self.means.shape
        cov = torch.as_tensor(covs, dtype=torch.float64)
        self._basis: Tensor | None = None
        if cov.shape == (count, dim, dim):
            if not torch.allclose(cov, cov.mT):
                raise ValueError("covs must be symmetric")
            # In the basis of each covariance all that noise does is add sigma^2 to its eigenvalues.
            self._spread, self._basis = torch.linalg.eigh(cov)  # [M,D], columns of [M,D,D]
            slack = 1e-12 * self._spread.abs().amax(1, keepdim=True)
            self._spread = torch.where(self._spread.abs() <= slack, 0.0, self._spread)
        elif cov.shape in ((), (count,), (count, dim)):
            self._spread = cov.reshape(*cov.shape, *[1] * (2 - cov.ndim)).expand(count, dim)
        else:
            raise ValueError(f"covs {list(cov.shape)} do not fit means {[count, dim]}")
        if not (self._spread >= 0).all():
            raise ValueError("covs must be positive semidefinite (variances, not deviations)")
        w = torch.ones(count) if weights is None else torch.as_tensor(weights)
        if w.shape != (count,) or not (w >= 0).all() or not 0 < w.sum() < math.inf:
            raise ValueError(f"weights must be {count} numbers >= 0, not all 0")
        self.weights = w.double() / w.double().sum()  # [M]
        self.classes = torch.arange(count) if classes is None else torch.as_tensor(classes)
        if self.classes.shape != (count,):
            raise ValueError(f"classes must be {count} class numbers")

    def log_prob(
        self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0, label: Label = None
    ) -> Tensor:
        """log p(x_t = x) in nats, float64 [B]; differentiable in x."""
        joint, *_ = self._solve(x, alpha, sigma, label)
        return joint.logsumexp(1)

    def posterior(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Tensor:
        """p(component | x_t = x), float64 [B,M]."""
        joint, *_ = self._solve(x, alpha, sigma, label)
        return joint.softmax(1)

    def denoise(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        """E[x0 | x_t = x] and E[eps | x_t = x], each [B,C,H,W] in x's dtype.

        At sigma = 0 the answer is (x / alpha, 0), as for a trained `Denoiser`.
        """
        a, s = like(alpha, x).flatten(1), like(sigma, x).flatten(1)  # [B or 1,1]
        joint, z, variance = self._solve(x, alpha, sigma, label, safe=True)
        r = joint.softmax(1)[..., None]  # [B,M,1]
        x0 = self.means + self._turn(a[..., None] * self._spread / variance * z)  # [B,M,D]
        x0 = (r * x0).sum(1)  # [B,D]
        eps = s * (r * self._turn(z / variance)).sum(1)  # no division by sigma
        known = s == 0
        x0 = torch.where(known, x.double().flatten(1) / torch.where(known, a, 1.0), x0)
        eps = torch.where(known, 0.0, eps)
        return Prediction(x0.view_as(x).to(x.dtype), eps.view_as(x).to(x.dtype))

    __call__ = denoise

    def score(
        self, x: Tensor, alpha: Level = 1.0, sigma: Level = 0.0, label: Label = None
    ) -> Tensor:
        """Gradient of `log_prob` in x, [B,C,H,W] in x's dtype; equals -E[eps | x] / sigma."""
        joint, z, variance = self._solve(x, alpha, sigma, label)
        score = -(joint.softmax(1)[..., None] * self._turn(z / variance)).sum(1)
        return score.view_as(x).to(x.dtype)

    def given(self, x: Tensor, alpha: float, sigma: float) -> GaussianMixture:
        """p(x0 | x_t = x) for one x [1,C,H,W], again a mixture: what one reverse step would need.

        Component m: weight p(m | x), mean E[x0 | x, m], covariance S sigma^2 (alpha^2 S +
        sigma^2)^-1.
        """
        if len(x) != 1 or sigma <= 0:
            raise ValueError("given conditions on one noisy image: x[1,C,H,W] and sigma > 0")
        joint, z, variance = self._solve(x, alpha, sigma, None)
        means = self.means + self._turn(alpha * self._spread / variance * z)[0]  # [M,D]
        spread = self._spread * sigma**2 / variance[0]  # [M,D]
        covs = spread if self._basis is None else _rebuild(self._basis, spread)
        return GaussianMixture(means, covs, joint.softmax(1)[0], self.classes)

    def sample(self, n: int, seed: int = 0, label: int | None = None) -> Tensor:
        """n draws of x0, float64 [n,D] (`.view(n, C, H, W)` for images)."""
        require.whole("n", n)
        rng = torch.Generator().manual_seed(seed)
        weights = self._log_weights(1, label)[0].exp()
        m = torch.multinomial(weights, n, replacement=True, generator=rng)
        unit = torch.randn(n, self.means.shape[1], generator=rng, dtype=torch.float64)
        scaled = self._spread[m].sqrt() * unit  # [n,D]
        if self._basis is not None:
            scaled = torch.einsum("nij,nj->ni", self._basis[m], scaled)
        return self.means[m] + scaled

    def _log_weights(self, n: int, label: Label) -> Tensor:
        """log p(component | label), [n,M]."""
        wanted = torch.as_tensor(-1 if label is None else label).expand(n)[:, None]  # [n,1]
        if not ((wanted == -1) | (wanted == self.classes).any(1, keepdim=True)).all():
            raise ValueError(f"no such class: the mixture has {self.classes.unique().tolist()}")
        fits = (wanted == -1) | (wanted == self.classes)
        return self.weights.log().where(fits, -torch.inf).log_softmax(1)

    def _solve(
        self, x: Tensor, alpha: Level, sigma: Level, label: Label, safe: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log p(m, x) [B,M]; z = residuals in each basis [B,M,D]; their variances [B or 1,M,D]."""
        if x.ndim != 4 or x[0].numel() != self.means.shape[1]:
            raise ValueError(
                f"x must be [B,C,H,W] with C·H·W = {self.means.shape[1]}, not {list(x.shape)}"
            )
        a, s = (like(v, require.finite("x", x)).reshape(-1, 1, 1) for v in (alpha, sigma))
        if not bool(((a >= 0) & (s >= 0)).all()):
            raise ValueError("alpha and sigma must be numbers >= 0")
        variance = a**2 * self._spread + s**2  # [B or 1,M,D]
        if safe:  # a flat direction at sigma = 0: the caller overrides the answer
            variance = variance.where(variance > 0, 1.0)
        elif not (variance > 0).all():
            raise ValueError("no density: a component is flat in some direction and sigma is 0")
        z = x.double().flatten(1)[:, None] - a * self.means  # [B,M,D]
        if self._basis is not None:
            z = torch.einsum("mij,bmi->bmj", self._basis, z)
        joint = -0.5 * (z**2 / variance + variance.log() + math.log(2 * math.pi)).sum(-1)
        return joint + self._log_weights(len(x), label), z, variance

    def _turn(self, z: Tensor) -> Tensor:
        """Back from the bases of the components, [B,M,D]."""
        return z if self._basis is None else torch.einsum("mij,bmj->bmi", self._basis, z)


def _rebuild(basis: Tensor, spread: Tensor) -> Tensor:
    return basis @ (spread[:, :, None] * basis.mT)
