"""Chapter 2's numbered equations: each holds, and each check notices a planted error."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_lite import ar, cost
from ddpm_lite.ar.gated import gate

H, W = 5, 7
RANK = torch.arange(H * W)
ROW, COLUMN = RANK // W, RANK % W


def dependence(model: nn.Module) -> Tensor:
    """[D,D]: size of the gradient of pixel i's logits (row) with respect to what pixel j holds."""
    model, read = copy.deepcopy(model).double().eval(), []
    model.embed.register_forward_hook(lambda module, args, out: read.append(out))
    D, (C, height, width) = model.D, model.shape
    x = torch.randint(model.levels, (1, C, height, width), generator=generator())
    logits = model.logits(x.expand(D, -1, -1, -1)).flatten(1, 3)  # [D,D,K]
    own = logits[torch.arange(D), torch.arange(D)]  # copy i keeps the logits of pixel i
    probe = torch.randn(own.shape, generator=generator(), dtype=own.dtype)
    (gradient,) = torch.autograd.grad((own * probe).sum(), read)
    size = gradient.abs().sum(-1).flatten(1)
    return F.pad(size, (0, D - size.shape[1]))  # the transformer is never told the last pixel


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def plain(layers: int = 6) -> ar.PixelCNN:
    return ar.PixelCNN((1, H, W), 3, width=16, layers=layers)


def two_stacks() -> ar.GatedPixelCNN:
    return ar.GatedPixelCNN((1, H, W), 3, width=16, layers=6)


def sentence() -> ar.ImageGPT:
    return ar.ImageGPT((1, H, W), 3, width=16, layers=2)


@pytest.mark.parametrize("make", [plain, two_stacks, sentence])
def test_eq_causal_logits(make: Callable[[], nn.Module]) -> None:
    forbidden = RANK[:, None] <= RANK  # oneself and whatever comes later
    assert not dependence(make())[forbidden].any()


def leaking() -> ar.PixelCNN:
    model = plain()
    model.first.mask[:, :, 2, 2] = 1  # kind B where A belongs
    return model


def test_eq_causal_logits__planted_mask() -> None:
    assert dependence(leaking()).diagonal().all()


@torch.no_grad()
def one_pass_error(model: ar.ARModel) -> float:
    """Largest distance between one pass's logits and those of a pass that is shown only x_<i."""
    model = model.double().eval()
    x = torch.randint(3, (1, 1, H, W), generator=generator())
    at_once = model.logits(x)[0].flatten(0, 2)  # [D,K]
    hidden = x.repeat(len(RANK), 1, 1, 1).flatten(1)
    noise = torch.randint(3, hidden.shape, generator=generator())
    hidden = torch.where(RANK[:, None] <= RANK, noise, hidden)  # copy i: rank i and later
    alone = model.logits(hidden.view(-1, 1, H, W)).flatten(1, 3)[RANK, RANK]
    return float((alone - at_once).abs().max())


@pytest.mark.parametrize("make", [plain, two_stacks, sentence])
def test_eq_causal_logits__one_pass(make: Callable[[], ar.ARModel]) -> None:
    assert one_pass_error(make()) < 1e-12


def test_eq_causal_logits__one_pass_planted() -> None:
    assert one_pass_error(leaking()) > 1e-3


def masked_by_hand(conv: ar.MaskedConv2d, x: Tensor, kind: str, sign: int = 1) -> Tensor:
    """The sum over earlier places written out; sign -1 reads the other side of the image."""
    p, out = conv.kernel_size[0] // 2, torch.zeros(len(conv.weight), *x.shape[-2:]).double()
    for r, c in itertools.product(range(x.shape[-2]), range(x.shape[-1])):
        total = conv.bias.clone()
        for dr, dc in itertools.product(range(-p, p + 1), repeat=2):
            earlier = (dr, dc) < (0, 0) or (kind == "B" and (dr, dc) == (0, 0))
            rr, cc = r + sign * dr, c + sign * dc
            if earlier and 0 <= rr < x.shape[-2] and 0 <= cc < x.shape[-1]:
                total = total + conv.weight[:, :, p + dr, p + dc] @ x[0, :, rr, cc]
        out[:, r, c] = total
    return out


