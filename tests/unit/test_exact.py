"""Exact denoisers and tables: every claim is held against brute force or a second derivation."""

import itertools
import math

import pytest
import torch

from ddpm_lite.ar.base import naive
from ddpm_lite.data import load, to_unit
from ddpm_lite.exact import GaussianMixture, KernelDenoiser, Table, TableAR

LEVELS = [(0.99, 0.1), (0.6, 0.8), (0.05, 0.99), (1.0, 0.02), (1.0, 7.0), (0.0, 1.0)]


def spd(count, dim, seed=0):
    a = torch.randn(
        count, dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return a @ a.mT / dim + 0.05 * torch.eye(dim, dtype=torch.float64)


def mixture(kind, dim=4, count=3):
    rng = torch.Generator().manual_seed(1)
    means = torch.randn(count, dim, dtype=torch.float64, generator=rng)
    covs = {
        "shared": 0.3,
        "isotropic": torch.tensor([0.1, 0.5, 1.0]),
        "diagonal": torch.rand(count, dim, generator=rng) + 0.05,
        "full": spd(count, dim),
    }[kind]
    return GaussianMixture(means, covs, [0.5, 0.2, 0.3])


def points(n=6, shape=(1, 2, 2), seed=2):
    rng = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(n, *shape, dtype=torch.float64, generator=rng)


# -- Gaussian mixtures -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shared", "isotropic", "diagonal", "full"])
@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_mixture_denoiser_is_tweedie(kind, alpha, sigma):
    """x0 = (x + sigma^2 score) / alpha, the score by autograd of log_prob (Robbins 1956)."""
    p, x = mixture(kind), points().requires_grad_()
    (score,) = torch.autograd.grad(p.log_prob(x, alpha, sigma).sum(), x)
    x0, eps = p.denoise(x.detach(), alpha, sigma)
    torch.testing.assert_close(eps, -sigma * score, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(alpha * x0, x + sigma**2 * score, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(p.score(x.detach(), alpha, sigma), score, rtol=1e-10, atol=1e-12)


def test_mixture_log_prob_against_torch_distributions():
    from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

    means, covs = points(3).flatten(1), spd(3, 4)
    p = GaussianMixture(means, covs, [0.5, 0.2, 0.3])
    alpha, sigma = 0.7, 0.6
    noisy = MultivariateNormal(
        alpha * means, alpha**2 * covs + sigma**2 * torch.eye(4, dtype=torch.float64)
    )
    weights = Categorical(torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))
    expected = MixtureSameFamily(weights, noisy).log_prob(points().flatten(1))
    torch.testing.assert_close(p.log_prob(points(), alpha, sigma), expected)


def test_mixture_takes_one_level_per_image_and_restores_dtype_and_shape():
    p, x = mixture("full"), points()
    alpha, sigma = torch.rand(6), torch.rand(6) + 0.1
    together = p.denoise(x, alpha, sigma)
    for j in range(6):
        alone = p.denoise(x[j : j + 1], alpha[j].item(), sigma[j].item())
        torch.testing.assert_close(together.x0[j : j + 1], alone.x0)
        torch.testing.assert_close(together.eps[j : j + 1], alone.eps)
    single = p.denoise(x.float(), 0.5, 0.5)
    assert single.x0.dtype == single.eps.dtype == torch.float32
    assert single.x0.shape == x.shape


def test_mixture_labels_choose_components():
    p, x = mixture("diagonal"), points()
    alone = GaussianMixture(p.means[1:2], p._spread[1:2])
    torch.testing.assert_close(p.denoise(x, 0.6, 0.8, 1).x0, alone.denoise(x, 0.6, 0.8).x0)
    torch.testing.assert_close(p.log_prob(x, 0.6, 0.8, 1), alone.log_prob(x, 0.6, 0.8))
    mixed = p.denoise(x, 0.6, 0.8, torch.tensor([0, 1, 2, -1, 0, 1]))
    torch.testing.assert_close(mixed.x0[1], alone.denoise(x, 0.6, 0.8).x0[1])
    torch.testing.assert_close(mixed.x0[3], p.denoise(x, 0.6, 0.8).x0[3])
    grouped = GaussianMixture(p.means, p._spread, p.weights, classes=[0, 0, 1])
    both = grouped.log_prob(x, label=0).exp() * 0.7 + grouped.log_prob(x, label=1).exp() * 0.3
    torch.testing.assert_close(both, grouped.log_prob(x).exp())
    with pytest.raises(ValueError, match="no such class"):
        p.denoise(x, 0.6, 0.8, 3)


def test_mixture_ends_of_the_path():
    p, x = mixture("full"), points()
    x0, eps = p.denoise(x, 0.5, 0.0)
    assert torch.equal(x0, x / 0.5) and torch.equal(eps, torch.zeros_like(x))
    x0, eps = p.denoise(x, 0.0, 2.0)  # nothing is left of x0: its mean
    torch.testing.assert_close(x0, (p.weights @ p.means).view(1, 1, 2, 2).expand_as(x0))
    torch.testing.assert_close(eps, x / 2)


def test_flat_mixture_has_a_denoiser_but_no_density():
    """Constant pixels of a data set give singular covariances."""
    cov = torch.diag(torch.tensor([1.0, 0.0, 0.5, 0.0], dtype=torch.float64))[None]
    p = GaussianMixture(torch.ones(1, 4), cov)
    x0, _ = p.denoise(points(), 0.9, 0.3)
    assert torch.equal(x0.flatten(1)[:, 1], torch.ones(6, dtype=torch.float64))
    assert torch.equal(p.denoise(points(), 1.0, 0.0).x0, points())
    with pytest.raises(ValueError, match="no density"):
        p.log_prob(points())


def test_mixture_samples_have_its_mean_and_covariance():
    p = mixture("full")
    x = p.sample(40_000, seed=3)
    mean = p.weights @ p.means
    centred = p.means - mean
    cov = torch.einsum("m,mij->ij", p.weights, spd(3, 4)) + (p.weights * centred.T) @ centred
    torch.testing.assert_close(x.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(x.T.cov(), cov, atol=0.05, rtol=0)
    assert torch.equal(p.sample(5, seed=3), p.sample(5, seed=3))
    assert (p.sample(2_000, label=1).mean(0) - p.means[1]).abs().max() < 0.1


@pytest.mark.parametrize("kind", ["isotropic", "full"])
def test_given_is_bayes_rule(kind):
    """p(x0 | x) p(x) = p(x0) N(x; alpha x0, sigma^2), at points of the x0-axis."""
    p, x, alpha, sigma = mixture(kind), points(1), 0.8, 0.6
    posterior = p.given(x, alpha, sigma)
    x0 = points(7, seed=5)
    gap = (x - alpha * x0).flatten(1).square().sum(1) / (2 * sigma**2)
    likelihood = -gap - 2 * math.log(2 * math.pi * sigma**2)
    left = posterior.log_prob(x0) + p.log_prob(x, alpha, sigma)
    torch.testing.assert_close(left, p.log_prob(x0) + likelihood)
    torch.testing.assert_close(
        (posterior.weights @ posterior.means).view_as(x), p.denoise(x, alpha, sigma).x0
    )


def test_one_dimensional_mixture_integrates_to_one():
    p = GaussianMixture([[-1.0], [1.0]], 0.01, [0.3, 0.7])
    x = torch.linspace(-5, 5, 20_001, dtype=torch.float64).view(-1, 1, 1, 1)
    for alpha, sigma in ((1.0, 0.0), (0.5, 0.5)):
        area = torch.trapezoid(p.log_prob(x, alpha, sigma).exp(), x.flatten())
        assert abs(area.item() - 1) < 1e-9
    torch.testing.assert_close(p.posterior(x, 0.5, 0.5).sum(1), torch.ones_like(x[:, 0, 0, 0]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([[0.0]], [[[1.0, 2.0]]]), "do not fit"),
        (([[0.0]], -1.0), "positive semidefinite"),
        (([[0.0], [1.0]], 1.0, [0.0, 0.0]), "not all 0"),
        (([[0.0], [1.0]], 1.0, [1.0]), "2 numbers"),
        (([[0.0], [1.0]], 1.0, None, [0]), "class numbers"),
    ],
)
def test_mixture_rejects_bad_input(arguments, says):
    with pytest.raises(ValueError, match=says):
        GaussianMixture(*arguments)


def test_mixture_rejects_images_of_another_size():
    with pytest.raises(ValueError, match=r"C·H·W = 4"):
        mixture("full").denoise(torch.zeros(2, 1, 3, 3), 1.0, 0.5)


# -- the empirical distribution ----------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_kernel_denoiser_against_brute_force(alpha, sigma):
    images, x = points(20, (2, 3, 2)), points(5, (2, 3, 2), seed=9)
    x0, eps = KernelDenoiser(images).denoise(x, alpha, sigma)
    for j in range(5):
        w = [math.exp(-((x[j] - alpha * i).square().sum().item()) / (2 * sigma**2)) for i in images]
        if sum(w) == 0:  # brute force underflows where the softmax does not
            nearest = min(range(20), key=lambda i: (x[j] - alpha * images[i]).square().sum())
            expected = images[nearest]
        else:
            expected = sum(v * i for v, i in zip(w, images, strict=True)) / sum(w)
        torch.testing.assert_close(x0[j], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x)


def test_kernel_denoiser_is_a_mixture_of_points():
    images, x = points(20), points(5, seed=9)
    weights = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = KernelDenoiser(images, y=torch.arange(20) % 3, weights=weights)
    gm = GaussianMixture(images, 0.0, weights, classes=torch.arange(20) % 3)
    for label in (None, 1, torch.tensor([0, 1, 2, -1, 0])):
        torch.testing.assert_close(
            kernel.log_prob(x, 0.7, 0.4, label), gm.log_prob(x, 0.7, 0.4, label)
        )
        for mine, other in zip(
            kernel.denoise(x, 0.7, 0.4, label), gm.denoise(x, 0.7, 0.4, label), strict=True
        ):
            torch.testing.assert_close(mine, other)
        torch.testing.assert_close(kernel.score(x, 0.7, 0.4, label), gm.score(x, 0.7, 0.4, label))


def test_kernel_denoiser_on_digits_with_little_noise_gives_the_digit_back():
    images = load("digits", "train")
    x0 = to_unit(images.x, 17)
    for dtype in (torch.float64, torch.float32):
        kernel = KernelDenoiser(x0, dtype=dtype)
        rng = torch.Generator().manual_seed(0)
        noisy = x0[:50] + 0.05 * torch.randn(50, 1, 8, 8, generator=rng)
        torch.testing.assert_close(kernel.denoise(noisy, 1.0, 0.05).x0, x0[:50], atol=1e-5, rtol=0)
        far = kernel.denoise(noisy, 1e-4, 1.0).x0  # nothing but noise: the mean image
        torch.testing.assert_close(far, x0.mean(0).expand_as(far), atol=1e-2, rtol=0)


def test_kernel_denoiser_at_no_noise_and_very_little():
    images = points(20)
    kernel = KernelDenoiser(images)
    x0, eps = kernel.denoise(images, 0.5, 0.0)
    assert torch.equal(x0, images / 0.5) and torch.equal(eps, torch.zeros_like(images))
    x0, eps = kernel.denoise(0.9 * images, 0.9, 1e-6)
    torch.testing.assert_close(x0, images)
    assert eps.isfinite().all()
    mixed = kernel.denoise(images, torch.ones(20), torch.linspace(0, 1, 20))
    assert torch.equal(mixed.x0[0], images[0]) and mixed.x0.isfinite().all()
    with pytest.raises(ValueError, match="sigma > 0"):
        kernel.log_prob(images, 1.0, 0.0)


def test_kernel_denoiser_rejects_bad_input():
    with pytest.raises(ValueError, match="to_unit"):
        KernelDenoiser(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no labels"):
        KernelDenoiser(points()).denoise(points(), 1.0, 1.0, 0)
    with pytest.raises(ValueError, match="no image has that label"):
        KernelDenoiser(points(), torch.zeros(6)).denoise(points(), 1.0, 1.0, 4)
    with pytest.raises(ValueError, match=r"x must be"):
        KernelDenoiser(points()).denoise(points(2, (1, 3, 3)), 1.0, 1.0)
    with pytest.raises(ValueError, match="numbers >= 0"):
        KernelDenoiser(points(), weights=-torch.ones(6))


# -- tables ------------------------------------------------------------------------------------


def random_table(shape=(1, 2, 2), levels=3, seed=0, zeros=False):
    rng = torch.Generator().manual_seed(seed)
    count = levels ** math.prod(shape)
    p = torch.rand(count, dtype=torch.float64, generator=rng)
    if zeros:
        p[torch.rand(count, generator=rng) < 0.7] = 0
    return Table(p, shape, levels)


def test_table_lists_every_image_once():
    table = random_table((2, 1, 2), 3)
    images = table.images()
    expected = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 1, 2)
    assert torch.equal(images, expected)
    assert torch.equal(table.index(images), torch.arange(81))
    torch.testing.assert_close(table.log_prob(images).exp(), table.p)
    torch.testing.assert_close(
        table.counts(images[[3, 3, 5]]).nonzero().flatten(), torch.tensor([3, 5])
    )


def test_entropy_of_uniform_certain_and_independent_pixels():
    assert abs(Table(torch.ones(512), (1, 3, 3)).entropy() - 9 * math.log(2)) < 1e-12
    assert Table([0, 0, 1, 0], (1, 1, 2)).entropy() == 0
    q = 0.2
    x = Table(torch.ones(512), (1, 3, 3)).images().flatten(1).double()
    p = (q**x * (1 - q) ** (1 - x)).prod(1)
    assert abs(Table(p, (1, 3, 3)).entropy() + 9 * (q * math.log(q) + 0.8 * math.log(0.8))) < 1e-12


def test_potts_prefers_smooth_images():
    p = Table.potts((1, 2, 2), 2, coupling=0.7)
    flat, checker = torch.zeros(1, 1, 2, 2).long(), torch.tensor([[[[0, 1], [1, 0]]]])
    assert abs((p.log_prob(flat) - p.log_prob(checker)).item() - 4 * 0.7) < 1e-12
    assert torch.allclose(Table.potts((1, 3, 3), 2, 0.0).p, torch.full((512,), 1 / 512.0).double())


def test_counted_is_the_frequency():
    x = torch.tensor([0, 0, 1, 3]).view(4, 1, 1, 1)
    torch.testing.assert_close(Table.counted(x, 4).p, torch.tensor([2, 1, 0, 1]).double() / 4)
    smooth = Table.counted(x, 4, pseudocount=1).p
    torch.testing.assert_close(smooth, torch.tensor([3, 2, 1, 2]).double() / 8)


def test_given_and_marginal_by_summing():
    table = random_table((1, 2, 2), 3)
    joint = table.p.view(3, 3, 3, 3)
    torch.testing.assert_close(table.marginal([2]), joint.sum((0, 1, 3)))
    torch.testing.assert_close(table.marginal([3, 0]), joint.sum((1, 2)).T)
    mask = torch.tensor([[[False, True], [False, True]]])
    known = table.given(mask, torch.tensor([[[0, 2], [0, 1]]]))
    expected = torch.zeros_like(joint)
    expected[:, 2, :, 1] = joint[:, 2, :, 1] / joint[:, 2, :, 1].sum()
    torch.testing.assert_close(known.p, expected.flatten())
    with pytest.raises(ValueError, match="probability 0"):
        Table([1, 0, 0, 0], (1, 1, 2)).given(torch.ones(1, 1, 2).bool(), torch.ones(1, 1, 2).long())


def test_table_samples_follow_p_and_never_an_impossible_image():
    table = random_table(zeros=True)
    counts = table.counts(table.sample(50_000, seed=1))
    assert counts[table.p == 0].sum() == 0
    expected = 50_000 * table.p[table.p > 0]
    chi2 = ((counts[table.p > 0] - expected) ** 2 / expected).sum().item()
    degrees = int((table.p > 0).sum()) - 1
    assert abs(chi2 - degrees) < 5 * math.sqrt(2 * degrees)


def test_table_denoiser_is_the_posterior_mean_pixel_by_pixel():
    table = random_table((1, 2, 2), 3)
    x, alpha, sigma = points(4), 0.7, 0.5
    values = to_unit(table.images(), 3, torch.float64)
    joint = table.p * torch.exp(
        -(x[:, None] - alpha * values).flatten(2).square().sum(2) / (2 * sigma**2)
    )
    expected = torch.einsum("bn,nchw->bchw", joint / joint.sum(1, keepdim=True), values)
    torch.testing.assert_close(table.denoiser()(x, alpha, sigma).x0, expected)


@pytest.mark.parametrize("order", [None, "reverse", "random"])
@pytest.mark.parametrize("zeros", [False, True])
def test_table_ar_is_the_same_distribution_in_any_order(order, zeros):
    table = random_table((1, 2, 2), 3, zeros=zeros)
    ranks = {None: None, "reverse": [3, 2, 1, 0], "random": [2, 0, 3, 1]}[order]
    model = TableAR(table, ranks)
    images = table.images()
    torch.testing.assert_close(model.log_prob(images).exp(), table.p, rtol=1e-12, atol=0)
    for i in range(4):  # logits of rank i do not change with pixels of the same or higher rank
        changed = images.clone().flatten(1)
        changed[:, model.order[i:]] = 0
        before = model.logits(images).flatten(1, 3)[:, model.order[i]]
        after = model.logits(changed.view_as(images)).flatten(1, 3)[:, model.order[i]]
        assert torch.equal(before, after)


def test_table_ar_cached_and_naive_samples_agree_and_follow_p():
    table = random_table((1, 2, 2), 3, zeros=True)
    model = TableAR(table, [2, 0, 3, 1])
    x = model.sample(20_000, seed=0)
    assert torch.equal(x[:500], naive(model).sample(20_000, seed=0)[:500])
    assert type(model).step is not type(naive(model)).step
    counts = table.counts(x)
    assert counts[table.p == 0].sum() == 0
    possible = table.p > 0
    expected = 20_000 * table.p[possible]
    chi2 = ((counts[possible] - expected) ** 2 / expected).sum().item()
    assert abs(chi2 - possible.sum() + 1) < 5 * math.sqrt(2 * int(possible.sum()))


def test_table_ar_colour_channels_and_one_pixel():
    table = random_table((3, 1, 2), 2)
    model = TableAR(table)
    torch.testing.assert_close(model.log_prob(table.images()).exp(), table.p)
    one = Table([0.25, 0.75], (1, 1, 1))
    torch.testing.assert_close(TableAR(one).log_prob(one.images()).exp(), one.p)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([1.0, 1.0], (1, 1, 2)), "4 numbers"),
        (([1.0, -1.0], (1, 1, 1)), ">= 0"),
        (([0.0, 0.0], (1, 1, 1)), "not all 0"),
        (([1.0], (1, 5, 5)), "2 to 2\\^20"),
    ],
)
def test_table_rejects_bad_input(arguments, says):
    with pytest.raises(ValueError, match=says):
        Table(*arguments)


def test_table_rejects_images_that_are_not_its_own():
    table = random_table()
    for bad in (
        torch.zeros(1, 1, 3, 3).long(),
        torch.zeros(1, 1, 2, 2),
        torch.full((1, 1, 2, 2), 3),
    ):
        with pytest.raises(ValueError, match="x must"):
            table.log_prob(bad)
    with pytest.raises(ValueError, match="different"):
        table.marginal([0, 0])
