"""Frequent words of RULER: made-up words whose frequencies follow a power law; the three after the first are asked
for, and the first is dots."""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass
from itertools import chain, repeat

from longspan.evals.cases import Question
from longspan.evals.haystack import Haystack
from longspan.evals.ruler.drawn import letters
from longspan.evals.ruler.made import Made, Space

ROOM = 50
_TASK = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. "
)
_ASK = (
    "Question: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text?"
)
_BEGIN = "Answer: According to the coded text above, the three most frequently appeared words are:"
_DOTS = "..."
_ASKED = 3
_TOKENS_PER_WORD = 50
"""Of the whole length, for each word that there may be."""


@dataclass(frozen=True)
class FrequentWords:
    """alpha: a word of rank k stands in proportion to k ** -alpha. letters: of each word."""

    alpha: float = 2.0
    letters: int = 6

    def make(self, rng: random.Random, space: Space, essay: Haystack) -> Made:
        ranked = letters(rng, max(space.length // _TOKENS_PER_WORD, 2 * _ASKED), self.letters, string.ascii_lowercase)
        references = tuple(ranked[:_ASKED])
        question = Question(_ASK, references, "every", space.room(ROOM, references), _BEGIN)
        order, whole = rng.getrandbits(64), _zeta(self.alpha)

        def text(count: int) -> str:
            shares = (count * rank**-self.alpha / whole for rank in range(1, len(ranked) + 2))
            times = [int(share) for share in shares]
            for rank in range(1, _ASKED + 1):  # in a short text they would stand as often as the next
                times[rank] += 1
            words = list(chain.from_iterable(map(repeat, [_DOTS, *ranked], times)))
            random.Random(order).shuffle(words)
            return _TASK + " ".join(words)

        return Made(space.fill(question, text)[1], question)


def _zeta(alpha: float) -> float:
    """Riemann's zeta function, for alpha > 1: the first terms, and Euler and Maclaurin's rest."""
    first = 1000.0
    rest: float = first ** (1 - alpha) / (alpha - 1) + first**-alpha / 2 + alpha * first ** (-alpha - 1) / 12
    return math.fsum(term**-alpha for term in range(1, int(first))) + rest