@pytest.mark.parametrize("kind", ["A", "B"])
def test_eq_masked_conv(kind: str) -> None:
    conv = ar.MaskedConv2d(2, 3, 3, kind).double()
    x = torch.randn(1, 2, 4, 5, generator=generator()).double()
    ours, other = conv(x)[0], "B" if kind == "A" else "A"
    assert (ours - masked_by_hand(conv, x, kind)).abs().max() < 1e-12
    assert (ours - masked_by_hand(conv, x, other)).abs().max() > 1e-2
    assert (ours - masked_by_hand(conv, x, kind, sign=-1)).abs().max() > 1e-2


def colour_table(first: str, second: str) -> Tensor:
    """bool[3,3]: does colour o of a pixel, after two layers, depend on colour i of the same one?"""
    a = ar.MaskedConv2d(3, 9, 3, first, colours=3).double()
    b = ar.MaskedConv2d(9, 3, 3, second, colours=3).double()
    x = torch.randn(1, 3, 3, 3, generator=generator()).double()
    jacobian = torch.autograd.functional.jacobian(lambda t: b(a(t))[0, :, 1, 1], x)  # [3,1,3,3,3]
    return jacobian[:, 0, :, 1, 1] != 0


def test_eq_colour_mask() -> None:
    g = torch.arange(3)
    assert torch.equal(colour_table("A", "B"), g[:, None] > g)  # G reads R, B reads R and G
    assert torch.equal(colour_table("B", "B"), g[:, None] >= g)
    assert colour_table("B", "B").diagonal().all()  # planted: B first lets a colour read itself


def test_eq_blind_spot() -> None:
    up, right = ROW[:, None] - ROW, COLUMN - COLUMN[:, None]  # [i,j]: j stands above, to the right
    seen, m = dependence(plain()) > 0, 2  # a first kernel of 5×5
    above = up >= 1
    assert torch.equal(seen[above], (right <= m + up - 1)[above])
    assert not torch.equal(seen[above], (right <= m + up)[above])  # planted: one column too many


def cut(model: ar.GatedPixelCNN, part: str) -> ar.GatedPixelCNN:
    with torch.no_grad():
        for layer in model.layers:
            getattr(layer, part).weight.zero_()
    return model


def test_eq_two_stacks() -> None:
    vertical = dependence(cut(two_stacks(), "horizontal")) > 0
    horizontal = dependence(cut(two_stacks(), "link")) > 0
    assert torch.equal(vertical, ROW[:, None] > ROW)
    assert torch.equal(horizontal, (ROW[:, None] == ROW) & (COLUMN[:, None] > COLUMN))
    assert torch.equal(vertical | horizontal, RANK[:, None] > RANK)
    assert torch.equal(dependence(two_stacks()) > 0, RANK[:, None] > RANK)
    # planted: without the link nothing of the rows above arrives
    assert not torch.equal(horizontal, RANK[:, None] > RANK)


def test_eq_gate() -> None:
    a, b = torch.randn(2, 1, 3, 2, 2, generator=generator(), dtype=torch.float64)
    both = torch.cat([a, b], 1).requires_grad_()
    y = gate(both)
    assert (y - torch.tanh(a) / (1 + torch.exp(-b))).abs().max() < 1e-14
    assert (y - torch.tanh(b) / (1 + torch.exp(-a))).abs().max() > 1e-2  # planted: halves swapped
    (slope,) = torch.autograd.grad(y.sum(), both)
    by_hand = (1 - torch.tanh(a) ** 2) * torch.sigmoid(b)
    assert (slope[:, :3] - by_hand).abs().max() < 1e-14


def filled(channels: int, levels: int, mixtures: int) -> ar.LogisticMixture:
    """A head that gives every pixel the same random mixture, in float64."""
    head = ar.LogisticMixture(1, channels, levels, mixtures).double()
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(0.7 * torch.randn(len(head.out.bias), generator=generator()) - 0.4)
    return head


