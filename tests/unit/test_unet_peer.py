"""Our U-Net against diffusers' of the same architecture, with the same weights."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_lite.unet import UNet

# the benchmark that times the two is where the names are mapped
PEER = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "_peer.py"))

CASES: list[dict[str, Any]] = [
    {"channels": 1},  # what the benchmark times
    {"channels": 1, "mults": (1, 2), "attention": (False, False), "classes": 10},
    {"channels": 3, "width": 16, "mults": (1, 1, 3), "blocks": 1, "attention": (True, False, True)},
]


def pair(arguments: dict[str, Any]) -> tuple[UNet, Any]:
    """Both networks with the same random weights, none of them zero."""
    net = UNet(**arguments).eval()
    peer = PEER["peer_of"](net).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in peer.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / max(1, p[0].numel()) ** 0.5)
    PEER["load_peer"](net, peer)
    return net, peer


@pytest.mark.parametrize("arguments", CASES)
@torch.no_grad()
def test_outputs_equal_diffusers(arguments: dict[str, Any]) -> None:
    pytest.importorskip("diffusers")
    net, peer = pair(arguments)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in peer.parameters())
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, arguments["channels"], 28, 28, generator=g)
    time, label = torch.tensor([1.0, 500.0, 999.0]), None
    if net.classes is not None:
        label = torch.tensor([0, 3, net.classes - 1])
    ours, theirs = net(x, time, label), peer(x, time, label).sample
    assert (ours - theirs).abs().max() <= 1e-5
    assert ours.std() > 0.05  # and not because both are zero


def test_gradients_equal_diffusers() -> None:
    pytest.importorskip("diffusers")
    net, peer = pair(CASES[2])
    g = torch.Generator().manual_seed(1)
    x, time = torch.randn(2, 3, 16, 16, generator=g), torch.tensor([20.0, 700.0])
    net(x, time).square().mean().backward()
    peer(x, time).sample.square().mean().backward()
    ours, theirs = net.enter.weight.grad, peer.conv_in.weight.grad
    assert ours is not None and ours.abs().max() > 1e-4
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max().clamp(min=1)


@pytest.mark.parametrize("arguments", [{"patch": 2}, {"width": 10}])
def test_what_diffusers_does_not_have_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no patches"):
        PEER["peer_of"](UNet(1, **arguments))
