"""What the user sees: numbers for people, JSON for programs, warnings for both."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import typer

from longspan.evals.numbers import size as size


def rate(tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return "– tok/s"
    return f"{tokens_per_second:,.0f} tok/s" if tokens_per_second >= 10 else f"{tokens_per_second:.2g} tok/s"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms" if value < 100 else f"{value:,.0f} ms"


def table(rows: list[tuple[str, str]]) -> None:
    """Lines of "name  value" on standard output, the values under one another."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> None:
    """A table on standard output: the first `names` columns to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (f"{cell:{'<' if i < names else '>'}{widths[i]}}" for i, cell in enumerate(row))
        print("  ".join(cells))


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def dump(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output. Numbers that JSON cannot write are null."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=2), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class Notes:
    """The warnings of one command: each a line on standard error, all of them in `texts`.

    Of warnings that differ in their numbers only, the first is shown.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._seen: set[str] = set()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = self._show
            yield

    def _show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        kind = re.sub(r"\d[\d.,]*", "0", text)
        if kind not in self._seen:
            self._seen.add(kind)
            self.texts.append(text)
            note(f"longspan: warning: {text}")


def notes(context: typer.Context) -> Notes:
    """The warnings of the command that is running."""
    return context.ensure_object(Notes)
