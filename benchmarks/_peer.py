"""diffusers' UNet2DModel with the architecture of our UNet, and its weights under our names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_lite.data import import_torchvision
from ddpm_lite.unet import UNet

BLOCK = {"emb": "time_emb_proj", "skip": "conv_shortcut"}  # the rest have the same names
BLOCK |= {name: name for name in ("norm1", "conv1", "norm2", "conv2")}


def peer_of(net: UNet) -> Any:
    """A fresh UNet2DModel of the same architecture. ValueError for what it does not have."""
    spec = net.spec
    widths = tuple(spec["width"] * mult for mult in spec["mults"])
    if spec["patch"] > 1 or any(width % 8 for width in widths):
        raise ValueError("UNet2DModel has no patches, and the same number of groups everywhere")
    import_torchvision()  # diffusers imports it
    from diffusers import UNet2DModel

    kinds = ["Attn" if attend else "" for attend in spec["attention"]]
    return UNet2DModel(
        in_channels=spec["channels"],
        out_channels=spec["channels"],
        block_out_channels=widths,
        layers_per_block=spec["blocks"],
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        add_attention=spec["attention"][-1],
        attention_head_dim=None,  # one head of all channels
        norm_num_groups=8,
        dropout=spec["dropout"],
        num_class_embeds=None if spec["classes"] is None else spec["classes"] + 1,
    )


def load_peer(net: UNet, peer: Any) -> None:
    """Give `net` every weight of `peer`, and its sines.

    The sines are no weights: UNet2DModel reads a time step at frequencies fixed in its code, our
    net log-SNR at others. With theirs in their place `net` too expects a time step.
    """
    weights: dict[str, Tensor] = {}

    def take(name: str, theirs: nn.Module) -> None:
        weights.update({f"{name}.{key}": value for key, value in theirs.state_dict().items()})

    take("embed.1", peer.time_embedding.linear_1)
    take("embed.3", peer.time_embedding.linear_2)
    if net.label is not None:
        take("label", peer.class_embedding)
    take("enter", peer.conv_in)
    take("leave.0", peer.conv_norm_out)
    take("leave.2", peer.conv_out)
    parts = {"down": peer.down_blocks, "middle": [peer.mid_block], "up": peer.up_blocks}
    for part, blocks in parts.items():
        for i, (layer, attention) in enumerate(_layers(blocks)):
            names = BLOCK if hasattr(layer, "conv1") else {"conv": "conv"}  # or it halves, doubles
            for ours, theirs in names.items():
                if getattr(layer, theirs) is not None:
                    take(f"{part}.{i}.{ours}", getattr(layer, theirs))
            if attention is not None:
                take(f"{part}.{i}.attention.norm", attention.group_norm)
                qkv = [attention.to_q, attention.to_k, attention.to_v]
                for ours, linear in (("qkv", qkv), ("out", [attention.to_out[0]])):
                    name = f"{part}.{i}.attention.{ours}"
                    matrix = torch.cat([m.weight for m in linear])
                    weights[f"{name}.weight"] = matrix[..., None, None]  # a 1x1 convolution
                    weights[f"{name}.bias"] = torch.cat([m.bias for m in linear])
    net.load_state_dict(weights)
    net.embed[0] = peer.time_proj


def _layers(blocks: Any) -> Iterator[tuple[Any, Any]]:
    """(residual block, its attention or None) and (halving or doubling, None), in our order."""
    for block in blocks:
        attentions = list(getattr(block, "attentions", []))
        for i, layer in enumerate(block.resnets):
            yield layer, attentions[i] if i < len(attentions) else None
        for kind in ("downsamplers", "upsamplers"):
            yield from ((layer, None) for layer in getattr(block, kind, None) or [])
