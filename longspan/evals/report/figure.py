"""A figure: numbers, what they mean, and how they are drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longspan.evals.records import Record
from longspan.evals.report.style import HEIGHT, Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from longspan.evals.compare import Row


@dataclass(frozen=True)
class Study:
    """Evaluations that differ in plan and length only. tables: for each length, the rows of its comparison. looks: of
    every plan of the report. trained: tokens that the model was trained on, None where the evaluations do not say.
    seed: of intervals."""

    suite: str
    regime: str | None
    records: tuple[Record, ...]
    tables: tuple[tuple[Row, ...], ...]
    looks: Mapping[str, Look]
    trained: int | None
    seed: int

    @property
    def plans(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.plan for one in self.records))

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for table in self.tables for row in table)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(sorted({length for one in self.records for length in one.lengths}))


@dataclass(frozen=True)
class Figure:
    """kind: of figure, and of its files' names. title, caption: text for people. rows: every number that is drawn, and
    those that belong to it. draw: onto an empty canvas, with the colour of its ink. height: inches."""

    kind: str
    title: str
    caption: str
    rows: tuple[Mapping[str, Any], ...]
    draw: Callable[[Canvas, str], None]
    height: float = HEIGHT


def slug(*words: str | None) -> str:
    """A name for files, of letters, digits and "-", whatever the words are."""
    parts = (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:40] for word in words if word)
    return "-".join(part for part in parts if part) or "figure"
