"""Metrics keep their symmetries, whatever the features."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_lite.metrics import frechet, kernel_distance, precision_recall

seeds = st.integers(0, 2**32 - 1)


def two_sets(seed, dim, n=12):
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, dim, dtype=torch.float64, generator=rng)
    turn, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=rng))
    return a, 2 * b + 1, turn


@given(seeds, st.integers(1, 20), st.floats(0.01, 100))
def test_frechet_is_a_squared_distance(seed, dim, unit):
    """Symmetric, zero for equal sets, blind to turns and shifts, of the square of the unit."""
    a, b, turn = two_sets(seed, dim)
    d = frechet(a, b)
    assert d >= 0 and math.isfinite(d)
    assert frechet(b, a) == pytest.approx(d, rel=1e-6, abs=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a @ turn + 3, b @ turn + 3) == pytest.approx(d, rel=1e-5, abs=1e-5)
    assert frechet(a * unit, b * unit) == pytest.approx(d * unit**2, rel=1e-5, abs=1e-5 * unit**2)


@given(seeds, st.integers(2, 10))
def test_order_of_rows_does_not_matter(seed, dim):
    a, b, _ = two_sets(seed, dim)
    shuffled = a[torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))]
    assert kernel_distance(shuffled, b) == pytest.approx(kernel_distance(a, b), rel=1e-9, abs=1e-9)
    assert precision_recall(shuffled, b) == precision_recall(a, b)


@settings(max_examples=50)
@given(seeds, st.integers(1, 6), st.integers(1, 5))
def test_precision_and_recall_swap_with_their_sets(seed, dim, k):
    a, b, _ = two_sets(seed, dim)
    precision, recall = precision_recall(a, b, k=k)
    assert precision_recall(b, a, k=k) == (recall, precision)
    assert 0 <= precision <= 1 and 0 <= recall <= 1
