"""One length, or several, of the texts of a suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from longspan.errors import UsageError
from longspan.evals import haystack
from longspan.evals.suite import whole

SEVERAL = "Several of them, instead of --length: with commas between, or repeated."
"""What `--help` says of `lengths`."""


def parse(texts: Iterable[str]) -> tuple[int, ...]:
    """Lengths as they are written: "1024,2048", once or more. Raises UsageError for what is no number."""
    listed = [one.strip() for text in texts for one in text.split(",")]
    for one in listed:
        if not one.isdecimal():
            raise UsageError(f"lengths: {one!r}; give whole numbers, such as 1024,2048")
    return tuple(map(int, listed))


def check(suite: Any, least: int = 1) -> None:
    """Of a suite with `length` and `lengths` the length becomes the longest of them, where there are some. Raises
    UsageError for a bad one, and where both are given and differ."""
    lengths = tuple(dict.fromkeys(suite.lengths))
    for length in (suite.length, *lengths):
        whole("length", length, least)
    if not lengths:
        return
    if suite.length not in (None, max(lengths)):
        raise UsageError(f"length: {suite.length:,} and lengths: {max(lengths):,}; give one of the two")
    object.__setattr__(suite, "lengths", lengths)
    object.__setattr__(suite, "length", max(lengths))


def of(suite: Any) -> tuple[int, ...]:
    """All lengths of a suite whose length is known."""
    assert suite.length is not None
    given: tuple[int, ...] = suite.lengths
    return given or (suite.length,)


def fit(tokens: Callable[[int], int], length: int, holds: str) -> int:
    """As `haystack.fit`; of a long text to a thousandth, since encoding it takes seconds. Raises UsageError where not
    even what it holds fits, `holds` in words."""
    least = tokens(0)
    if least > length:
        raise UsageError(f"length: {length:,} tokens do not hold {holds}; give {least:,} or more")
    return haystack.fit(tokens, length, max(haystack.SLACK, length // 1000))
