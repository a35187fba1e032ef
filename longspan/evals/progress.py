"""How far an evaluation is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, float], None]
"""Called with the samples done so far (the one in work counts in parts), and in all."""


def part(progress: Progress, done: float, size: float, total: float) -> Progress:
    """Told how far a piece of the work is, reports how far all of it is: `size` samples after the `done` ones."""
    return lambda now, end: progress(done + size * now / end, total)
