"""Heads: from the features of a pixel to the distributions of its colour channels.

A trunk (a convolutional net, a transformer) is causal over *pixels*. The channels of one pixel are
the head's business: R first, then G given R, then B given R and G. Every head says so once, in
`step`; all pixels of a batch at once is the same `step` with more rows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import require
from .base import ARModel, Label
from .sampling import Cache


class LevelEmbedding(nn.Module):
    """Each level as `features` learned numbers that start ordered: cos(pi·j·k/(K-1)), j = 0, 1, ….

    Neighbouring levels start as neighbours; on 1,000 digits that is worth 0.05 bits/dim over a
    random start. j = 0 is constant: it tells the image (1) from the padding around it (0).
    """

    def __init__(self, levels: int, features: int = 8) -> None:
        super().__init__()
        k, j = torch.arange(levels)[:, None], torch.arange(features)
        self.weight = nn.Parameter(torch.cos(math.pi * j * k / (levels - 1)))  # [K,features]

    def forward(self, x: Tensor) -> Tensor:
        """int64[...] -> [..., features]."""
        return F.embedding(x, self.weight)


class Head(nn.Module):
    """features [n,F] of n pixels and their values int64[n,C] -> distributions over K levels."""

    channels: int
    levels: int

    def check(self, features: Tensor, values: Tensor) -> Tensor:
        """The values, or a ValueError if they are no whole levels [n,C] of these n pixels."""
        require.tensor("values", values, len(features), self.channels)
        if values.is_floating_point() or not bool(((values >= 0) & (values < self.levels)).all()):
            raise ValueError(f"values must be whole levels 0..{self.levels - 1}")
        return values

    def begin(self, features: Tensor) -> Tensor:
        """What the channels of these pixels share, from features [n,F]."""
        raise NotImplementedError

    def step(self, state: Tensor, values: Tensor, c: int) -> Tensor:
        """Logits [n,K] of channel c, given values[:, :c]; the other columns are not read."""
        raise NotImplementedError

    def log_prob(self, features: Tensor, values: Tensor) -> Tensor:
        """log p(values | features) in nats, [n]: all channels of a pixel together."""
        raise NotImplementedError

    def logits(self, features: Tensor, values: Tensor) -> Tensor:
        """Every channel's logits, [n,C,K]."""
        state = self.begin(features)
        return torch.stack([self.step(state, values, c) for c in range(self.channels)], 1)


class Categorical(Head):
    """A softmax over the K levels of each channel, after one hidden layer.

    The lower channels of the same pixel enter the hidden layer through a level embedding.
    """

    def __init__(self, features: int, channels: int, levels: int) -> None:
        super().__init__()
        for name, size in (("features", features), ("channels", channels)):
            require.whole(name, size)
        self.channels, self.levels = channels, require.whole("levels", levels, 2)
        self.embed = LevelEmbedding(levels) if channels > 1 else None
        self.hidden = nn.Linear(features, channels * features)
        self.lower = nn.ModuleList(
            nn.Linear(8 * c, features, bias=False) for c in range(1, channels)
        )
        self.out = nn.ModuleList(nn.Linear(features, levels) for _ in range(channels))

    def begin(self, features: Tensor) -> Tensor:
        return self.hidden(F.relu(features)).view(len(features), self.channels, -1)  # [n,C,F]

    def step(self, state: Tensor, values: Tensor, c: int) -> Tensor:
        hidden = state[:, c]  # [n,F]
        if c > 0 and self.embed is not None:
            hidden = hidden + self.lower[c - 1](self.embed(values[:, :c]).flatten(1))
        return self.out[c](F.relu(hidden))

    def log_prob(self, features: Tensor, values: Tensor) -> Tensor:
        values = self.check(features, values)
        log_p = F.log_softmax(self.logits(features, values), -1)  # [n,C,K]
        return log_p.gather(-1, values[..., None])[..., 0].sum(1)


