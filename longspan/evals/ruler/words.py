"""Common words of RULER: the ten words that stand more often than all others in a long numbered list."""

from __future__ import annotations

import random
from dataclasses import dataclass

from longspan.evals.cases import Question
from longspan.evals.haystack import Haystack
from longspan.evals.ruler.drawn import Words
from longspan.evals.ruler.made import Made, Space

SHORT = 4096
"""Tokens below which a case has fewer repetitions, as RULER's own."""
ROOM = 120
_TASK = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often."
)


@dataclass(frozen=True)
class CommonWords:
    """common: how many words are to be found. often: times that each of them stands in the list. seldom: times that
    any other does. short: the two numbers of a short case. A worked example with a shorter list stands before."""

    common: int = 10
    often: int = 30
    seldom: int = 3
    short: tuple[int, int] = (6, 1)

    def make(self, rng: random.Random, space: Space, essay: Haystack) -> Made:
        long = space.length >= SHORT
        often, seldom = (self.often, self.seldom) if long else self.short
        asked, begins = self._asks()
        shown = Words(rng, self.common)
        listed = _listed(shown, 30, 10, 3) if long else _listed(shown, 10, 3, 1)
        worked = f"{listed}\n{asked} {begins} {_numbered(shown.common)}\n"
        drawn = Words(rng, self.common)
        references = tuple(drawn.common)
        room = space.room(ROOM, (_numbered(drawn.common),))
        question = Question(asked, references, "every", room, begins)
        return Made(space.fill(question, lambda n: worked + _listed(drawn, n, often, seldom))[1], question)

    def _asks(self) -> tuple[str, str]:
        return (
            f"Question: What are the {self.common} most common words in the above list?",
            f"Answer: The top {self.common} words that appear most often in the list are:",
        )


def _listed(words: Words, others: int, often: int, seldom: int) -> str:
    items = words.common * often + words.others(others) * seldom
    random.Random(words.order).shuffle(items)
    return f"{_TASK}\n{_numbered(items)}"


def _numbered(items: list[str]) -> str:
    return " ".join(f"{place}. {item}" for place, item in enumerate(items, 1))
