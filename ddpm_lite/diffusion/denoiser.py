"""The seam, and a network and what it predicts made into one."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .. import require

Level = float | Tensor  # alpha or sigma: one number, or one per image [B]
Label = int | Tensor | None  # class index, int64[B], or None (= -1) for the null class

LOG_SNR_LIMIT = 20.0  # ±∞ at the ends of a schedule must not reach a network


class Prediction(NamedTuple):
    """What a denoiser expects behind x: the clean image and the noise, each [B, C, H, W]."""

    x0: Tensor
    eps: Tensor


class Denoise(Protocol):
    """The seam. x[B, C, H, W]; alpha and sigma scalars or [B]; label int, int64[B] or None."""

    def __call__(
        self, x: Tensor, alpha: Level, sigma: Level, label: Label = None
    ) -> Prediction: ...


# y = p * eps + q * u in normalised coordinates x/c = a * u + s * eps, with u = x0 / sigma_data
TARGETS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": lambda a, s: (torch.ones_like(a), torch.zeros_like(s)),  # Ho et al. 2020, eq. 14
    "x0": lambda a, s: (torch.zeros_like(a), torch.ones_like(s)),
    "v": lambda a, s: (a, -s),  # Salimans & Ho 2022, app. D
    "flow": lambda a, s: (torch.ones_like(a), -torch.ones_like(s)),  # Lipman et al. 2023, eq. 23
}


def like(v: Level, x: Tensor) -> Tensor:
    """A level as float64 [B or 1, 1, 1, 1], to broadcast against images x[B, C, H, W]."""
    v = torch.as_tensor(v, dtype=torch.float64)
    if v.numel() not in (1, len(x)):
        raise ValueError(f"a level must be one number or one per image ({len(x)}), got {v.numel()}")
    return v.reshape(-1, 1, 1, 1)


def label_rows(label: int | Tensor, n: int) -> Tensor:
    """A label as int64[n]; ValueError unless it is one whole number, or one for each image."""
    y = torch.as_tensor(label) if isinstance(label, int | Tensor) else None
    if y is None or y.is_floating_point() or y.shape not in ((), (n,)):
        raise ValueError(f"label must be an int or int64[{n}], not {label!r:.40}")
    return y.long().expand(n)


def diffuse(x0: Tensor, alpha: Level, sigma: Level, noise: Tensor) -> Tensor:
    """q(x_t | x_0) by reparameterisation: alpha * x0 + sigma * noise (Ho et al. 2020, eq. 4)."""
    return like(alpha, x0).to(x0) * x0 + like(sigma, x0).to(x0) * noise


class Denoiser(nn.Module):
    """A network and what it predicts, made into a ``Denoise``.

    With c = √(alpha²·sigma_data² + sigma²) the network sees x/c, which has unit variance, and the
    log-SNR of (a, s) = (alpha·sigma_data/c, sigma/c); its output is the target in these
    coordinates. So one trained network is sampled along any Gaussian path.

    Args:
        net: (x[B, C, H, W], log_snr[B], label int64[B] or None) -> [B, C, H, W].
        predicts: "eps", "x0", "v" or "flow".
        sigma_data: standard deviation of the data the network is preconditioned for; with v this
            is the preconditioning of EDM (Karras et al. 2022, table 1) up to sign.
    """

    def __init__(self, net: nn.Module, predicts: str = "v", sigma_data: float = 1.0) -> None:
        super().__init__()
        require.choice("target", predicts, TARGETS)
        require.real("sigma_data", sigma_data, 0, open_low=True)
        if not callable(net):
            raise ValueError(f"net must be a network (x, log_snr, label) -> y, not {net!r:.40}")
        self.net, self.predicts, self.sigma_data = net, predicts, sigma_data
        self.info: dict[str, Any] = {}

    @property
    def spec(self) -> dict[str, Any]:
        """JSON description from which the same architecture can be built again."""
        own = {"class": "Denoiser", "predicts": self.predicts, "sigma_data": self.sigma_data}
        return own | {"net": self.net.spec}

    def normalised(self, x: Tensor, alpha: Level, sigma: Level) -> tuple[Tensor, Tensor, Tensor]:
        """(a, s, c), float64 [B or 1, 1, 1, 1]: x/c = a·u + s·eps with a² + s² = 1."""
        alpha = like(alpha, x)
        sigma = like(sigma, x).to(alpha.device)  # a number may come with a tensor on a GPU
        c = torch.hypot(alpha * self.sigma_data, sigma)
        return alpha * self.sigma_data / c, sigma / c, c

    def raw(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Tensor:
        """The network's own output y[B, C, H, W], in normalised coordinates and x's dtype."""
        a, s, c = self.normalised(x, alpha, sigma)
        log_snr = (2 * (a.log() - s.log())).clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)
        log_snr = log_snr.flatten().expand(len(x)).to(x)  # [B]
        if label is not None:
            label = label_rows(label, len(x)).to(x.device)
        return self.net(x / c.to(x), log_snr, label)

    def target(self, x0: Tensor, alpha: Level, sigma: Level, noise: Tensor) -> Tensor:
        """What ``raw`` is trained towards: p·noise + q·x0/sigma_data, [B, C, H, W]."""
        a, s, _ = self.normalised(x0, alpha, sigma)
        p, q = TARGETS[self.predicts](a, s)
        return p.to(x0) * noise + (q / self.sigma_data).to(x0) * x0

    def forward(self, x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        """Solve the two equations for (x0, eps). At sigma = 0 the answer is (x/alpha, 0).

        Raises ValueError where the target does not determine x0: an eps-network at alpha = 0; and
        for x or a level that is NaN, infinite or, the level, negative.
        """
        a, s, c = self.normalised(require.images("x", x), alpha, sigma)
        if not bool(((a >= 0) & (s >= 0) & c.isfinite()).all()):
            raise ValueError("alpha and sigma must be numbers >= 0, not both 0")
        if self.predicts == "eps" and bool((a == 0).any()):
            raise ValueError(
                "an eps-network cannot tell x0 at alpha = 0 (x is all noise): "
                "train with predicts='v', 'x0' or 'flow', or start at a level below"
            )
        y = self.raw(x, alpha, sigma, label)
        p, q = TARGETS[self.predicts](a, s)
        clean = s == 0  # here x0-networks have no equation for eps, and none is needed
        det = torch.where(clean, 1.0, a * p - s * q)
        x0 = (p / (c * det)).to(x) * x - (s / det).to(x) * y
        eps = (a / det).to(x) * y - (q / (c * det)).to(x) * x
        sure = x / torch.where(clean, a * c, 1.0).to(x)  # = u where sigma is 0
        x0 = torch.where(clean.to(x.device), sure, x0) * self.sigma_data
        return Prediction(x0, eps.masked_fill(clean.to(x.device), 0.0))


def loss(
    denoiser: Denoiser,
    x0: Tensor,
    alpha: Level,
    sigma: Level,
    noise: Tensor,
    label: Label = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error between raw output and target: a scalar, in normalised units.

    Args:
        x0: clean images in [-1, 1], [B, C, H, W]; noise: standard normal, of the same shape.
        weight: one number per image [B]; None weighs all levels alike, which is DDPM's L_simple
            for eps on VP (Ho et al. 2020, eq. 14), flow matching for flow on Flow, EDM's for v.
    """
    require.tensor("noise", noise, *x0.shape)
    if not x0.is_floating_point():
        raise ValueError(f"x0 must be floats in [-1, 1], not {x0.dtype}: use to_unit")
    if weight is not None:
        require.tensor("weight", weight, len(x0))
    x = diffuse(x0, alpha, sigma, noise)
    error = denoiser.raw(x, alpha, sigma, label) - denoiser.target(x0, alpha, sigma, noise)
    per_image = error.square().flatten(1).mean(1)  # [B]
    return (per_image if weight is None else weight * per_image).mean()


def clipped(denoise: Denoise) -> Denoise:
    """Clip the expected clean image to [-1, 1] and rederive eps from it.

    The outermost wrapper, after guidance: clipping the conditional and unconditional predictions
    before they are combined would cut off what guidance adds.
    """

    def clip(x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        x0 = denoise(x, alpha, sigma, label).x0.clamp(-1, 1)
        a, s = like(alpha, x), like(sigma, x)
        one_over_s = torch.where(s == 0, 0.0, 1 / s)  # no noise left: eps is 0
        return Prediction(x0, (x - a.to(x) * x0) * one_over_s.to(x))

    return clip
