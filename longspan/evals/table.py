"""A comparison as people read it: cells of a table, and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq

from longspan.evals.compare import Row
from longspan.evals.numbers import percent, size
from longspan.evals.records import REGIMES

NAMES = 2
"""Columns, the first ones, that hold names."""


def table(rows: Seq[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines, without the columns that nothing is in."""
    several = len({row.length for row in rows}) > 1
    suites = len({row.suite for row in rows}) > 1
    made = [_cells(row, several, suites) for row in rows]
    used = [name for name in dict.fromkeys(name for cells in made for name in cells) if any(map(_has(name), made))]
    return tuple(name.strip() for name in used), [tuple(cells.get(name) or "–" for name in used) for cells in made]


def _has(name: str) -> Callable[[dict[str, str]], bool]:
    return lambda cells: bool(cells.get(name))


def sentences(rows: Seq[Row], failures: Seq[tuple[str, str, str]] = ()) -> Iterator[str]:
    """What was measured, and what of the differences chance does not explain."""
    whole = [row for row in rows if row.whole]
    base = next(row for row in whole if row.change is None)
    others = [row for row in whole if row.change is not None]
    lengths = sorted({row.length for row in rows if row.length is not None})
    of = f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,}"
    plans = f"{len(whole)} plans" if len(whole) > 1 else f"The plan {base.plan}"
    if base.measure == "perplexity":
        yield f"{plans}: {base.questions:,} tokens foreseen in {base.texts:,} windows of {of} tokens."
    else:
        regime = REGIMES[base.regime or ""]
        facts = f"{base.questions:,} facts in " if base.drawn == "fact" else ""
        texts = "one text" if base.texts == 1 else f"{base.texts:,} texts"
        yield f"{plans}: {base.questions:,} questions about {facts}{texts} of {of} tokens, {regime}."
    sure = [row for row in others if _sure(row)]
    if sure:
        yield f"Different from {base.plan} beyond chance (95 %): " + ", ".join(_named(row) for row in sure) + "."
    if len(sure) < len(others):
        rest = ", ".join(row.plan for row in others if row not in sure)
        yield f"Chance may explain the difference from {base.plan}: {rest}."
    for plan, suite, why in failures:
        yield f"{plan} on {suite}: no result. {why}"


def points(share: float | None) -> str:
    """A difference of shares."""
    return "–" if share is None else f"{100 * share:+.1f}"


def _cells(row: Row, several: bool, suites: bool) -> dict[str, str]:
    """By the header; a name in it may have a space at its end to differ from another. Empty where nothing is said.
    several: whether there are rows of other lengths, suites: of other suites."""
    share = row.measure == "share"
    score, change = (percent, points) if share else (_number, _ratio)
    front = [word for word, on in (("memory", row.on_front), ("total", row.on_total_front)) if on]
    compared = row.change is not None
    return {
        "task": row.task if not suites or row.task == row.suite else f"{row.suite}: {row.task}",
        "plan": row.plan,
        "length": "" if not several else "all" if row.length is None else f"{row.length:,}",
        "score" if share else "perplexity": score(row.score),
        "95 % interval": "" if row.low is None else f"{score(row.low)} – {score(row.high)}",
        "n": f"{row.questions:,}",
        "texts": f"{row.texts:,}" if row.texts != row.questions else "",
        "change": change(row.change) if compared else "",
        "95 % interval ": f"{change(row.change_low)} to {change(row.change_high)}"
        if row.change_low is not None
        else "",
        "won": f"{row.won:,}" if compared else "",
        "lost": f"{row.lost:,}" if compared else "",
        "KV peak": "" if row.kv_bytes_peak is None else size(row.kv_bytes_peak),
        "on disk": size(row.disk_bytes) if row.disk_bytes else "",
        "a text": "" if row.text_kv_bytes is None else size(row.text_kv_bytes + (row.text_disk_bytes or 0)),
        "process": "" if row.rss_peak_bytes is None else size(row.rss_peak_bytes),
        "ms/token": "" if row.decode_ms_per_token is None else f"{row.decode_ms_per_token:.1f}",
        "front": " ".join(front),
    }


def _sure(row: Row) -> bool:
    return row.change_low is not None and row.change_high is not None and (row.change_low > 0 or row.change_high < 0)


def _named(row: Row) -> str:
    if row.measure == "share":
        return f"{row.plan} {points(row.change)} points ({points(row.change_low)} to {points(row.change_high)})"
    return f"{row.plan} {_ratio(row.change)} ({_ratio(row.change_low)} to {_ratio(row.change_high)})"


def _ratio(change: float | None) -> str:
    return "–" if change is None else f"{100 * change:+.2f} %"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
