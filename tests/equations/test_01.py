"""The numbered equations of chapter 1, each checked, and each check shown to catch a planted error.

A check is a function of the formula: it must hold for the formula as printed, and must fail for a
version with one factor or sign changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_lite.ar import MADE
from ddpm_lite.exact import Table, TableAR

BITS = math.log(2)


def fails(check: Callable[..., None], *formula: object) -> None:
    with pytest.raises(AssertionError):
        check(*formula)


def any_table(levels: int = 2, shape: tuple[int, int, int] = (1, 3, 3), seed: int = 0) -> Table:
    """A distribution with no structure to lean on."""
    rng = torch.Generator().manual_seed(seed)
    n = levels ** math.prod(shape)
    return Table(torch.rand(n, dtype=torch.float64, generator=rng) ** 3, shape, levels)


def entropy(table: Table, positions: list[int]) -> float:
    """H of some pixels, in nats."""
    p = table.marginal(positions).flatten()
    return float(torch.special.entr(p).sum())


# -- the average answers a squared error -----------------------------------------------------------


def lower_given_upper(table: Table) -> tuple[Tensor, Tensor, Tensor]:
    """q(upper, lower) [U,L], the values of the lower part [L,D_low], and E[lower | upper]."""
    images = table.images().flatten(1).double()  # [K^D,D]
    half = table.D // 2
    joint = table.p.view(table.levels**half, -1)  # the upper pixels are the leading digits
    lower = images[: joint.shape[1], half:]  # [L,D_low]
    mean = (joint @ lower) / joint.sum(1, keepdim=True)  # [U,D_low]
    return joint, lower, mean


def test_eq_mean() -> None:
    joint, lower, mean = lower_given_upper(any_table(levels=3, shape=(1, 2, 2)))
    rng = torch.Generator().manual_seed(1)
    answer = torch.rand(mean.shape, dtype=torch.float64, generator=rng)  # any function of upper

    def error(f: Tensor) -> Tensor:
        squares = (lower[None] - f[:, None]).square().sum(-1)  # [U,L]
        return (joint * squares).sum()

    def check(factor: float) -> None:
        apart = (joint.sum(1, keepdim=True) * (answer - mean).square()).sum()
        assert abs(error(answer) - (error(mean) + factor * apart)) < 1e-12

    check(1.0)
    fails(check, -1.0)
    fails(check, 2.0)


def test_eq_twice() -> None:
    joint, lower, mean = lower_given_upper(any_table(levels=3, shape=(1, 2, 2)))
    conditional = joint / joint.sum(1, keepdim=True)  # [U,L]
    pairs = (lower[:, None] - lower[None]).square().sum(-1)  # truth and draw [L,L]
    draws = torch.einsum("u,ul,um,lm->", joint.sum(1), conditional, conditional, pairs)
    best = (joint * (lower[None] - mean[:, None]).square().sum(-1)).sum()

    def check(factor: float) -> None:
        assert abs(draws - factor * best) < 1e-12

    check(2.0)
    fails(check, math.sqrt(2))
    fails(check, 1.0)


# -- the chain rule --------------------------------------------------------------------------------


def by_hand(a: int, b: int, c: int, d: int) -> Fraction:
    """The page's example: a coin, two copies, and a pixel that follows its neighbours."""
    p2 = Fraction(3 if b == a else 1, 4)
    p3 = Fraction(3 if c == a else 1, 4)
    white = Fraction(1 + b + c, 4)
    return Fraction(1, 2) * p2 * p3 * (white if d else 1 - white)


def test_eq_chain_rule() -> None:
    table = any_table()
    rng = torch.Generator().manual_seed(2)
    orders = [None, list(range(8, -1, -1)), [0, 3, 6, 1, 4, 7, 2, 5, 8]]
    orders += [torch.randperm(9, generator=rng).tolist() for _ in range(3)]

    def check(spoil: float) -> None:
        for order in orders:
            log_p = TableAR(table, order).log_prob(table.images()) * spoil
            assert (log_p.exp() - table.p).abs().max() < 1e-12
            assert abs(float(log_p.exp().sum()) - 1) < 1e-12

    check(1.0)
    fails(check, 8 / 9)  # as if one of nine factors were left out


def test_eq_chain_rule__by_hand() -> None:
    images = list(product((0, 1), repeat=4))
    assert sum(by_hand(*x) for x in images) == 1
    assert by_hand(1, 1, 1, 1) == Fraction(27, 128)
    assert by_hand(0, 1, 1, 0) == Fraction(1, 128)
    # the last pixel first: p(d) p(a | d) p(b | a, d) p(c | a, b, d), as on the page
    assert Fraction(1, 2) * Fraction(5, 8) * Fraction(33, 40) * Fraction(9, 11) == Fraction(27, 128)
    table = Table([float(by_hand(*x)) for x in images], (1, 2, 2))
    last_first = TableAR(table, [3, 0, 1, 2])
    white = torch.ones(1, 1, 2, 2, dtype=torch.int64)
    steps = last_first.logits(white).exp()[..., 1].flatten()[[3, 0, 1, 2]]
    said = torch.tensor([1 / 2, 5 / 8, 33 / 40, 9 / 11], dtype=torch.float64)

    def check(numbers: Tensor) -> None:
        assert (steps - numbers).abs().max() < 1e-12
        assert abs(float(numbers.prod()) - 27 / 128) < 1e-12

    check(said)
    fails(check, said.flip(0))  # the same product, the conditionals in the wrong places
    assert (last_first.log_prob(table.images()).exp() - table.p).abs().max() < 1e-12


