from __future__ import annotations

import itertools
import math
from statistics import stdev

import numpy as np
import pytest

from longspan.evals.bootstrap import Interval, ratio
from longspan.evals.intervals import Z, wilson


def test_a_share_of_many_comes_near_the_normal_interval():
    right = [1.0] * 300 + [0.0] * 100
    found = ratio(right, [1.0] * 400)
    reach = Z * math.sqrt(0.75 * 0.25 / 400)
    assert found.by == "bootstrap"
    assert (found.low, found.high) == pytest.approx((0.75 - reach, 0.75 + reach), abs=0.004)


def test_it_comes_near_all_draws_that_there_are():
    """Of seven cases 7 ** 7 draws can be made; how often each sum of them comes follows from the multinomial."""
    values = [94.0, 197.0, 16.0, 38.0, 99.0, 141.0, 23.0]
    sums: dict[float, int] = {}
    for drawn in itertools.combinations_with_replacement(range(7), 7):
        times = math.factorial(7) // math.prod(math.factorial(drawn.count(i)) for i in range(7))
        sums[sum(values[i] for i in drawn)] = sums.get(sum(values[i] for i in drawn), 0) + times
    assert sum(sums.values()) == 7**7
    reached, ends = 0, []
    for total in sorted(sums):
        before, reached = reached, reached + sums[total]
        ends += [total / 7 for part in (0.025, 0.975) if before < part * 7**7 <= reached]
    found = ratio(values, [1.0] * 7, resamples=40_000)
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1)


def test_the_ratio_is_of_sums_so_long_cases_weigh_more():
    sums, counts = [10.0, 300.0, 22.0, 310.0], [10.0, 100.0, 10.0, 100.0]
    found = ratio(sums, counts, resamples=2000, seed=3)
    drawn = np.random.default_rng(3).integers(0, 4, (2000, 4))
    means = np.array(sums)[drawn].sum(1) / np.array(counts)[drawn].sum(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))))


def test_the_seed_fixes_it_and_another_moves_it_a_little():
    values = [float(i % 7) for i in range(60)]
    first, again, other = (ratio(values, [1.0] * 60, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert (first.low, first.high) == pytest.approx((other.low, other.high), abs=3 * stdev(values) / math.sqrt(60) / 10)


def test_strata_keep_their_sizes():
    """Two tasks that differ much, each without any spread but one case: what is between tasks is no uncertainty."""
    values, strata = [1.0] * 10 + [0.0] * 9 + [1.0], ["easy"] * 10 + ["hard"] * 10
    within, across = ratio(values, [1.0] * 20, strata), ratio(values, [1.0] * 20)
    assert within.low >= 0.5
    assert across.low < 0.4


def test_questions_of_one_text_are_drawn_together():
    """Ten texts of which all five questions or none are right hold no more than ten cases."""
    together = ratio([5.0, 0.0] * 5, [5.0] * 10)
    apart = ratio(([1.0] * 5 + [0.0] * 5) * 5, [1.0] * 50)
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


@pytest.mark.parametrize(("right", "asked"), [(0, 20), (20, 20), (1, 1), (0, 1)])
def test_where_all_are_alike_it_is_wilsons(right, asked):
    found = ratio([float(right > 0)] * asked, [1.0] * asked, bounds=(0.0, 1.0))
    assert found.by == "wilson"
    assert (found.low, found.high) == pytest.approx(wilson(right, asked))


def test_no_difference_in_any_sample_is_not_no_difference_at_all():
    found = ratio([0.0] * 50, [1.0] * 50, bounds=(-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((-wilson(0, 50)[1], wilson(0, 50)[1]))


def test_without_bounds_or_cases_nothing_is_said():
    assert ratio([2.0, 2.0], [1.0, 1.0]) == Interval(None, None, "none")
    assert ratio([2.0], [1.0]) == Interval(None, None, "none")
    assert ratio([], []) == Interval(None, None, "none")


def test_it_holds_the_truth_about_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        found = ratio(list((random.random(60) < 0.7).astype(float)), [1.0] * 60, bounds=(0.0, 1.0), resamples=400)
        held += found.low <= 0.7 <= found.high
    assert 180 <= held <= 198
