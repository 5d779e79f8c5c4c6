"""Whatever the numbers: exact denoisers keep their identities, tables stay one distribution."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_lite.exact import GaussianMixture, KernelDenoiser, Table, TableAR

seeds = st.integers(0, 2**32 - 1)
alphas = st.floats(0.0, 1.0)
sigmas = st.floats(1e-3, 10.0)


def normal(rng, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=rng)


@given(seeds, alphas, sigmas, st.integers(1, 4), st.integers(1, 5))
def test_predictions_recompose_x(seed, alpha, sigma, count, dim):
    """x = alpha x0 + sigma eps holds for every denoiser that knows its business."""
    rng = torch.Generator().manual_seed(seed)
    x = 2 * normal(rng, 3, 1, 1, dim)
    factor = normal(rng, count, dim, dim)
    means = normal(rng, count, 1, 1, dim)
    for denoise in (GaussianMixture(means, factor @ factor.mT), KernelDenoiser(means)):
        x0, eps = denoise(x, alpha, sigma)
        torch.testing.assert_close(alpha * x0 + sigma * eps, x, rtol=1e-7, atol=1e-7)
        assert x0.isfinite().all() and eps.isfinite().all()


@given(seeds, alphas, sigmas)
def test_kernel_denoiser_stays_in_the_hull_of_its_images(seed, alpha, sigma):
    rng = torch.Generator().manual_seed(seed)
    images = normal(rng, 7, 1, 2, 2)
    x0, _ = KernelDenoiser(images)(5 * normal(rng, 4, 1, 2, 2), alpha, sigma)
    assert (x0 >= images.amin(0) - 1e-9).all() and (x0 <= images.amax(0) + 1e-9).all()


@settings(max_examples=40)
@given(seeds, st.integers(2, 3), st.sampled_from([(1, 2, 2), (3, 1, 1), (1, 1, 3), (2, 2, 1)]))
def test_any_order_reads_the_same_table(seed, levels, shape):
    """Exact conditionals in any order multiply to the same joint, zeros included."""
    rng = torch.Generator().manual_seed(seed)
    p = torch.rand(levels ** math.prod(shape), generator=rng, dtype=torch.float64)
    table = Table(p * (p > 0.3) + 1e-3 * (p > 0.9), shape, levels)
    model = TableAR(table, torch.randperm(table.D, generator=rng))
    torch.testing.assert_close(model.log_prob(table.images()).exp(), table.p)
    cross_entropy = -torch.special.xlogy(table.p, model.log_prob(table.images()).exp()).sum()
    assert abs(cross_entropy.item() - table.entropy()) < 1e-9


@given(seeds, st.integers(1, 3))
def test_conditioning_obeys_total_probability(seed, position):
    """p(x) = sum over values v of p(pixel = v) p(x | pixel = v)."""
    table = Table.potts((1, 2, 2), 3, coupling=seed % 7 / 3)
    mask = torch.zeros(1, 2, 2, dtype=torch.bool)
    mask.view(-1)[position] = True
    values = [torch.full((1, 2, 2), v) for v in range(3)]
    weights = table.marginal([position])
    total = sum(w * table.given(mask, v).p for w, v in zip(weights, values, strict=True))
    torch.testing.assert_close(total, table.p)