def test_vertical_neighbours_are_a_row_apart_in_raster_order() -> None:
    places = torch.arange(64).view(8, 8)
    for order, vertical, horizontal in [(places, 8, 1), (places.T, 1, 8)]:
        rank = order.flatten().argsort().view(8, 8)
        assert (rank.diff(dim=0).abs() == vertical).all()
        assert (rank.diff(dim=1).abs() == horizontal).all()


# -- bits/dim --------------------------------------------------------------------------------------


def test_eq_bits_per_dim() -> None:
    torch.manual_seed(0)
    model = MADE((1, 3, 3), 5, width=32, layers=1).double()
    x = torch.randint(5, (20, 1, 3, 3))
    cache, nats = model.begin(20), torch.zeros(20, dtype=torch.float64)
    for i in range(model.D):  # conditional by conditional, as a sampler walks
        value = x.flatten(1)[:, model.order[i]]
        nats -= model.step(cache, i).log_softmax(-1).gather(1, value[:, None])[:, 0]
        cache.put(i, value)

    def check(per: float) -> None:
        assert (model.bits_per_dim(x) - nats / per).abs().max() < 1e-12

    check(model.D * BITS)
    fails(check, model.D)  # log 2 forgotten
    fails(check, BITS)  # D forgotten


def test_eq_bits_per_dim__uniform() -> None:
    table = Table(torch.ones(3**4), (1, 2, 2), levels=3)
    bits = TableAR(table).bits_per_dim(table.images())
    assert (bits - math.log2(3)).abs().max() < 1e-12


# -- maximum likelihood is the smallest divergence -------------------------------------------------


def a_model(seed: int = 3) -> MADE:
    torch.manual_seed(seed)
    model = MADE((1, 3, 3), 2, width=32, layers=1).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # far from uniform
    return model


@torch.no_grad()
def test_eq_kl() -> None:
    q, model = any_table(), a_model()
    log_p = model.log_prob(q.images())
    cross = float(-(q.p * log_p).sum())
    kl = float((q.p * (q.p.log() - log_p)).sum())
    assert kl > 0.1

    def check(sign: int) -> None:
        assert abs(cross - (q.entropy() + sign * kl)) < 1e-12

    check(+1)
    fails(check, -1)


def test_eq_kl__same_gradient() -> None:
    """The entropy of the data has no gradient, so lowering one lowers the other."""
    q, model = any_table(), a_model()
    log_p = model.log_prob(q.images())
    parameters = list(model.parameters())
    cross = torch.autograd.grad(-(q.p * log_p).sum(), parameters, retain_graph=True)
    kl = torch.autograd.grad((q.p * (q.p.log() - log_p)).sum(), parameters)
    for a, b in zip(cross, kl, strict=True):
        assert (a - b).abs().max() < 1e-12
    assert any(a.abs().max() > 1e-3 for a in cross)


@torch.no_grad()
def test_eq_kl_chain() -> None:
    q, model = any_table(), a_model()
    images = q.images()
    log_q = TableAR(q).logits(images).flatten(1, 3)  # [512,9,2]
    log_p = F.log_softmax(model.logits(images), -1).flatten(1, 3)
    by_pixel = (log_q.exp() * (log_q - log_p)).sum(-1)  # [512,9]
    kl = float((q.p * (q.p.log() - model.log_prob(images))).sum())

    def check(prefixes: Tensor) -> None:
        assert abs(float((prefixes @ by_pixel).sum()) - kl) < 1e-12

    check(q.p)
    fails(check, model.log_prob(images).exp())  # the model's own prefixes: another number


# -- the price of doing several pixels at once -----------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_eq_price(k: int) -> None:
    q = any_table()
    blocks = [list(range(a, min(a + k, 9))) for a in range(0, 9, k)]
    # the left side from the joint it defines, over all 512 images
    log_p = torch.zeros(512, dtype=torch.float64)
    flat = q.images().flatten(1)
    for block in blocks:
        before = list(range(block[0]))
        for i in block:
            joint = q.marginal([*before, i])
            given = joint / joint.sum(-1, keepdim=True)
            log_p += given[tuple(flat[:, j] for j in [*before, i])].log()
    assert abs(float(log_p.exp().sum()) - 1) < 1e-12  # an honest distribution, the wrong one
    kl = float((q.p * (q.p.log() - log_p)).sum())

    def total_correlation(block: list[int], sign: int) -> float:
        """Of the block given everything before it."""
        before = list(range(block[0]))
        given = entropy(q, before) if before else 0.0
        single = sum(entropy(q, [*before, i]) - given for i in block)
        return single - sign * (entropy(q, before + block) - given)

    def check(sign: int) -> None:
        assert abs(kl - sum(total_correlation(block, sign) for block in blocks)) < 1e-12

    check(+1)
    fails(check, -1)
    assert (kl < 1e-12) == (k == 1)


