"""The perfect denoiser of a finite set of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import require
from ..diffusion import Label, Level, Prediction, like


class KernelDenoiser:
    """Exact denoiser when x0 is one of `images`: a softmax over them.

    E[x0 | x] = sum_i w_i x_i with w = softmax_i(log p_i - |x - alpha x_i|^2 / (2 sigma^2)): kernel
    regression, the minimum of the training loss itself (Karras et al. 2022, appendix B.3). Followed
    to the end it gives the training images back: a perfect network memorises.

    images: [N,C,H,W] in [-1, 1].  y: int64[N], for labels.  weights: [N], default equal.  Distances
    are expanded into matrix products, which leaves errors of about (machine epsilon)·|x|²/sigma² in
    the logits: `dtype=torch.float32` is faster, and good for sigma above about 0.05.
    Calling it is `denoise`: it is a `diffusion.Denoise`.
    """

    def __init__(
        self,
        images: Tensor,
        y: Tensor | None = None,
        weights: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if images.ndim != 4 or len(images) == 0 or not images.is_floating_point():
            raise ValueError("images must be floats [N,C,H,W] in [-1, 1]: use data.to_unit")
        require.finite("images", images)
        if y is not None and y.shape != (len(images),):
            raise ValueError(f"y must be int64[{len(images)}]")
        w = torch.ones(len(images)) if weights is None else weights
        if w.shape != (len(images),) or not (w >= 0).all() or not w.sum() > 0:
            raise ValueError(f"weights must be {len(images)} numbers >= 0, not all 0")
        self.shape, self.y = tuple(images.shape[1:]), y
        self._log_p = (w.to(dtype) / w.sum()).log()  # [N]
        points = images.flatten(1).to(dtype)
        self._centre = points.mean(0)  # [D]; distances do not change, rounding errors shrink
        self._points = points - self._centre  # [N,D]
        self._half_norms = self._points.square().sum(1) / 2  # [N]

    def posterior(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Tensor:
        """p(x0 = image i | x_t = x), [B,N] in the dtype of the denoiser; needs sigma > 0."""
        return self._logits(x, alpha, sigma, label)[0].softmax(1)

    def denoise(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        """E[x0 | x_t = x] and E[eps | x_t = x], [B,C,H,W] in x's dtype; (x/alpha, 0) at sigma 0."""
        a, s = like(alpha, x), like(sigma, x)  # [B or 1,1,1,1]
        done = s == 0
        level = torch.where(done, 1.0, s)
        w = self.posterior(x, alpha, level.flatten(), label)  # [B,N]
        x0 = (w @ self._points + self._centre).view_as(x).double()
        x0 = torch.where(done, x.double() / torch.where(done, a, 1.0), x0)
        eps = (x.double() - a * x0) / level
        return Prediction(x0.to(x.dtype), torch.where(done, 0.0, eps).to(x.dtype))

    __call__ = denoise

    def log_prob(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Tensor:
        """log p(x_t = x) in nats, [B]; needs sigma > 0, for the images alone have no density."""
        logits, half_norm, s = self._logits(x, alpha, sigma, label)
        constant = self._points.shape[1] * (s.log() + 0.5 * math.log(2 * math.pi))
        return logits.logsumexp(1) - (half_norm / s**2 + constant)[:, 0]

    def score(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Tensor:
        """Gradient of `log_prob` in x: -E[eps | x] / sigma, [B,C,H,W]; needs sigma > 0."""
        return -self.denoise(x, alpha, sigma, label).eps / like(sigma, x).to(x.dtype)

    def _logits(
        self, x: Tensor, alpha: Level, sigma: Level, label: Label
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log p_i - |x - alpha x_i|^2 / (2 sigma^2) up to |x|^2 / 2 [B,1], and sigma [B or 1,1]."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must be [B, {str(self.shape)[1:-1]}], not {list(x.shape)}")
        require.finite("x", x)
        a, s = (like(v, x).flatten(1).to(self._points.dtype) for v in (alpha, sigma))
        if not (s > 0).all():
            raise ValueError("a finite set of images has a density at sigma > 0 only")
        moved = x.flatten(1).to(self._points.dtype) - a * self._centre  # [B,D]
        near = a * (moved @ self._points.T) - a**2 * self._half_norms  # [B,N]
        logits = self._log_weights(len(x), label) + near / s**2
        return logits, moved.square().sum(1, keepdim=True) / 2, s

    def _log_weights(self, n: int, label: Label) -> Tensor:
        if label is None:
            return self._log_p
        if self.y is None:
            raise ValueError("these images have no labels: pass y=... or leave label out")
        wanted = torch.as_tensor(label).expand(n)[:, None]  # [n,1]
        fits = (wanted == -1) | (wanted == self.y)  # [n,N]
        if not fits.any(1).all():
            raise ValueError(f"no image has that label: there are {self.y.unique().tolist()}")
        return self._log_p.where(fits, -torch.inf).log_softmax(1)
