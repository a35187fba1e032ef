"""What is found, by length of the text and depth in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.evals.records import Sample
from longspan.evals.report import style
from longspan.evals.report.figure import Figure, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

ROWS = (tuple((i + 0.5) / 10 for i in range(10)), tuple(i / 10 for i in range(11)))
"""Depths that rows stand for: tenths of the text, or every tenth from its beginning to its end."""


def heatmaps(study: Study) -> Iterator[Figure]:
    """One for every plan whose samples know their depth."""
    for plan in study.plans:
        samples = [s for record in study.records if record.plan == plan for s in record.samples if s.depth is not None]
        if samples:
            cells = _cells(plan, samples)
            yield Figure(
                kind=f"needles {plan}",
                title=f"Found by length and depth: {plan}",
                caption=(
                    f"{len(samples):,} questions whose answer stands at one place of the text, under the plan {plan}. "
                    "Each cell gives the score in % and, smaller, the number n of its questions; an empty cell had "
                    "none. Depth is the share of the text before the answer; a row holds what is nearest to it."
                    + (f" The dashed line is the trained length, {study.trained:,} tokens." if study.trained else "")
                ),
                rows=tuple(cells),
                draw=partial(_draw, cells, study.trained),
                height=3.6,
            )


def rows_for(depths: Seq[float]) -> tuple[float, ...]:
    """The rows that the depths lie nearer to."""
    return min(ROWS, key=lambda rows: sum(abs(depth - nearest(depth, rows)) for depth in depths))


def nearest(depth: float, rows: Seq[float]) -> float:
    return min(rows, key=lambda row: abs(row - depth))


def _cells(plan: str, samples: Seq[Sample]) -> list[dict[str, Any]]:
    found = []
    rows = rows_for([one.depth or 0.0 for one in samples])
    for length in sorted({one.length for one in samples}):
        for row in rows:
            here = [one.value for one in samples if one.length == length and nearest(one.depth or 0.0, rows) == row]
            if here:
                score = sum(here) / len(here)
                found.append({"plan": plan, "length": length, "depth": row, "score": score, "n": len(here)})
    return found


def _draw(cells: Seq[Mapping[str, Any]], trained: int | None, canvas: Canvas, ink: str) -> None:
    import numpy as np
    from matplotlib import colormaps

    lengths = sorted({one["length"] for one in cells})
    rows = rows_for([one["depth"] for one in cells])
    grid = np.full((len(rows), len(lengths)), np.nan)
    colours = colormaps["cividis"]
    axes = canvas.add_subplot()
    small = 8 if len(lengths) <= 8 else 5.5
    for one in cells:
        row, column = rows.index(one["depth"]), lengths.index(one["length"])
        grid[row, column] = one["score"]
        text = "#000000" if one["score"] > 0.55 else "#ffffff"
        axes.text(column, row - 0.12, f"{100 * one['score']:.0f}", ha="center", va="center", fontsize=small, color=text)
        axes.text(column, row + 0.28, f"n {one['n']:,}", ha="center", va="center", fontsize=0.72 * small, color=text)
    image = axes.imshow(grid, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(lengths)), [style.amount(one) for one in lengths])
    axes.set_yticks(range(len(rows)), [f"{100 * row:.0f} %" for row in rows])
    axes.tick_params(length=0)
    axes.set_xlabel("length of the prompt, tokens")
    axes.set_ylabel("depth")
    bar = canvas.colorbar(image, ax=axes, ticks=[0, 0.5, 1], fraction=0.05, pad=0.02)
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    style.trained(
        axes, trained, None if trained is None else sum(one <= trained for one in lengths) - 0.5, "#000000", "#ffffff"
    )
