"""What scores of answers come to: a mean with its interval, for a program and as a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from statistics import fmean
from typing import Any

from longspan.evals.cases import Scored
from longspan.evals.intervals import around_mean, wilson
from longspan.evals.numbers import percent

HEADER = ("score", "asked", "95 % interval")


def figures(samples: Iterable[Scored]) -> dict[str, Any]:
    """score: the mean, 0 … 1; None of nothing. interval: Wilson's where answers are right or wrong, else by the normal
    approximation; None where it takes more than was asked."""
    scores = [one.score for one in samples]
    if all(score in (0, 1) for score in scores):
        interval: tuple[float, float] | None = wilson(round(sum(scores)), len(scores))
    else:
        ends = around_mean(scores)
        interval = None if ends is None else (max(ends[0], 0.0), min(ends[1], 1.0))
    return {"score": fmean(scores) if scores else None, "asked": len(scores), "interval": interval}


def groups(samples: Seq[Scored], key: Callable[[Scored], Any]) -> dict[Any, list[Scored]]:
    """The samples by their keys, in the order in which these first came."""
    found: dict[Any, list[Scored]] = {}
    for one in samples:
        found.setdefault(key(one), []).append(one)
    return found


def row(told: dict[str, Any]) -> tuple[str, ...]:
    """Cells under `HEADER`."""
    ends = told["interval"]
    between = "–" if ends is None else f"{percent(ends[0])} – {percent(ends[1])}"
    return percent(told["score"]), f"{told['asked']:,}", between
