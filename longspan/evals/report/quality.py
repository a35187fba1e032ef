"""What a plan is worth against the bytes that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.evals.compare import Row, quality
from longspan.evals.report import style
from longspan.evals.report.figure import Figure, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

NAMES = ("plan", "measure", "score", "low", "high", "kv_bytes_peak", "disk_bytes", "on_front", "on_total_front")


def fronts(study: Study) -> Iterator[Figure]:
    """One figure for every table with two plans or more."""
    for table in study.tables:
        rows = [row for row in table if row.whole and row.kv_bytes_peak is not None]
        if len(rows) > 1:
            lengths = sorted({row.length for row in table if row.length is not None})
            of = f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,}"
            cells = tuple({"length": row.length} | {name: getattr(row, name) for name in NAMES} for row in rows)
            disk = any(row.disk_bytes for row in rows)
            yield Figure(
                kind=f"quality {of}",
                title=f"Quality against bytes, {of} tokens",
                caption=(
                    "The line is the Pareto front in memory: no other plan scores better with no more bytes, or as "
                    "well with fewer. It goes by the scores as measured; where intervals overlap, another draw of the "
                    "samples may change it."
                    + (" Hollow: with the bytes on disk added." if disk else "")
                    + ("" if rows[0].measure == "share" else " Perplexity: lower is better, so the axis is turned.")
                ),
                rows=cells,
                draw=partial(_draw, cells, _order(rows), study),
                height=style.taller([row.plan for row in rows]),
            )


def _order(rows: Seq[Row]) -> list[tuple[float, float]]:
    """The corners of the front."""
    on = sorted((row for row in rows if row.on_front), key=lambda row: (row.kv_bytes_peak or 0, quality(row)))
    return [(float(row.kv_bytes_peak or 0), row.score) for row in on]


def _draw(
    cells: Seq[Mapping[str, Any]], front: Seq[tuple[float, float]], study: Study, canvas: Canvas, ink: str
) -> None:
    with style.plot(canvas) as axes:
        axes.plot(*zip(*front, strict=True), color=ink, linewidth=1, alpha=0.55, drawstyle="steps-post", zorder=1)
        handles = []
        for one in cells:
            look, x, y = study.looks[one["plan"]], one["kv_bytes_peak"], one["score"]
            below, above = (abs(y - end) if end is not None else 0.0 for end in (one["low"], one["high"]))
            handles.append(
                axes.errorbar(
                    [x],
                    [y],
                    yerr=[[below], [above]],
                    color=look.colour,
                    marker=look.marker,
                    markersize=7,
                    capsize=2.5,
                    linestyle="none",
                )
            )
            if one["disk_bytes"]:
                total = x + one["disk_bytes"]
                axes.plot([x, total], [y, y], color=look.colour, linewidth=0.8, linestyle=":")
                axes.plot([total], [y], look.marker, color=look.colour, fillstyle="none", markersize=7)
        if min(one["kv_bytes_peak"] for one in cells) > 0:
            style.logarithmic(axes, "x")
        style.bytes_axis(axes.xaxis)
        axes.set_xlabel("KV cache at its peak")
        if cells[0]["measure"] == "share":
            from matplotlib.ticker import PercentFormatter

            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.set_ylabel("score")
        else:
            axes.invert_yaxis()
            axes.set_ylabel("perplexity")
        style.legend(canvas, handles, [one["plan"] for one in cells])
