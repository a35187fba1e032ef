"""Ids of long texts, piece by piece: a tokenizer needs a hundred times a text's size in memory to do it at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

Encode = Callable[[str], list[int]]
"""Ids of a text, without a tokenizer's own first and last tokens."""

PIECE = 200_000
"""Characters that are encoded at a time."""
AROUND = 256
"""Characters on both sides of a seam by which it is judged."""
TRIES = 64


def pieces(encode: Encode, text: str) -> list[int]:
    """The ids that `encode` gives for the whole text."""
    ids: list[int] = []
    start, wanted = 0, PIECE
    while len(text) - wanted > PIECE:
        lines = (at + 1 for at in _lines(text, wanted))
        cut = next((at for at in itertools.islice(lines, TRIES) if _seam(encode, text, at)), None)
        if cut is not None:
            ids += encode(text[start:cut])
            start = cut
        wanted = max(wanted, start) + PIECE  # no seam: the text goes on, or the tokenizer marks every beginning
    return ids + encode(text[start:])


def last_seam(encode: Encode, text: str) -> int:
    """The last place near the end of a text where its ids can be cut, whatever follows the text; 0: none was found."""
    end = len(text) - AROUND
    for _ in range(TRIES):
        end = text.rfind("\n", 0, max(end, 0))
        if end < 0:
            break
        if _seam(encode, text, end + 1):
            return end + 1
    return 0


def _lines(text: str, start: int) -> Iterator[int]:
    while (start := text.find("\n", start)) >= 0:
        yield start
        start += 1


def _seam(encode: Encode, text: str, at: int) -> bool:
    """Whether the ids before and after a place are those of the whole, as far as its surroundings tell."""
    if text[at : at + 1].isspace():
        return False  # runs of blanks are often one token
    before, after = text[max(at - AROUND, 0) : at], text[at : at + AROUND]
    return encode(before + after) == encode(before) + encode(after)
