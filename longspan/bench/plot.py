"""Decode and prefill against the context, one line for each plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.bench.measure import Row

FORMATS = (".png", ".pdf", ".svg")


def check(path: Path) -> None:
    """Raises UsageError for a plot that could not be written, before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib; pip install matplotlib, or leave --plot out") from None
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: give a name that ends in one of {', '.join(FORMATS)}")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--plot {path}: give a file in a folder that is there")


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Milliseconds of a decoded token and tokens read per second, against the context on a logarithmic axis. What was
    not measured leaves a gap; where nothing was, the panel is left out."""
    from matplotlib.figure import Figure

    panels = [
        (label, name)
        for label, name in (
            ("decode, ms per token", "decode_ms"),
            ("prefill, tokens per second", "prefill_tokens_per_second"),
        )
        if any(getattr(row, name) is not None for row in rows)
    ]
    figure = Figure(figsize=(6.4 * max(len(panels), 1), 4.8), layout="constrained")
    figure.suptitle(title)
    for number, (label, name) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        ticks: set[int] = set()
        for plan in dict.fromkeys(row.plan for row in rows):
            points = sorted((row.context, getattr(row, name)) for row in rows if row.plan == plan and _has(row, name))
            if points:
                ticks.update(context for context, _ in points)
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=plan)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [short(tick) for tick in sorted(ticks)])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("context, tokens")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _has(row: Row, name: str) -> bool:
    return getattr(row, name) is not None


def short(tokens: int) -> str:
    """131072 as 128K."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if tokens >= size and tokens % size == 0:
            return f"{tokens // size}{unit}"
    return str(tokens)