def logits_of(head: ar.LogisticMixture, values: Tensor) -> Tensor:
    with torch.no_grad():
        return head.logits(torch.zeros(len(values), 1).double(), values)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_eq_logistic_bin(levels: int) -> None:
    head = filled(1, levels, 4)
    weight, mean, log_scale = head.out.bias.view(4, 3).detach().T[:, None]  # each [1,M]
    v = (2 * torch.arange(levels).double() / (levels - 1) - 1)[:, None]  # [K,1]

    def bins(half: float, tails: bool) -> Tensor:
        low, high = ((v + s * half - mean) / log_scale.exp() for s in (-1, 1))
        if tails:
            low[0], high[-1] = -torch.inf, torch.inf
        return (weight.softmax(1) * (torch.sigmoid(high) - torch.sigmoid(low))).sum(1)

    half, ours = 1 / (levels - 1), logits_of(head, torch.zeros(1, 1).long())[0, 0].exp()
    assert abs(ours.sum() - 1) < 1e-12
    assert (ours - bins(half, True)).abs().max() < 1e-12
    assert (ours - bins(half, False)).abs().max() > 1e-2  # planted: edge bins without their tails
    if levels > 2:  # planted: bins of double width
        assert (ours - bins(2 * half, True)).abs().max() > 1e-3


def test_eq_logistic_bin__far_from_the_bell() -> None:
    head = ar.LogisticMixture(1, 1, 17, mixtures=1)  # float32
    a, b = -1 / 16 + 1, 1 / 16 + 1  # the edges of mid-grey, seen from a bell at black
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([0.0, -1.0, -4.0]))  # weight, mean, log-scale
    low, high = torch.tensor([a, b]).mul(math.exp(4)).sigmoid()
    assert (high - low).log() == -torch.inf  # planted: the difference, rounded
    ours = head.logits(torch.zeros(1, 1), torch.zeros(1, 1).long())[0, 0, 8]
    tails = [math.exp(-edge * math.exp(4)) for edge in (a, b)]  # 1 - s(z) = e^-z, far out
    assert abs(ours.item() - math.log(tails[0] - tails[1])) < 1e-3
    ours.backward()
    assert head.out.bias.grad is not None
    assert abs(head.out.bias.grad[1].item() - math.exp(4)) < 1e-2  # the mean is pulled over


def test_eq_posterior_weights() -> None:
    levels, head = 5, filled(2, 5, 3)
    every = torch.cartesian_prod(torch.arange(levels), torch.arange(levels))  # all (R, G)
    with torch.no_grad():
        joint = head.log_prob(torch.zeros(25, 1).double(), every).exp().view(levels, levels)
    assert abs(joint.sum() - 1) < 1e-12
    conditional = joint / joint.sum(1, keepdim=True)  # p(g | r), by enumeration
    ours = logits_of(head, every)[:, 1].exp().view(levels, levels, levels)[:, 0]  # [r,g]
    assert (ours - conditional).abs().max() < 1e-12

    parts = head.out.bias.view(3, -1).detach()  # weight, 2 means, 2 log-scales, coupling
    prior, coupling = parts[:, 0].softmax(0), torch.tanh(parts[:, 5])
    v, edges = torch.linspace(-1, 1, levels).double(), torch.arange(-0.75, 1, 0.5).double()

    def component(mean: Tensor, c: int) -> Tensor:  # [M,...] -> [M,...,K]
        scale = parts[:, 3 + c].exp().view(-1, *[1] * mean.ndim)
        cdf = torch.sigmoid((edges - mean[..., None]) / scale)
        ends = torch.zeros_like(cdf[..., :1])
        return torch.cat([ends, cdf, 1 + ends], -1).diff(dim=-1)

    red = component(parts[:, 1], 0)  # p_m(r): [M,r]
    green = component(parts[:, 2, None] + coupling[:, None] * v, 1)  # p_m(g | r): [M,r,g]
    posterior = prior[:, None] * red / (prior[:, None] * red).sum(0)  # [M,r]
    assert (ours - (posterior[..., None] * green).sum(0)).abs().max() < 1e-12
    wrong = (prior[:, None, None] * green).sum(0)  # planted: prior weights, which also sum to 1
    assert (wrong.sum(1) - 1).abs().max() < 1e-12
    assert (ours - wrong).abs().max() > 1e-2


@pytest.mark.parametrize("make", [ar.GatedPixelCNN, ar.ImageGPT])
@pytest.mark.parametrize("size", [3, 4])
def test_eq_sampling_cost(make: Callable[..., ar.ARModel], size: int) -> None:
    model = make((1, size, size), 5, width=8, layers=2).eval()
    D, one = size**2, torch.zeros(1, 1, size, size, dtype=torch.long)
    forward = cost.macs(model.logits, one)
    naive, cached = cost.macs(model.sample, 1, cached=False), cost.macs(model.sample, 1)
    assert naive == D * forward
    assert cached == forward
    assert naive != (D + 1) / 2 * forward  # planted: as if step i cost i/D of a pass
