"""Metrics against closed forms, brute force and other libraries."""

import itertools
import math

import numpy as np
import pytest
import torch

from ddpm_lite import metrics
from ddpm_lite.data import import_torchvision, load, to_unit
from ddpm_lite.metrics import (
    Moments,
    bootstrap,
    frechet,
    kernel_distance,
    moments,
    nested_bootstrap,
    precision_recall,
)


def normal(n, dim, seed=0, shift=0.0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, dim, dtype=torch.float64, generator=rng)


def spd(dim, seed=0):
    a = normal(dim, dim, seed)
    return a @ a.T / dim + 0.01 * torch.eye(dim, dtype=torch.float64)


# -- Fréchet -----------------------------------------------------------------------------------


def test_frechet_of_a_shift_is_its_squared_length():
    a = normal(200, 5)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    assert frechet(a, a + shift) == pytest.approx(shift.square().sum().item(), abs=1e-10)


def test_frechet_of_gaussians_that_commute():
    """Diagonal covariances: sum of (difference of standard deviations)^2."""
    s, t = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 1.0, 0.25]).double()
    zero = torch.zeros(3, dtype=torch.float64)
    a, b = Moments(zero, s.diag(), 100), Moments(zero, t.diag(), 100)
    assert frechet(a, b) == pytest.approx((1 - 3) ** 2 + (2 - 1) ** 2, abs=1e-12)


@pytest.mark.parametrize("dim", [1, 3, 16])
def test_frechet_against_scipy(dim):
    from scipy.linalg import sqrtm

    a = Moments(normal(1, dim, 1)[0], spd(dim, 2), 50)
    b = Moments(normal(1, dim, 3)[0], spd(dim, 4), 50)
    A, B = a.cov.numpy(), b.cov.numpy()
    gap = (a.mean - b.mean).square().sum().item()
    expected = gap + np.trace(A + B - 2 * np.real(sqrtm(A @ B)))
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)


def test_frechet_against_torchmetrics():
    import_torchvision()  # the cure, before torchmetrics imports a broken torchvision
    pytest.importorskip("torchmetrics")
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(torch.nn.Module):
        num_features = 64

        def forward(self, x):
            return x.flatten(1)

    x, y = (to_unit(load("digits", split).x, 17).double() for split in ("train", "test"))
    fid = FrechetInceptionDistance(feature=Flat(), input_img_size=(1, 8, 8))
    fid.set_dtype(torch.float64)
    fid.update(x, real=True)
    fid.update(y, real=False)
    expected = float(fid.compute())
    assert frechet(x.flatten(1), y.flatten(1)) == pytest.approx(expected, rel=1e-5)


def test_frechet_is_stable_where_covariances_are_singular():
    flat = normal(50, 3) @ normal(3, 20, 5)  # rank 3 of 20
    assert frechet(flat, flat) == pytest.approx(0, abs=1e-9)
    few, many = normal(5, 20), normal(1000, 20, 1)
    assert math.isfinite(frechet(few, many)) and frechet(few, many) > 0
    point = torch.ones(10, 4)
    assert frechet(point, point + 2) == pytest.approx(16, abs=1e-12)


def test_frechet_from_moments_is_frechet_from_features():
    a, b = normal(300, 4), normal(200, 4, 1)
    assert frechet(moments(a), b) == frechet(a, b) == frechet(a, moments(b))
    assert moments(a).n == 300
    torch.testing.assert_close(moments(a).cov, torch.from_numpy(np.cov(a.numpy().T)))


def test_the_floor_falls_with_n():
    """Two sets of one law are not at distance 0: the floor falls about as 1/n."""
    means = []
    for n in (50, 200, 800):
        pairs = [(normal(n, 8, 2 * s), normal(n, 8, 2 * s + 1)) for s in range(8)]
        means.append(np.mean([frechet(a, b) for a, b in pairs]))
    assert means[0] > 3 * means[1] > 9 * means[2] > 0


# -- kernel distance ---------------------------------------------------------------------------


