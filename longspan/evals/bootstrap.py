"""How sure a mean is when nothing is known of how its parts are spread: the percentile bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.evals.intervals import wilson

RESAMPLES = 4000
_AT_ONCE = 1 << 20
"""Numbers drawn at once, so that memory stays small however many cases there are."""
_NOTHING = 1e-12
"""Widths below this are rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval. by: "bootstrap"; "wilson" where all drawn alike says nothing; "none" where nothing can be said,
    and the ends are None."""

    low: float | None
    high: float | None
    by: str

    def through(self, rising: Callable[[float], float]) -> Interval:
        """The interval of what a rising function makes of the figure."""
        low, high = (None if end is None else rising(end) for end in (self.low, self.high))
        return Interval(low, high, self.by)


def ratio(
    sums: Seq[float],
    counts: Seq[float],
    strata: Seq[Any] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The 95 % interval of Σ sums / Σ counts, over cases drawn anew with replacement (B. Efron, 1979, "Bootstrap
    methods: another look at the jackknife"; the percentiles of the drawn ratios).

    A case is what is independent: a text with all its questions, or a window. sums: of each case, its scores (or its
    nats, or the differences between two plans, which makes it a paired interval). counts: its questions (or tokens).
    strata: of each case, a group whose size stays as it is. bounds: the least and the most that a question can give.
    The same seed gives the same interval.

    Where every draw gives the same, as when all answers are right, the spread of the draws says nothing. There the
    interval says which values remain possible if no more cases would come out otherwise than Wilson's interval of
    "none of n" allows; for all right or all wrong it is Wilson's own. It needs `bounds`; without them there is none.
    """
    total, weight = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not len(total) or weight.sum() <= 0:
        return Interval(None, None, "none")
    low, high = _ends(total, weight, [0] * len(total) if strata is None else strata, seed, resamples)
    if len(total) > 1 and high - low > _NOTHING:
        return Interval(low, high, "bootstrap")
    if bounds is None:
        return Interval(None, None, "none")
    value = float(total.sum() / weight.sum())
    otherwise = wilson(0, len(total))[1]
    return Interval(value - otherwise * (value - bounds[0]), value + otherwise * (bounds[1] - value), "wilson")


def _ends(
    total: NDArray[np.float64], weight: NDArray[np.float64], strata: Seq[Any], seed: int, resamples: int
) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the ratio."""
    random = np.random.default_rng(seed)
    drawn, divisor = np.zeros(resamples), np.zeros(resamples)
    places: dict[Any, list[int]] = {}
    for place, stratum in enumerate(strata):
        places.setdefault(stratum, []).append(place)
    for inside in places.values():
        here = np.asarray(inside)
        step = max(_AT_ONCE // len(here), 1)
        for first in range(0, resamples, step):
            rows = slice(first, min(first + step, resamples))
            chosen = here[random.integers(0, len(here), (rows.stop - first, len(here)))]
            drawn[rows] += total[chosen].sum(axis=1)
            divisor[rows] += weight[chosen].sum(axis=1)
    low, high = np.percentile(drawn / divisor, (2.5, 97.5))
    return float(low), float(high)
