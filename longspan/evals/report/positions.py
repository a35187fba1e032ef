"""Perplexity by the place of a token in its window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.evals.bootstrap import ratio
from longspan.evals.records import DECILES, Record
from longspan.evals.report import style
from longspan.evals.report.figure import Figure, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def deciles(study: Study) -> Iterator[Figure]:
    """One figure for each length of a window."""
    for length in study.lengths:
        rows = tuple(row for record in study.records if record.windows for row in _rows(record, length, study.seed))
        if rows:
            count = max(row["windows"] for row in rows)
            yield Figure(
                kind=f"positions {length}",
                title=f"Perplexity by position, windows of {length:,} tokens",
                caption=(
                    f"{count:,} windows. The first tenth holds the first {length // DECILES:,} or so tokens of each "
                    "window, the last its end. Lower is better. Intervals of 95 % over the windows."
                ),
                rows=rows,
                draw=partial(_draw, rows, study),
                height=style.taller(study.plans),
            )


def _rows(record: Record, length: int, seed: int) -> Iterator[dict[str, Any]]:
    windows = [one for one in record.samples if one.length == length]
    for place in range(DECILES):
        tokens = [one.deciles[place][0] for one in windows]
        nats = [one.deciles[place][1] for one in windows]
        if sum(tokens):
            ends = ratio(nats, tokens, seed=seed)
            yield {
                "plan": record.plan,
                "length": length,
                "decile": place + 1,
                "perplexity": math.exp(min(sum(nats) / sum(tokens), 700.0)),
                "low": None if ends.low is None else math.exp(min(ends.low, 700.0)),
                "high": None if ends.high is None else math.exp(min(ends.high, 700.0)),
                "tokens": int(sum(tokens)),
                "windows": len(windows),
            }


def _draw(rows: Seq[dict[str, Any]], study: Study, canvas: Canvas, ink: str) -> None:
    with style.plot(canvas) as axes:
        handles = []
        plans = [plan for plan in study.plans if any(row["plan"] == plan for row in rows)]
        for plan in plans:
            look = study.looks[plan]
            mine = [row for row in rows if row["plan"] == plan]
            x = [row["decile"] for row in mine]
            handles += axes.plot(
                x,
                [row["perplexity"] for row in mine],
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=4.5,
            )
            known = [row for row in mine if row["low"] is not None]
            axes.fill_between(
                [row["decile"] for row in known],
                [row["low"] for row in known],
                [row["high"] for row in known],
                color=look.colour,
                alpha=0.15,
                linewidth=0,
            )
        axes.set_xticks(range(1, DECILES + 1))
        axes.set_xlabel("tenth of the window")
        axes.set_ylabel("perplexity")
        style.legend(canvas, handles, plans)