def test_kernel_distance_against_loops():
    fake, real = normal(6, 3), normal(5, 3, 1, shift=0.5)
    u, v = ((x - real.mean(0)) / real.std(0) for x in (fake, real))

    def k(x, y):
        return (x @ y / 3 + 1).item() ** 3

    expected = (
        sum(k(u[i], u[j]) for i, j in itertools.permutations(range(6), 2)) / 30
        + sum(k(v[i], v[j]) for i, j in itertools.permutations(range(5), 2)) / 20
        - 2 * sum(k(x, y) for x in u for y in v) / 30
    )
    assert kernel_distance(fake, real) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(fake, real, block=2) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_against_torchmetrics():
    import_torchvision()  # the cure, before torchmetrics imports a broken torchvision
    pytest.importorskip("torchmetrics")
    from torchmetrics.image.kid import maximum_mean_discrepancy, poly_kernel

    fake, real = normal(60, 4, 0, shift=0.3), normal(60, 4, 1)
    u, v = ((x - real.mean(0)) / real.std(0) for x in (fake, real))
    expected = maximum_mean_discrepancy(poly_kernel(u, u), poly_kernel(u, v), poly_kernel(v, v))
    assert kernel_distance(fake, real) == pytest.approx(float(expected), rel=1e-9)


def test_kernel_distance_is_unbiased_where_frechet_is_not():
    values = [kernel_distance(normal(60, 4, 2 * s), normal(60, 4, 2 * s + 1)) for s in range(200)]
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error  # the scaling's bias of order 1/n is below that
    assert min(values) < 0
    assert kernel_distance(normal(60, 4, shift=1.0), normal(60, 4, 1)) > 10 * np.std(values)


def test_kernel_distance_does_not_depend_on_the_unit_of_a_feature():
    fake, real = normal(50, 3), normal(50, 3, 1, shift=0.3)
    unit = torch.tensor([1.0, 1e3, 1e-3])
    assert kernel_distance(fake * unit, real * unit) == pytest.approx(
        kernel_distance(fake, real), rel=1e-9
    )


def test_kernel_distance_with_a_feature_that_never_varies():
    fake, real = normal(50, 3), normal(50, 3, 1)
    real[:, 1] = 0.1
    assert math.isfinite(kernel_distance(fake, real))


# -- precision and recall ----------------------------------------------------------------------


def test_precision_recall_against_loops():
    real, fake = normal(30, 2), normal(25, 2, 1, shift=0.7)

    def inside(points, centres, k):
        radius = [sorted((c - d).norm().item() for d in centres)[k] for c in centres]
        hits = [
            any((p - c).norm() <= r for c, r in zip(centres, radius, strict=True)) for p in points
        ]
        return sum(hits) / len(hits)

    for k in (1, 3, 5):
        got = precision_recall(fake, real, k=k)
        assert got == pytest.approx((inside(fake, real, k), inside(real, fake, k)))
        assert precision_recall(fake, real, k=k, block=7) == got


def test_two_dozen_images_without_a_class_do_not_make_the_kernel_explode():
    fake, real = normal(25, 4), normal(25, 4, 1)
    for some in (fake, real):  # a feature of one class, of which a redrawn set may have no image
        some[:, 0] *= 1e-6
        some[:3, 0] += 1
    assert abs(kernel_distance(fake, real)) < 1
    assert max(map(abs, bootstrap(kernel_distance, fake, real, n=100))) < 100
    real[:3, 0] -= 1
    assert kernel_distance(fake, real) < 100


def test_precision_recall_at_the_ends():
    real = normal(200, 3)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real + 100, real) == (0, 0)
    one_mode = real[real[:, 0] > 1.0]  # right images, one kind only
    precision, recall = precision_recall(one_mode, real)
    assert precision == 1 and recall < 0.5


# -- bootstrap ---------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_is_its_standard_error():
    x = normal(400, 1)
    value, low, high = bootstrap(lambda a: a.mean().item(), x, n=2_000)
    error = x.std().item() / 20
    assert value == x.mean().item()
    assert low == pytest.approx(value - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.15 * error)


def test_bootstrap_covers_as_often_as_it_says():
    means = [
        bootstrap(lambda a: a.mean().item(), normal(80, 1, s), n=200, seed=s) for s in range(100)
    ]
    covered = sum(low <= 0 <= high for _, low, high in means)
    assert 86 <= covered <= 100