class LogisticMixture(Head):
    """A mixture of discretised logistics (PixelCNN++, Salimans et al. 2017, eq. 1-3).

    Level k has centre v_k = 2k/(K-1) - 1 and the bin of half-width 1/(K-1) around it; the edge bins
    take the tails, so each component sums to 1 over the levels. One component is drawn for the
    *pixel*, and within it a channel's mean is moved by the lower channels' values.
    """

    def __init__(self, features: int, channels: int, levels: int, mixtures: int = 10) -> None:
        super().__init__()
        for name, size in (("features", features), ("channels", channels), ("mixtures", mixtures)):
            require.whole(name, size)
        self.channels, self.levels = channels, require.whole("levels", levels, 2)
        self.mixtures = mixtures
        # for every component: 1 weight; C means; C log-scales; C(C-1)/2 couplings
        self.parts = [1, channels, channels, channels * (channels - 1) // 2]
        self.out = nn.Linear(features, mixtures * sum(self.parts))
        with torch.no_grad():  # start with the means spread over the range and broad components
            bias = self.out.bias.view(mixtures, -1)
            bias[:, 1 : 1 + channels] = torch.linspace(-1, 1, mixtures)[:, None]
            bias[:, 1 + channels : 1 + 2 * channels] = -1.5

    def begin(self, features: Tensor) -> Tensor:
        return self.out(F.relu(features)).view(len(features), self.mixtures, -1)  # [n,M,parts]

    def step(self, state: Tensor, values: Tensor, c: int) -> Tensor:
        """Normalised log-probabilities of channel c.

        p(x_c | x_<c) mixes the components with their *posterior* weights, given the channels
        already seen. The prior weights would also sum to 1, and be wrong.
        """
        prior, _, _, _ = self._split(state)
        joint = prior + sum(self._component(state, values, b, values[:, b]) for b in range(c))
        every = torch.arange(self.levels, device=state.device)  # [K]
        log_p = self._component(state[:, None], values[:, None], c, every)  # [n,K,M]
        return torch.logsumexp(F.log_softmax(joint, -1)[:, None] + log_p, -1)  # [n,K]

    def log_prob(self, features: Tensor, values: Tensor) -> Tensor:
        """Sums the channels inside each component, then over components; never builds K levels."""
        values = self.check(features, values)
        state = self.begin(features)
        joint, _, _, _ = self._split(state)  # [n,M]
        for c in range(self.channels):
            joint = joint + self._component(state, values, c, values[:, c])
        return torch.logsumexp(joint, -1)

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight, means, log_scales, couplings = state.split(self.parts, -1)
        return F.log_softmax(weight[..., 0], -1), means, log_scales, couplings

    def _component(self, state: Tensor, values: Tensor, c: int, k: Tensor) -> Tensor:
        """log p_m(x_c = k | x_<c) for every component: k [n] or [K] -> [..., M].

        With a and b the bin's edges in units of the scale, sigma(b) - sigma(a) is
        sigma(b)·sigma(-a)·(1 - exp(a - b)): three logarithms, none of a small difference.
        """
        _, means, log_scales, couplings = self._split(state)
        mean = means[..., c]  # [n,M] or [n,1,M]
        for b in range(c):  # couplings in the order (G,R), (B,R), (B,G)
            unit = 2 * values[..., b, None].to(mean.dtype) / (self.levels - 1) - 1
            mean = mean + torch.tanh(couplings[..., c * (c - 1) // 2 + b]) * unit
        inverse = torch.exp(-log_scales[..., c].clamp(min=-7.0))
        k = k[..., None]
        centre, half = 2 * k.to(mean.dtype) / (self.levels - 1) - 1, 1 / (self.levels - 1)
        low, high = inverse * (centre - half - mean), inverse * (centre + half - mean)
        inner = torch.log(-torch.expm1(-2 * half * inverse))
        log_high = torch.where(k == self.levels - 1, 0.0, F.logsigmoid(high))
        log_low = torch.where(k == 0, 0.0, F.logsigmoid(-low))
        edge = (k == 0) | (k == self.levels - 1)
        return log_high + log_low + torch.where(edge, 0.0, inner)


HEADS: dict[str, type[Categorical] | type[LogisticMixture]] = {
    "categorical": Categorical,
    "logistic": LogisticMixture,
}


class PixelModel(ARModel):
    """A trunk with a head: `features` for all pixels, `features_at` for one pixel of a cache."""

    head: Head

    def features(self, x: Tensor, label: Tensor | None) -> Tensor:
        """int64[B,C,H,W] and embedding rows y -> [B,F,H,W], from earlier pixels only."""
        raise NotImplementedError

    def features_at(self, cache: Cache, pixel: int) -> Tensor:
        """The same for one pixel (row·W + column) -> [n,F]; pixels come in order."""
        raise NotImplementedError

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        x = self.check(x)
        features, values = self._pixels(x, label)
        B, C, H, W = x.shape
        return self.head.logits(features, values).view(B, H, W, C, -1).permute(0, 3, 1, 2, 4)

    def log_prob(self, x: Tensor, label: Label = None) -> Tensor:
        x = self.check(x)
        features, values = self._pixels(x, label)
        # Not in bfloat16, which autocast would choose: near 1 it knows p only to 1/256, and p - 1
        # is the gradient. MNIST, whose background has p = 0.999, diverged that way.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(next(self.head.parameters()).dtype)
            return self.head.log_prob(features, values).view(len(x), -1).sum(1)

    def _pixels(self, x: Tensor, label: Label) -> tuple[Tensor, Tensor]:
        features = self.features(x, self.label_rows(len(x), label))
        return _rows(features), _rows(x)  # [BHW,F], [BHW,C]

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        pixel, c = divmod(i, self.shape[0])
        if c == 0:
            cache.pixel = self.head.begin(self.features_at(cache, pixel))
        return self.head.step(cache.pixel, cache.x.flatten(2)[:, :, pixel], c)


def make_head(name: str, features: int, channels: int, levels: int) -> Head:
    """The head called `name`; a ValueError lists the known names."""
    require.choice("head", name, HEADS)
    return HEADS[name](features, channels, levels)


def _rows(x: Tensor) -> Tensor:
    """[B,F,H,W] -> [BHW,F]: pixels as rows."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
