"""A progress bar on standard error: how much is done, rate, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.speed or 0
        return Text(f"{speed:,.{0 if speed >= 10 else 2}f} {self._unit}/s" if speed else "")


@contextmanager
def bar(what: str, unit: str = "tokens") -> Iterator[Callable[[float, float], None]]:
    """Shows `what`, and a function that moves the bar: (units done, units in all). Silent where standard error
    is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        _Rate("tok" if unit == "tokens" else unit),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task(what, total=0)

        def move(done: float, total: float) -> None:
            shown.update(task, completed=done, total=total)

        yield move