# -- temperature -----------------------------------------------------------------------------------


def test_eq_temperature() -> None:
    """Cooling pixel by pixel divides by a constant that depends on the prefix."""
    q, tau = any_table(), 0.5
    images = q.images()
    log_q = TableAR(q).logits(images).flatten(1, 3)  # [512,9,2]
    cooled = F.log_softmax(log_q / tau, -1)
    value = images.flatten(1)[..., None]
    product_ = cooled.gather(-1, value)[..., 0].sum(1)  # log of the product of cooled conditionals
    normalisers = torch.logsumexp(log_q / tau, -1)  # log Z_i(x_<i), [512,9]

    def check(z: Tensor) -> None:
        assert (product_ - (q.p.log() / tau - z)).abs().max() < 1e-10

    check(normalisers.sum(1))
    fails(check, torch.logsumexp(q.p.log() / tau, 0))  # the image cooled as a whole
    assert abs(float(product_.exp().sum()) - 1) < 1e-12


# -- completion ------------------------------------------------------------------------------------


def test_eq_fill() -> None:
    """What `sample(known=...)` draws from, by enumeration, and how far that is from exact."""
    q = any_table()
    images = q.images()
    model = TableAR(q)
    value = images.flatten(1)[..., None]
    log_p = model.logits(images).flatten(1, 3).gather(-1, value)[..., 0]  # [512,9] by rank
    given = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1], dtype=torch.bool)  # the first row is open
    r = log_p[:, ~given].sum(1)

    def check(weight: Tensor) -> None:
        assert (r + weight - q.p.log()).abs().max() < 1e-12

    check(log_p[:, given].sum(1))
    fails(check, log_p[:, ~given].sum(1))  # the factors that were drawn, not those left out
    weight = model.log_weight(images, given.view(1, 3, 3))
    assert (weight - log_p[:, given].sum(1)).abs().max() < 1e-12
    evidence = images.flatten(1)[:, given] @ (2 ** torch.arange(5, -1, -1))  # which of 64 it is
    total = torch.zeros(64, dtype=torch.float64).index_add(0, evidence, r.exp())
    assert (total - 1).abs().max() < 1e-12  # a distribution for each evidence ...
    exact = q.p / torch.zeros(64, dtype=torch.float64).index_add(0, evidence, q.p)[evidence]
    assert (r.exp() - exact).abs().max() > 0.1  # ... but not the conditional


@pytest.mark.parametrize(("order", "exact"), [(None, False), (list(range(8, -1, -1)), True)])
def test_eq_fill__is_what_the_sampler_draws(order: list[int] | None, exact: bool) -> None:
    q = any_table(seed=5)
    first = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1], dtype=torch.bool).view(1, 3, 3)
    values = torch.tensor([[[0, 0, 0], [1, 0, 1], [1, 1, 0]]])
    n = 40_000
    drawn = TableAR(q, order).sample(n, known=(first, values), seed=0)
    apart = 0.5 * (q.counts(drawn) / n - q.given(first, values).p).abs().sum()
    assert (apart < 0.02) == exact  # eight completions: sampling noise is about 0.005


# -- likelihood is not quality, and is a code ------------------------------------------------------


@pytest.mark.parametrize("keep", [0.01, 0.3])
def test_eq_spoiled(keep: float) -> None:
    q = Table.potts((1, 3, 3), coupling=2.0)  # peaked, so that the bound is nearly reached
    mixed = keep * q.p + (1 - keep) / len(q.p)
    cost = (q.p.log2() - mixed.log2()) / q.D  # bits/dim, image by image

    def check(bound: float) -> None:
        assert (cost <= bound + 1e-12).all()

    check(math.log2(1 / keep) / q.D)
    fails(check, 0.5 * math.log2(1 / keep) / q.D)


def test_eq_code() -> None:
    """Shannon-Fano-Elias: ceil(log2 1/p) + 1 bits name a binary fraction inside each interval."""
    q = any_table(shape=(1, 2, 3))
    counts = [1 + round(v * 10**6) for v in q.p.tolist()]
    p = [Fraction(count, sum(counts)) for count in counts]  # they sum to 1 exactly

    def check(extra: int) -> None:
        low, words = Fraction(0), []
        for width in p:
            length = (-(-width.denominator // width.numerator) - 1).bit_length() + extra
            ideal = math.log2(1 / width)
            assert ideal + extra <= length + 1e-9 and length < ideal + 1 + extra
            number = -(-(low * 2**length).numerator // (low * 2**length).denominator)
            start, end = Fraction(number, 2**length), Fraction(number + 1, 2**length)
            assert low <= start and end <= low + width  # nobody else's interval is touched
            words.append((start, end))
            low += width
        assert all(a[1] <= b[0] for a, b in pairwise(words))  # prefix-free

    check(1)
    fails(check, 0)  # one bit less, and code words overlap
