"""What a call costs."""

import pytest
import torch
from torch import nn

from ddpm_lite.cost import interleaved, interleaved_medians, macs


def test_macs_of_a_convolution_a_linear_layer_and_a_matrix_product():
    conv = nn.Conv2d(3, 8, 5, padding=2)
    assert macs(conv, torch.zeros(2, 3, 7, 9)) == 2 * 7 * 9 * 8 * 3 * 25
    linear = nn.Linear(11, 13)
    assert macs(linear, torch.zeros(5, 11)) == 5 * 11 * 13
    assert macs(torch.matmul, torch.zeros(2, 3), torch.zeros(3, 4)) == 24
    assert macs(torch.relu, torch.zeros(100)) == 0  # element-wise work is not counted


def test_macs_of_attention():
    q, kv = torch.zeros(2, 4, 5, 8), torch.zeros(2, 4, 7, 8)
    attend = nn.functional.scaled_dot_product_attention
    assert macs(attend, q, kv, kv) == 2 * 4 * 5 * 7 * (8 + 8)
    assert macs(attend, q, q, q, is_causal=True) == 2 * 4 * 15 * (8 + 8)  # 15 pairs may attend


def test_macs_add_up_over_calls_and_take_keywords():
    linear = nn.Linear(4, 4)

    def several(x, *, times):
        for _ in range(times):
            x = linear(x)
        return x

    assert macs(several, torch.zeros(1, 4), times=10) == 160


def test_candidates_are_interleaved_and_the_warm_up_is_not_counted():
    calls = []
    timings = interleaved_medians(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1
    )
    assert "".join(calls) == "baabbaab"[:8]  # rounds -1 (backwards), 0, 1 (backwards), 2
    assert set(timings) == {"a", "b"}
    assert all(0 <= t.low <= t.median <= t.high for t in timings.values())


def test_the_first_call_is_not_timed():
    now = [0.0]

    def lasting(*seconds):
        left = iter(seconds)

        def work():
            now[0] += next(left)

        return work

    def timed(fn):
        candidates = {"a": lasting(1000, 3, 1, 2), "b": lasting(9000, 6, 5, 4)}  # first: compiling
        return fn(candidates, repeats=3, warmup=1, clock=lambda: now[0])

    assert timed(interleaved) == {"a": [3, 1, 2], "b": [6, 5, 4]}
    assert timed(interleaved_medians)["a"] == (2.0, 1.5, 2.5)


@pytest.mark.parametrize("bad", [{"candidates": {}}, {"repeats": 0}, {"warmup": -1}])
def test_timing_rejects_what_it_cannot_do(bad):
    arguments = {"candidates": {"a": lambda: None}} | bad
    with pytest.raises(ValueError, match="at least one candidate"):
        interleaved_medians(**arguments)
