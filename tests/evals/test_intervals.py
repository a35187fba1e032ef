from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.evals.intervals import around_mean, wilson


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Brown, Cai and DasGupta's n = 10
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_known_intervals(right, asked, low, high):
    assert wilson(right, asked) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_an_interval_holds_the_share_and_is_a_mirror(one, other):
    low, high = wilson(one, one + other)
    assert 0 <= low <= high <= 1
    if one + other:
        assert low <= one / (one + other) <= high
    assert wilson(other, one + other) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_more_samples_make_it_narrower():
    widths = [high - low for low, high in (wilson(n // 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


def test_around_a_mean():
    assert around_mean([1.0]) is None
    assert around_mean([2.0, 2.0, 2.0]) == (2.0, 2.0)
    low, high = around_mean([1.0, 2.0, 3.0, 4.0])
    assert (low + high) / 2 == pytest.approx(2.5)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(5 / 3 / 4), abs=1e-4)
