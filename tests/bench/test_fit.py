"""Costs are found again from the times that they make."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.bench import fit

NAMES = "layer", "read", "pair"


@given(st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=3), st.integers(0, 1000))
def test_costs_are_found_again(costs, seed):
    amounts = np.random.default_rng(seed).uniform(1, 100, (8, 3))
    times = [(dict(zip(NAMES, row, strict=True)), float(row @ costs), 1.0 + n) for n, row in enumerate(amounts)]
    found = fit.costs(times)
    assert [found[name] for name in NAMES] == pytest.approx(costs, rel=1e-4)
    assert max(map(abs, fit.off(times, found))) < 1e-6


def test_no_cost_is_negative():
    times = [({"layer": 1.0, "read": float(n)}, 10.0 - n, 10.0 - n) for n in range(1, 6)]
    found = fit.costs(times)
    assert min(found.values()) >= 0
    assert found["layer"] > 0
    assert found["read"] == 0


def test_amounts_that_never_occur_cost_nothing():
    assert fit.costs([({"layer": 2.0, "read": 0.0}, 1.0, 1.0)]) == {"layer": pytest.approx(0.5)}


def test_a_small_difference_of_two_long_times_counts_for_little():
    sure = [({"read": float(n)}, 2.0 * n, 2.0 * n) for n in range(1, 6)]
    assert fit.costs([*sure, ({"read": 1.0}, 20.0, 2000.0)])["read"] == pytest.approx(2, rel=1e-3)
    assert fit.costs([*sure, ({"read": 1.0}, -1.0, 2000.0)])["read"] == pytest.approx(2, rel=1e-3)
    assert fit.costs([*sure, ({"read": 1.0}, 4.0, 4.0)])["read"] > 2.05
