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


def paired(base: int, won: int, lost: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares of the same `asked` questions (R. G. Newcombe, 1998,
    "Improved confidence intervals for the difference between binomial proportions based on paired data", method 10).

    base: right the first time. won: right the second time only. lost: right the first time only.
    """
    second = base + won - lost
    both, neither = base - lost, asked - base - won
    one, other = wilson(second, asked), wilson(base, asked)
    p, q = second / asked, base / asked
    product = second * (asked - second) * base * (asked - base)
    inner: float = both * neither - won * lost
    if inner > 0:  # the continuity correction of method 10
        inner = max(inner - asked / 2, 0)
    phi = inner / math.sqrt(product) if product else 0.0
    down, up = (p - one[0], other[1] - q), (one[1] - p, q - other[0])
    low = math.sqrt(max(down[0] ** 2 - 2 * phi * down[0] * down[1] + down[1] ** 2, 0.0))
    high = math.sqrt(max(up[0] ** 2 - 2 * phi * up[0] * up[1] + up[1] ** 2, 0.0))
    return p - q - low, p - q + high


def around_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of independent values, by the normal approximation; None for fewer than two."""
    if len(values) < 2:
        return None
    middle, reach = fmean(values), Z * stdev(values) / math.sqrt(len(values))
    return middle - reach, middle + reach
