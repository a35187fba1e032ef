"""Scores and memory against the length; with one length, plan beside plan."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from functools import partial
from typing import TYPE_CHECKING, Any

from longspan.evals.compare import ALL, Row
from longspan.evals.report import style
from longspan.evals.report.figure import Figure, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Cells = Seq[Mapping[str, Any]]


def scores(study: Study) -> Iterator[Figure]:
    """The score of all tasks together at each length."""
    tasks = {row.task for row in study.rows}
    rows = [row for row in study.rows if row.length is not None and (row.task == ALL or len(tasks) == 1)]
    points = tuple(_point(row) for row in rows)
    if points:
        share = points[0]["measure"] == "share"
        what = "Score" if share else "Perplexity"
        yield Figure(
            kind="score",
            title=f"{what} {_over(points)}",
            caption=f"{what}{' of all tasks together' if len(tasks) > 1 else ''}, with 95 % intervals."
            + ("" if share else " Lower is better."),
            rows=points,
            draw=partial(_against if _several(points) else _beside, points, study, "score"),
            height=_height(points, study),
        )


def memory(study: Study) -> Iterator[Figure]:
    """Of the cache and of the process, at their peak; where an evaluation has several lengths, at the longest."""
    for kind, name, title, caption in (
        (
            "cache",
            "kv_bytes_peak",
            "Peak KV cache",
            "Bytes of keys and values that were held at once at the most, scales and summaries included, for all texts "
            "that were in work together. Filled: in memory; hollow and dashed: in a file on disk, besides.",
        ),
        ("process", "rss_peak_bytes", "Peak memory of the process", "With weights, libraries and what steps need."),
    ):
        points = tuple(_memory(study, name))
        if points:
            yield Figure(
                kind=kind,
                title=f"{title} {_over(points)}",
                caption=caption,
                rows=points,
                draw=partial(_against if _several(points) else _beside, points, study, name),
                height=_height(points, study),
            )


def _several(points: Cells) -> bool:
    return len({one["length"] for one in points}) > 1


def _over(points: Cells) -> str:
    return "against length" if _several(points) else f"of each plan, {points[0]['length']:,} tokens"


def _height(points: Cells, study: Study) -> float:
    return style.taller(study.plans) if _several(points) else 1.0 + 0.36 * len(study.plans)


def _point(row: Row) -> dict[str, Any]:
    names = ("plan", "length", "task", "measure", "score", "low", "high", "by", "questions", "texts")
    return {name: getattr(row, name) for name in names}


def _memory(study: Study, name: str) -> Iterator[dict[str, Any]]:
    for one in study.records:
        size = one.number(name)
        if size is not None:
            point = {"plan": one.plan, "length": max(one.lengths), name: int(size)}
            yield point | ({"disk_bytes": int(one.number("disk_bytes") or 0)} if name == "kv_bytes_peak" else {})


def _against(points: Cells, study: Study, name: str, canvas: Canvas, ink: str) -> None:
    with style.plot(canvas) as axes:
        handles = []
        for place, plan in enumerate(study.plans):
            look = study.looks[plan]
            mine = sorted((one for one in points if one["plan"] == plan), key=lambda one: int(one["length"]))
            aside = 2 ** (0.05 * (place - (len(study.plans) - 1) / 2))  # so that intervals do not hide each other
            x = [aside * one["length"] for one in mine]
            line = {"color": look.colour, "linestyle": look.line, "linewidth": 1.6}
            handle = axes.errorbar(
                x,
                [one[name] for one in mine],
                yerr=_reach(mine, name),
                marker=look.marker,
                markersize=5,
                capsize=2.5,
                elinewidth=1,
                **line,  # type: ignore[arg-type]
            )
            handles.append(handle)
            if any(one.get("disk_bytes") for one in mine):
                axes.plot(
                    x,
                    [float(one["disk_bytes"] or "nan") for one in mine],
                    **line | {"linestyle": ":"},  # type: ignore[arg-type]
                    marker=look.marker,
                    markerfacecolor="none",
                    markersize=5,
                )
        style.tokens(axes, [one["length"] for one in points])
        _values(axes, "y", points, name)
        style.trained(axes, study.trained, study.trained, ink)
        style.legend(canvas, handles, study.plans)


def _beside(points: Cells, study: Study, name: str, canvas: Canvas, ink: str) -> None:
    with style.plot(canvas) as axes:
        for place, plan in enumerate(study.plans):
            look = study.looks[plan]
            for one in (one for one in points if one["plan"] == plan):
                axes.errorbar(
                    [one[name]],
                    [place],
                    xerr=_reach([one], name),
                    marker=look.marker,
                    color=look.colour,
                    markersize=6,
                    capsize=3,
                )
                if one.get("disk_bytes"):
                    axes.plot([one["disk_bytes"]], [place], look.marker, color=look.colour, fillstyle="none")
        axes.set_yticks(range(len(study.plans)), [textwrap.fill(style.short(plan), 22) for plan in study.plans])
        axes.set_ylim(len(study.plans) - 0.4, -0.6)
        _values(axes, "x", points, name)


def _values(axes: Any, which: str, points: Cells, name: str) -> None:
    """The axis, "x" or "y", that shows what was measured."""
    axis, limits = getattr(axes, f"{which}axis"), getattr(axes, f"set_{which}lim")
    if name != "score":
        limits(0, 1.12 * max(max(one[name], one.get("disk_bytes") or 0) for one in points))
        style.bytes_axis(axis)
        axis.set_label_text("bytes")
    elif points[0]["measure"] == "share":
        from matplotlib.ticker import PercentFormatter

        limits(-0.03, 1.03)
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_label_text("score")
    else:
        if max(one["score"] for one in points) > 8 * min(one["score"] for one in points):
            style.logarithmic(axes, which)
        axis.set_label_text("perplexity")


def _reach(points: Cells, name: str) -> list[list[float]] | None:
    """How far intervals reach below and above; None where there are none."""
    if name != "score":
        return None
    low = [one["score"] - one["low"] if one["low"] is not None else 0.0 for one in points]
    high = [one["high"] - one["score"] if one["high"] is not None else 0.0 for one in points]
    return [[max(x, 0.0) for x in low], [max(x, 0.0) for x in high]]
