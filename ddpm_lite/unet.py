"""A U-Net that reads a noisy image and its log-SNR (Ho et al. 2020, app. B).

Down: residual blocks, then a strided convolution, level by level. Up: the mirror image, each block
also reading what the matching block on the way down wrote (the skip). The network knows no
schedule: the noise level reaches it as one number, log(alpha²/sigma²).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import require


class UNet(nn.Module):
    """(x[B, C, H, W], log_snr[B], label int64[B] or None) -> [B, C, H, W], in x's dtype.

    Args:
        channels: C of the images. width: channels of the first level; ``mults``: multiples of it,
            one level each, the image halved in between. blocks: residual blocks a level on the way
            down, one more on the way up. attention: one flag a level; the middle has it if the
            last level does. classes: number of labels, or None; label -1 or None is the null
            class, the last row of the embedding. dropout: inside the residual blocks.
        patch: fold patch x patch pixels into channels first (pixel unshuffle): cheaper, coarser.

    Any size will do: a halving rounds up, and the doubling returns to the size before it (patches
    alone need padding, which is cut off again). Raises ValueError for
    sizes that make no network, a label given to a model without classes, or one out of range.
    """

    def __init__(
        self,
        channels: int,
        width: int = 32,
        mults: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention: tuple[bool, ...] = (False, False, True),
        classes: int | None = None,
        dropout: float = 0.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "blocks": blocks, "patch": patch}
        for name, size in (sizes | ({} if classes is None else {"classes": classes})).items():
            require.whole(name, size)
        if require.whole("width", width, 2) % 2:
            raise ValueError(f"width must be even, for sines and cosines, not {width}")
        require.real("dropout", dropout, 0, 1)
        for name, flags in (("mults", mults), ("attention", attention)):
            if not isinstance(flags, list | tuple):
                raise ValueError(f"{name} has an entry for each level, as (1, 2) has: {flags!r}")
        for mult in mults:
            require.whole("each of mults", mult)
        for attend in attention:
            require.flag("each of attention", attend)
        if not mults or len(mults) != len(attention):
            raise ValueError(f"{len(mults)} levels need as many attention flags: {attention}")
        self.spec: dict[str, Any] = {
            "class": "UNet",
            "channels": channels,
            "width": width,
            "mults": list(mults),
            "blocks": blocks,
            "attention": list(attention),
            "classes": classes,
            "dropout": dropout,
            "patch": patch,
        }
        self.channels, self.patch, self.classes = channels, patch, classes
        emb = 4 * width
        self.embed = nn.Sequential(
            LogSnrFeatures(width), nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        self.label = None if classes is None else nn.Embedding(classes + 1, emb)
        self.enter = nn.Conv2d(channels * patch**2, width, 3, padding=1)

        here, written = width, [width]  # channels now, and of each skip on the stack
        self.down = nn.ModuleList()
        for level, (mult, attend) in enumerate(zip(mults, attention, strict=True)):
            for _ in range(blocks):
                self.down.append(Block(here, mult * width, emb, attend, dropout))
                here = mult * width
                written.append(here)
            if level < len(mults) - 1:
                self.down.append(Downsample(here))
                written.append(here)
        self.middle = nn.ModuleList(
            [Block(here, here, emb, attention[-1], dropout), Block(here, here, emb, False, dropout)]
        )
        self.up = nn.ModuleList()
        for level in reversed(range(len(mults))):
            for _ in range(blocks + 1):
                wide = mults[level] * width
                self.up.append(Block(here + written.pop(), wide, emb, attention[level], dropout))
                here = wide
            if level > 0:
                self.up.append(Upsample(here))
        self.leave = nn.Sequential(
            norm(here), nn.SiLU(), zeroed(nn.Conv2d(here, channels * patch**2, 3, padding=1))
        )

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        require.tensor("x", x, None, self.channels, None, None)
        require.tensor("log_snr", log_snr, len(x))
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch), mode="replicate")
        h = self.enter(F.pixel_unshuffle(x, self.patch))
        emb = F.silu(self.embed(log_snr) + self._label(label, len(x)))  # [B, emb]
        skips = [h]
        for layer in self.down:
            h = layer(h, emb)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, emb)
        for layer in self.up:
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], 1), emb)
            else:
                h = layer(h, skips[-1].shape[-2:])
        return F.pixel_shuffle(self.leave(h), self.patch)[..., :height, :width]

    def _label(self, label: Tensor | None, n: int) -> Tensor | float:
        if self.label is None or self.classes is None:
            if label is not None and bool((label >= 0).any()):
                raise ValueError("this network has no classes: leave the label out")
            return 0.0
        if label is None:
            label = torch.full((n,), -1, device=self.label.weight.device)
        if label.is_floating_point() or label.shape != (n,):
            raise ValueError(f"label must be int64[{n}], not {label.dtype}{list(label.shape)}")
        if bool(((label < -1) | (label >= self.classes)).any()):
            raise ValueError(f"labels must lie in 0..{self.classes - 1}, or be -1 for none")
        return self.label(label % (self.classes + 1))  # -1 -> the last row


class LogSnrFeatures(nn.Module):
    """[B] -> [B, width]: sines and cosines of log-SNR at geometric frequencies.

    The sinusoidal embedding of Vaswani et al. 2017, §3.5, with periods from 1.6 to some 1,000 nats,
    so that neighbouring noise levels are neighbours and the whole range ±20 is told apart.
    """

    frequency: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        frequency = 4.0 * torch.exp(-math.log(1000) * torch.arange(width // 2) / (width // 2))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, log_snr: Tensor) -> Tensor:
        angle = log_snr[:, None] * self.frequency.to(log_snr)  # [B, width/2]
        return torch.cat([angle.sin(), angle.cos()], 1)


class Block(nn.Module):
    """Residual block told the noise level, with self-attention over positions where asked for."""

    def __init__(self, cin: int, cout: int, emb: int, attend: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.emb = nn.Linear(emb, cout)
        self.norm2, self.drop = norm(cout), nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()
        self.attention = Attention(cout) if attend else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # [B, cout, H, W]
        h = h + self.emb(emb)[:, :, None, None]
        h = self.conv2(self.drop(F.silu(self.norm2(h))))
        return self.attention(self.skip(x) + h)


class Attention(nn.Module):
    """Self-attention over the H·W positions, one head, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).mT  # [B, HW, 3C]
        q, k, v = qkv.chunk(3, dim=-1)
        h = F.scaled_dot_product_attention(q, k, v)  # [B, HW, C]
        return x + self.out(h.mT.reshape(x.shape))


class Downsample(nn.Module):
    """Halve the image by a strided convolution; an odd side is rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double the image to (H, W), each side even or odd: repeat each pixel, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        return self.conv(F.interpolate(x, size, mode="nearest"))


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over at most 8 groups (Wu & He 2018): no dependence on the rest of the batch.

    A group of one channel would take the embedding out again: it is one number per channel.
    """
    groups = math.gcd(channels, 8)
    return nn.GroupNorm(max(1, groups // 2) if groups == channels else groups, channels)


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """Start at zero, so that each block begins as the identity and the network as zero."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
