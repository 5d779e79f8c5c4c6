"""A transformer over sub-pixels (Chen et al. 2020, "Generative Pretraining from Pixels"), read
twice: `logits` for a whole image at once, `step` one token at a time with the keys and values of
all earlier tokens kept.

The image becomes a sentence of D tokens, one for each rank. Token i is told the value of rank
i - 1, attends to itself and the tokens before it, and answers with the distribution of rank i. That
shift by one, and the causal attention, are all that keeps a pixel from seeing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import require
from .base import ARModel, Label, make_labels
from .heads import LevelEmbedding
from .sampling import Cache


class Block(nn.Module):
    """One layer, with norms before the branches: h + attention(norm(h)), then h + mlp(norm(h)).

    Queries, keys and values have no bias: one on the keys would cancel in the softmax.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in, self.norm_mid = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """Every token attends to itself and the tokens before it: [B,T,width] -> the same."""
        q, k, v = self.split(h).unbind()
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [B,heads,T,size]
        h = h + self.dropout(self.join(heard))
        return h + self.dropout(self.mlp(h))

    def step(self, h: Tensor, memory: Tensor, i: int) -> Tensor:
        """The same for token i alone, h [n,1,width]; memory [2,n,heads,D,size] holds k and v."""
        qkv = self.split(h)  # [3,n,heads,1,size]
        memory[:, :, :, i : i + 1] = qkv[1:]
        k, v = memory[:, :, :, : i + 1].unbind()  # nothing later is there yet: no mask is needed
        h = h + self.join(F.scaled_dot_product_attention(qkv[0], k, v))
        return h + self.mlp(h)

    def split(self, h: Tensor) -> Tensor:
        """[B,T,width] -> queries, keys and values [3,B,heads,T,size]; size = width / heads."""
        qkv = self.qkv(self.norm_in(h)).unflatten(-1, (3, self.heads, -1))  # [B,T,3,heads,size]
        return qkv.permute(2, 0, 3, 1, 4)

    def join(self, heard: Tensor) -> Tensor:
        """What each head has heard [B,heads,T,size], side by side and mixed -> [B,T,width]."""
        return self.project(heard.transpose(1, 2).flatten(2))

    def mlp(self, h: Tensor) -> Tensor:
        """Two layers on each token by itself."""
        return self.down(F.gelu(self.up(self.norm_mid(h))))


class ImageGPT(ARModel):
    """`layers` transformer blocks of `width` channels over the D sub-pixels in raster order.

    Colour needs no head here. In a convolutional trunk all channels of a pixel share one feature
    vector, so their order must be settled after it, by the head. Here a token is a *sub-pixel*, and
    the order of the sentence, R G B R G B …, is also that of the channels: G attends to the R of
    its own pixel as to any earlier token, and p(G | R) comes from the whole depth of the net.
    The price is three times as many tokens, and attention grows with their square.

    Positions are learned, one vector for each rank, which also says the channel. Level values
    enter through an embedding that starts ordered, a class as a bias on every token. Dropout sits
    at the end of each branch. `logits` is a full forward of D tokens; `step` does the work of one.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        arguments: dict[str, Any] = {"width": width, "layers": layers, "heads": heads}
        arguments |= {"classes": classes, "dropout": dropout}
        super().__init__(shape, levels, classes, arguments=arguments)
        if width % require.whole("heads", heads):
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        self.embed = LevelEmbedding(levels)
        self.value = nn.Linear(8, width, bias=False)
        self.positions = nn.Parameter(0.1 * torch.randn(self.D, width))
        self.labels = make_labels(classes, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, levels)

    def logits(self, x: Tensor, label: Label = None) -> Tensor:
        x = self.check(x)
        ranked = x.flatten(1)[:, self.order]  # [B,D]
        logits = self.out(self.features(ranked[:, :-1], self.label_rows(len(x), label)))
        return logits[:, self.order.argsort()].view(*x.shape, self.levels)  # rank -> position

    def features(self, values: Tensor, y: Tensor | None) -> Tensor:
        """The tokens of ranks 0..i after all blocks [B,i+1,width], from values int64[B,i] alone.

        `out` makes logits of them. Values of the ranks below i are all that rank i needs.
        """
        told = F.pad(self.tell(values), (0, 0, 1, 0))  # [B,i+1,width]: the first token has no value
        h = told + self.positions[: told.shape[1]] + self.label_bias(y)
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def tell(self, values: Tensor) -> Tensor:
        """Values int64[B,T] as the tokens are told them, [B,T,width]."""
        return self.value(self.embed(values))

    def label_bias(self, y: Tensor | None) -> Tensor | float:
        """[B,1,width] for embedding rows y, nothing for a model without classes."""
        return 0.0 if y is None else self.labels(y)[:, None]

    # ---- the same, one token at a time

    @torch.no_grad()
    def begin(self, n: int, label: Label = None) -> Cache:
        cache = super().begin(n, label)
        width, heads, layers = self.spec["width"], self.spec["heads"], len(self.blocks)
        # keys and values of every layer, allocated once and filled token by token
        memory = self.positions.new_empty(layers, 2, n, heads, self.D, width // heads)
        cache.buffers = (self.label_bias(cache.y), memory)
        return cache

    @torch.no_grad()
    def step(self, cache: Cache, i: int) -> Tensor:
        cache.advance(i)
        bias, memory = cache.buffers
        h = self.positions[i] + bias  # [width] or [n,1,width]
        if i > 0:
            h = h + self.tell(cache.x.flatten(1)[:, self.order[i - 1], None])
        h = h.expand(len(cache.x), 1, -1)
        for block, kept in zip(self.blocks, memory, strict=True):
            h = block.step(h, kept, i)  # type: ignore[operator]
        return self.out(self.norm(h))[:, 0]  # [n,K]
