"""Masks, and the blind spot that two stacks remove."""

import pytest
import torch
from ar_models import awake, images, influence

from ddpm_lite.ar import GatedPixelCNN, MaskedConv2d, PixelCNN


def reach(conv: MaskedConv2d, size: int = 5) -> torch.Tensor:
    """bool[cout,cin,size,size]: which inputs the output at the centre reads, by gradient."""
    with torch.no_grad():
        conv.weight.fill_(1.0)
    x = torch.zeros(1, conv.in_channels, size, size, requires_grad=True)
    c, rows = size // 2, []
    for out in conv(x)[0, :, c, c]:
        (g,) = torch.autograd.grad(out, x, retain_graph=True)
        rows.append(g[0] != 0)
    return torch.stack(rows)


def test_type_a_and_type_b() -> None:
    before = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    own = before.clone()
    own[1, 1] = True
    assert torch.equal(reach(MaskedConv2d(1, 1, 3, "A"), 3)[0, 0], before)
    assert torch.equal(reach(MaskedConv2d(1, 1, 3, "B"), 3)[0, 0], own)
    assert reach(MaskedConv2d(1, 1, 5, "A"))[0, 0].sum() == 12
    assert reach(MaskedConv2d(2, 2, 1, "A"), 1).sum() == 0  # a 1×1 of type A reads nothing


@pytest.mark.parametrize("kind", ["A", "B"])
def test_colour_masks(kind: str) -> None:
    """Two channels to a colour coming in, one going out; only the centre tells colours apart."""
    seen = reach(MaskedConv2d(6, 3, 3, kind, colours=3), 3)
    own = seen[:, :, 1, 1].view(3, 3, 2)
    assert torch.equal(own[..., 0], own[..., 1])
    expected = torch.ones(3, 3).tril(-1 if kind == "A" else 0).bool()
    assert torch.equal(own[..., 0], expected)
    assert seen[:, :, 0].all() and seen[:, :, 1, 0].all()
    assert not seen[:, :, 1, 2].any() and not seen[:, :, 2].any()


def test_the_mask_leaves_the_parameter_alone() -> None:
    conv = MaskedConv2d(2, 4, 3, "A")
    before = conv.weight.detach().clone()
    x = torch.randn(2, 2, 5, 6)
    masked = torch.nn.functional.conv2d(x, conv.weight * conv.mask, conv.bias, padding=1)
    assert torch.equal(conv(x), masked) and torch.equal(conv.weight, before)
    assert "mask" not in conv.state_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 3, "C"), "kind"),
        ((1, 1, 4, "A"), "odd"),
        ((4, 3, 3, "A", 3), "divide"),
        ((3, 4, 3, "A", 3), "divide"),
        ((3, 3, 3, "A", 0), "colours"),
    ],
)
def test_bad_masks(arguments: tuple[int, int, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedConv2d(*arguments)


def seen_from(model: PixelCNN | GatedPixelCNN, row: int, column: int) -> torch.Tensor:
    moved = influence(model)[row * model.shape[2] + column]
    return moved.view(model.shape[1:])


def test_pixelcnn_has_its_blind_spot() -> None:
    """One column to the right per row upwards, and one more from the wider first kernel."""
    model = awake(PixelCNN((1, 6, 7), 2, width=8, layers=7))
    row, column = 5, 2
    r, c = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    before = (r < row) | ((r == row) & (c < column))
    blind = (r < row) & (c - column > row - r + 1)
    assert blind.sum() == 3
    assert torch.equal(seen_from(model, row, column), before & ~blind)


def test_gated_pixelcnn_has_none() -> None:
    model = awake(GatedPixelCNN((1, 6, 7), 2, width=8, layers=5))
    r, c = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    before = (r < 5) | ((r == 5) & (c < 2))
    assert torch.equal(seen_from(model, 5, 2), before)


def test_logits_change_with_every_layer() -> None:
    for kind in (PixelCNN, GatedPixelCNN):
        model = awake(kind((1, 4, 4), 3, width=8, layers=3))
        x = images(model, 2)
        logits = model.logits(x)
        for layer in model.layers:
            for p in layer.parameters():
                p.data.add_(0.1)
            changed = model.logits(x)
            assert not torch.allclose(changed, logits)
            logits = changed
