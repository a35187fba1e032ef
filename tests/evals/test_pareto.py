from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.evals.pareto import front

POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), min_size=1, max_size=12)


def test_a_known_front():
    points = [(10.0, 0.9), (5.0, 0.8), (6.0, 0.7), (1.0, 0.2), (1.0, 0.1), (20.0, 0.9)]
    assert front(points) == (True, True, False, True, False, False)


def test_equals_stand_together():
    assert front([(3.0, 0.5), (3.0, 0.5), (2.0, 0.6)]) == (False, False, True)
    assert front([(3.0, 0.5), (3.0, 0.5)]) == (True, True)


@given(POINTS)
def test_what_is_not_on_the_front_is_beaten_by_what_is(points):
    on = front(points)
    assert any(on)
    best = [point for point, there in zip(points, on, strict=True) if there]
    for point, there in zip(points, on, strict=True):
        beaten = [one for one in best if one != point and one[0] <= point[0] and one[1] >= point[1]]
        assert bool(beaten) is not there
