"""Numbers as people read them, and perplexity."""

from __future__ import annotations

import math

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def size(count: float | None) -> str:
    """Bytes in units of 1,000, those that --memory takes: "26.3 MB"."""
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count:.0f} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def perplexity(nats: float) -> float:
    """Of the mean nats of a token; infinite where no float holds it."""
    return math.exp(nats) if nats < 700 else math.inf
