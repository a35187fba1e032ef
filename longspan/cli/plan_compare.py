"""Plans side by side, a column for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.markup import escape

from longspan.cli import say
from longspan.cli.plan_paper import Report, console, seconds, table

BESIDE = 3


def compare(reports: Mapping[str, Report]) -> None:
    """Plans side by side, three to a table."""
    names = list(reports)
    with console() as out:
        for first in range(0, len(names), BESIDE):
            some = names[first : first + BESIDE]
            rows = table("", *(escape(name) for name in some), right=tuple(range(1, len(some) + 1)))
            for label, cell in COMPARED.items():
                rows.add_row(label, *(cell(reports[name]) for name in some))
            out.print(rows)
            if first + BESIDE < len(names):
                out.print()


def _cell_fits(report: Report) -> str:
    return "–" if report["fits"] is None else "yes" if report["fits"] else "no"


def _mid(report: Report, phase: str) -> str:
    return "–" if report["latency"] is None else seconds(report["latency"][phase]["seconds"]["mid"])


def _weights(report: Report) -> int:
    return sum(part["bytes"] for part in report["memory"]["parts"] if part["name"] == "weights")


COMPARED: dict[str, Callable[[Report], str]] = {
    "model": lambda r: escape(r["model"]["name"]),
    "machine": lambda r: "–" if r["machine"] is None else escape(r["machine"]["name"]),
    "context": lambda r: f"{r['work']['context']:,}",
    "parameters": lambda r: f"{r['model']['parameters'] / 1e9:.2f}B",
    "fits": _cell_fits,
    "memory a device": lambda r: say.size(r["memory"]["total"]),
    "of it weights": lambda r: say.size(_weights(r)),
    "of it cache": lambda r: say.size(r["memory"]["cache"]),
    "KV a token": lambda r: say.size(round(r["memory"]["token"])),
    "longest that fits": lambda r: "any" if r["unbounded"] else f"{r['max_context']:,}" if r["max_context"] else "–",
    "reading the prompt": lambda r: _mid(r, "prefill"),
    "a token, at first": lambda r: _mid(r, "decode_first"),
    "a token, at the end": lambda r: _mid(r, "decode_last"),
    "which waits for": lambda r: "–" if r["latency"] is None else r["latency"]["decode_last"]["binds"],
    "positions": lambda r: escape(r["scaling"]["rope"] or "selected pages"),
}
