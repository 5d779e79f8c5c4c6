"""The U-Net: shapes, odd sizes, labels, and what each part is for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpm_lite.unet import UNet, Upsample


def awake(net: UNet) -> UNet:
    """The same network with its zero-started convolutions filled, so that every part matters."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.copy_(0.2 * torch.randn(p.shape, generator=g))
    return net.eval()


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (28, 28), (9, 16)])
@pytest.mark.parametrize("patch", [1, 2])
def test_any_size_comes_back(size: tuple[int, int], patch: int) -> None:
    net = UNet(3, width=8, blocks=1, patch=patch)
    assert net(torch.randn(2, 3, *size), torch.zeros(2)).shape == (2, 3, *size)


@pytest.mark.parametrize("n", range(1, 34))
def test_doubling_to_an_odd_size_leaves_the_last_row_out(n: int) -> None:
    up = Upsample(2)
    x = torch.randn(1, 2, n, n)
    whole = F.interpolate(x, scale_factor=2.0, mode="nearest")
    for size in ((2 * n, 2 * n), (2 * n - 1, 2 * n), (2 * n - 1, 2 * n - 1)):
        expected = up.conv(whole[..., : size[0], : size[1]])
        assert torch.equal(up(x, torch.Size(size)), expected)


def test_starts_at_zero_and_reads_the_noise_level() -> None:
    net = UNet(1, width=8)
    x = torch.randn(2, 1, 8, 8)
    assert not net(x, torch.zeros(2)).any()
    net = awake(net)
    assert (net(x, torch.zeros(2)) - net(x, torch.full((2,), 3.0))).abs().max() > 1e-3


@pytest.mark.parametrize("width", [2, 4, 8, 12, 16])
def test_noise_level_and_label_reach_the_output_of_every_width(width: int) -> None:
    """A norm over single channels would take out what an embedding adds to them."""
    torch.manual_seed(0)
    net = UNet(1, width, (1,), 1, (False,), classes=2).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    outs = [
        net(x, torch.tensor([t]).double(), torch.tensor([y])) for t, y in ((0, 0), (2, 0), (0, 1))
    ]
    assert (outs[1] - outs[0]).abs().max() > 1e-3 and (outs[2] - outs[0]).abs().max() > 1e-3


def test_batch_rows_do_not_mix() -> None:
    net = awake(UNet(1, width=8)).double()
    x, snr = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([-3.0, 0.0, 5.0]).double()
    alone = torch.cat([net(x[i : i + 1], snr[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, snr), alone)


def test_every_parameter_gets_a_gradient() -> None:
    net = awake(UNet(1, width=8, classes=4))
    net(
        torch.randn(5, 1, 8, 8), torch.randn(5), torch.tensor([0, 1, 2, 3, -1])
    ).square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


def test_every_pixel_is_in_the_receptive_field() -> None:
    net = awake(UNet(1, width=8, mults=(1, 1, 1))).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    net(x, torch.zeros(1, dtype=torch.float64))[0, 0, 0, 0].backward()
    assert x.grad is not None and (x.grad != 0).all()


def test_labels() -> None:
    net = awake(UNet(1, width=8, classes=4))
    x, snr = torch.randn(2, 1, 8, 8), torch.zeros(2)
    null = net(x, snr)
    assert torch.equal(null, net(x, snr, torch.tensor([-1, -1])))
    assert not torch.equal(null, net(x, snr, torch.tensor([0, 3])))
    for label in (4, -2):
        with pytest.raises(ValueError, match=r"0\.\.3"):
            net(x, snr, torch.tensor([0, label]))
    with pytest.raises(ValueError, match="no classes"):
        UNet(1, width=8)(x, snr, torch.tensor([0, 1]))
    assert UNet(1, width=8)(x, snr, torch.tensor([-1, -1])).shape == x.shape


def test_bad_input_and_spec() -> None:
    with pytest.raises(ValueError, match="attention"):
        UNet(1, mults=(1, 2))
    for wrong in ({"width": 7}, {"width": 0}, {"blocks": 0}, {"patch": 0}, {"classes": 0}):
        with pytest.raises(ValueError, match="must be"):
            UNet(1, **wrong)
    net = UNet(1, width=8, mults=(1, 2), attention=(False, True), classes=10, dropout=0.1)
    arguments = dict(net.spec)
    assert arguments.pop("class") == "UNet"
    again = UNet(**arguments)
    assert [p.shape for p in again.parameters()] == [p.shape for p in net.parameters()]
