"""From text to ids; long texts piece by piece, since at once a tokenizer needs a hundred times a text's size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
"""Ids of a text, without a tokenizer's own first and last tokens."""

PIECE = 200_000
"""Characters that are encoded at a time."""
AROUND = 256
"""Characters on both sides of a seam by which it is judged."""
TRIES = 64


class Encoder:
    """A checkpoint's tokenizer for texts of any length. vocab: equal ids below it are one object, since a million of
    their own take 28 MB."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: int) -> None:
        self._tokenizer, self._numbers = tokenizer, list(range(vocab))

    def __call__(self, text: str, special: bool) -> list[int]:
        """The ids of a text. special: with the tokenizer's own first token."""
        found = self.plain(text, special) if len(text) <= 2 * PIECE else self._long(text, special)
        return [self._numbers[i] if i < len(self._numbers) else i for i in found]

    def plain(self, text: str, special: bool = False) -> list[int]:
        """The ids, encoded at once."""
        return list(self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def seam(self, text: str) -> int:
        """A place near the end of a long text where its ids can be cut, whatever follows; 0 where none is found."""
        return last_seam(self.plain, text) if len(text) > PIECE // 10 else 0

    def _long(self, text: str, special: bool) -> list[int]:
        whole, bare = self.plain("a", special), self.plain("a")
        if whole[len(whole) - len(bare) :] != bare:  # there is a last token too
            return self.plain(text, special)
        return whole[: len(whole) - len(bare)] + pieces(self.plain, text)


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