def test_bootstrap_interval_holds_its_value_for_inflated_metrics():
    a, b = normal(60, 8), normal(60, 8, 1)
    for fn in (frechet, kernel_distance):
        value, low, high = bootstrap(fn, a, b, n=100)
        assert low < value < high


def test_bootstrap_repeats_itself_and_redraws_arrays_independently():
    a, b = normal(50, 1), normal(50, 1, 1)

    def gap(x, y):
        return (x.mean() - y.mean()).item()

    assert bootstrap(gap, a, b, seed=4) == bootstrap(gap, a, b, seed=4)
    assert bootstrap(gap, a, b, seed=4) != bootstrap(gap, a, b, seed=5)
    assert bootstrap(gap, a, a, n=50).high > 0  # one array twice would always give 0


def test_nested_bootstrap_sees_both_sources_of_chance():
    def mean(a):
        return a.mean().item()

    groups, n, noise, between = 40, 50, 1.0, 0.5
    sets = [normal(n, 1, s, between * z, noise) for s, z in enumerate(normal(groups, 1)[:, 0])]
    value, low, high = nested_bootstrap(mean, sets, n=1_000)
    assert value == pytest.approx(sum(map(mean, sets)) / groups)
    error = (torch.tensor([mean(a) for a in sets]).var() / groups).item()  # holds noise²/n already
    error = (error * (groups - 1) / groups + noise**2 / n / groups) ** 0.5
    assert low == pytest.approx(value - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.2 * error)
    constant = [torch.full((9, 1), float(k)) for k in range(3)]  # nothing but the groups varies
    assert nested_bootstrap(mean, constant).high > 1.5
    assert nested_bootstrap(mean, constant[:1]) == (0, 0, 0)


def test_nested_bootstrap_of_one_group_is_the_bootstrap():
    a = normal(200, 3)
    one = nested_bootstrap(lambda x: frechet(x, a), [normal(80, 3, 1)], n=400)
    other = bootstrap(lambda x: frechet(x, a), normal(80, 3, 1), n=400)
    assert one.value == other.value
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.2)


# -- features and bad input --------------------------------------------------------------------


class Sums(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def features(self, x):
        return self.drop(x.float().sum((2, 3)))


def test_features_are_batched_in_evaluation_mode_and_leave_the_mode_alone():
    net, x = Sums().train(), load("digits", "test").x
    got = metrics.features(net, x, batch=100)
    assert got.dtype == torch.float64 and got.shape == (397, 1)
    torch.testing.assert_close(got, x.double().sum((2, 3)))
    assert net.training and not got.requires_grad


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.features(Sums(), torch.zeros(2, 1, 2, 2)), "to_levels"),
        (lambda: metrics.features(Sums(), torch.zeros(0, 1, 2, 2).long()), "at least one"),
        (lambda: frechet(normal(9, 2), normal(9, 3)), "2 features cannot be compared with 3"),
        (lambda: frechet(normal(1, 2), normal(9, 2)), "N > 1"),
        (lambda: frechet(normal(9, 2) * math.nan, normal(9, 2)), "NaN"),
        (lambda: kernel_distance(normal(9, 2), normal(9, 3)), "2 features"),
        (lambda: kernel_distance(normal(9, 2)[0], normal(9, 3)), r"must be \[N,F\]"),
        (lambda: precision_recall(normal(3, 2), normal(9, 2)), "more than k"),
        (lambda: precision_recall(normal(9, 2), normal(9, 2), k=0), "k must be a whole"),
        (lambda: precision_recall(normal(9, 2), normal(9, 3)), "2 features"),
        (lambda: bootstrap(lambda: 0.0), "non-empty"),
        (lambda: bootstrap(frechet, normal(9, 2), normal(9, 2)[:0]), "non-empty"),
        (lambda: bootstrap(frechet, normal(9, 2), n=0), "n must be a whole"),
        (lambda: nested_bootstrap(lambda a: 0.0, []), "non-empty"),
        (lambda: nested_bootstrap(lambda a: 0.0, [normal(9, 2)[:0]]), "non-empty"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()
