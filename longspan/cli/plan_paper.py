"""What the pages of `longspan plan` are written with: a console, paragraphs, tables, times."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

Report = Mapping[str, Any]
"""What `longspan.plan.report` makes."""
WIDTH = 80


@contextlib.contextmanager
def console() -> Iterator[Console]:
    """Standard output; where it is no terminal 80 columns without colour, and without spaces at the ends of lines."""
    if sys.stdout.isatty():
        yield Console(file=sys.stdout, highlight=False, emoji=False)
        return
    text = io.StringIO()
    yield Console(file=text, width=WIDTH, highlight=False, emoji=False, color_system=None)
    for line in text.getvalue().splitlines():
        print(line.rstrip())


def seconds(value: float | None) -> str:
    """A time as people say it."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:,.3g} min" if value < 7200 else f"{value / 3600:,.3g} h"


def band(found: Mapping[str, float]) -> str:
    return f"{seconds(found['mid'])} ({seconds(found['low'])} to {seconds(found['high'])})"


def item(out: Console, text: str, mark: str = "-", indent: int = 2) -> None:
    """A paragraph whose further lines stand under its first word."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=len(mark), no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(mark, text)
    out.print(Padding(grid, (0, 0, 0, indent), expand=False))


def inside(out: Console, text: str, indent: int) -> None:
    out.print(Padding(text, (0, 0, 0, indent), expand=False))


def table(*header: str, right: tuple[int, ...] = (2, 3)) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for i, name in enumerate(header):
        made.add_column(name, justify="right" if i in right else "left", overflow="fold", no_wrap=i == 0 and not name)
    return made
