"""Memory of a device and decode time against context, one line for each plan, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longspan.bench.plot import short


def draw(reports: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the picture; what a plan has no times for leaves the second panel out."""
    from matplotlib.figure import Figure

    timed = any(point["decode_ms"] is not None for report in reports.values() for point in report["curve"])
    figure = Figure(figsize=(12.8 if timed else 6.4, 4.8), layout="constrained")
    panels = [("memory of a device, GB", "memory", 1e-9)] + [("decode, ms a token", "decode_ms", 1.0)] * timed
    for number, (label, key, unit) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        ticks: set[int] = set()
        for name, report in reports.items():
            points = [(point["context"], point[key] * unit) for point in report["curve"] if point[key] is not None]
            if not points:
                continue
            ticks.update(context for context, _ in points)
            (line,) = axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
            if key == "memory" and report["limit"] is not None:
                axes.axhline(report["limit"] * unit, color=line.get_color(), linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [short(tick) for tick in sorted(ticks)], rotation=45 if len(ticks) > 8 else 0)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("context, tokens")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    if any(report["limit"] is not None for report in reports.values()):
        figure.suptitle("dotted: what the device has")
    figure.savefig(path, dpi=150)
