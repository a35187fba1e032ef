"""How sure a figure from samples is: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

Z = 1.959963984540054
"""A normal variable lies within Z standard deviations of its mean in 95 % of cases."""


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % score interval of a share (E. B. Wilson, 1927, "Probable inference, the law of succession, and
    statistical inference", equation 3 as Brown, Cai and DasGupta 2001 write it). Of nothing asked: 0 to 1."""
    if asked == 0:
        return 0.0, 1.0
    share = right / asked
    middle = share + Z**2 / (2 * asked)
    reach = Z * math.sqrt(share * (1 - share) / asked + Z**2 / (4 * asked**2))
    scale = 1 + Z**2 / asked
    # the ends are exact, but not in floating point
    low = 0.0 if right == 0 else (middle - reach) / scale
    high = 1.0 if right == asked else (middle + reach) / scale
    return low, high


def around_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of independent values, by the normal approximation; None for fewer than two."""
    if len(values) < 2:
        return None
    middle, reach = fmean(values), Z * stdev(values) / math.sqrt(len(values))
    return middle - reach, middle + reach
