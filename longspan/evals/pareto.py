"""Which plans no other beats: the Pareto front of quality against cost."""

from __future__ import annotations

from collections.abc import Sequence as Seq


def front(points: Seq[tuple[float, float]]) -> tuple[bool, ...]:
    """Of each (cost, quality), whether it is on the front: no other point costs no more and is no worse, with one of
    the two better. Of equal points all are on it or none."""
    return tuple(not any(_beats(other, point) for other in points) for point in points)


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other
