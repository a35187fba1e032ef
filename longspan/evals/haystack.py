"""The text around what is looked for: as long as wanted, from any place on."""

from __future__ import annotations

import random
import textwrap
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from longspan.errors import UsageError
from longspan.evals.text import documents

SLACK = 16
"""Tokens by which a fitted text may stay below its limit."""
_LONGEST_LINE = 500
"""Characters; a longer line is broken between words, since sentences are planted between lines."""


def held_out(seed: int | None = None) -> str:
    """The documents that the embedded model was not trained on, by name or in an order drawn from `seed`."""
    texts = [document.text for document in documents("held_out")]
    if seed is not None:
        random.Random(seed).shuffle(texts)
    return "\n\n\n".join(texts)


def everything(seed: int, characters: int) -> str:
    """At least so many characters of all documents, those held out first; of the others the embedded model has read
    most. Fewer where there are not so many."""
    rest = documents("train")
    random.Random(seed).shuffle(rest)
    parts = [held_out(seed)]
    size = len(parts[0])
    while rest and size < characters:
        parts.append(rest.pop().text)
        size += len(parts[-1])
    return "\n\n\n".join(parts)


class Haystack:
    """A text that begins anew where it ends."""

    def __init__(self, text: str) -> None:
        if not text.strip():
            raise UsageError("the text is empty; give one with something in it")
        lines = [part for line in text.splitlines() for part in _broken(line)]
        self._text = "".join(f"{line}\n" for line in lines)
        self._starts = [0, *accumulate(len(line) + 1 for line in lines)][:-1]

    def piece(self, place: float, characters: int) -> str:
        """So many characters, from the line on that stands at `place` (0 … 1)."""
        start = self._starts[bisect_left(self._starts, place * self._starts[-1])]
        times = (start + characters) // len(self._text)
        return (self._text * (times + 1) if times else self._text)[start : start + characters]


def fit(tokens: Callable[[int], int], limit: int, slack: int = SLACK) -> int:
    """How many characters of text to take, so that the whole has at most `limit` tokens and hardly fewer: no more than
    `slack`, where the text is cut that finely.

    tokens: how many the whole has with so many characters. With none it must not exceed the limit.
    """
    low, low_tokens = 0, tokens(0)
    assert low_tokens <= limit
    aim = limit - slack // 2
    high, high_tokens = max(1, 4 * (aim - low_tokens)), 0  # most tokens have fewer than five characters
    while (high_tokens := tokens(high)) <= limit:
        low, low_tokens, high = high, high_tokens, 2 * high
    halve = False
    while limit - low_tokens > slack and high - low > 1:
        share = 0.5 if halve else (aim - low_tokens) / (high_tokens - low_tokens)
        halve = not halve  # a straight line alone can creep
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        found = tokens(middle)
        if found <= limit:
            low, low_tokens = middle, found
        else:
            high, high_tokens = middle, found
    return low


def _broken(line: str) -> list[str]:
    if len(line) <= _LONGEST_LINE:
        return [line]
    return textwrap.wrap(line, _LONGEST_LINE, drop_whitespace=False, replace_whitespace=False, expand_tabs=False)
