"""What chance draws for the tasks: words, numbers, identifiers, and the noise around them."""

from __future__ import annotations

import random
import re
import string
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence as Seq
from functools import cache
from itertools import accumulate, islice

from longspan.evals.lookup.names import NOUNS
from longspan.evals.text import documents

NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
"""RULER's own noise; a line of it is all five sentences."""
_WORD = re.compile(r"(?<![\w.`'\"-])[a-z]{4,10}(?=[ ,;]|\. )")
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@cache
def vocabulary() -> tuple[str, ...]:
    """Words of Python's own sources and documentation that stand in two documents or more, in order of the alphabet:
    some 4,600."""
    found: Counter[str] = Counter()
    for split in ("train", "held_out"):
        for document in documents(split):
            found.update(set(_WORD.findall(document.text)))
    return tuple(sorted(word for word, times in found.items() if times > 1))


class Words:
    """Different words in the order of a draw: of the vocabulary, and made-up ones when that is used up.

    common: `count` words of the vocabulary, none of which stands within another word of the draw, so that an answer
    is right about a word only when it says that word.
    """

    def __init__(self, rng: random.Random, count: int) -> None:
        known = vocabulary()
        shuffled = rng.sample(known, len(known))
        alone = (word for word in shuffled if sum(word in other for other in known) == 1)
        self.common = list(islice(alone, count))
        self.order = rng.getrandbits(64)
        self._rng = random.Random(self.order)
        self._others = [word for word in shuffled if word not in self.common]
        self._all = set(shuffled)

    def others(self, count: int) -> list[str]:
        """The first so many words that are not common."""
        while len(self._others) < count:
            made = "".join(self._rng.choice(_VOWELS if place % 2 else _CONSONANTS) for place in range(7))
            if made not in self._all and not any(word in made for word in self.common):
                self._all.add(made)
                self._others.append(made)
        return self._others[:count]


def word(rng: random.Random) -> str:
    """A key: two words."""
    return f"{rng.choice(vocabulary())}-{rng.choice(NOUNS)}"


def number(rng: random.Random) -> str:
    """Seven digits."""
    return str(rng.randint(10**6, 10**7 - 1))


def identifier(rng: random.Random) -> str:
    """A random UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def letters(rng: random.Random, count: int, length: int, alphabet: str = string.ascii_uppercase) -> list[str]:
    """So many different strings of letters."""
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn.setdefault("".join(rng.choices(alphabet, k=length)))
    return list(drawn)


def noise(sentences: int) -> list[str]:
    """Lines of noise; the last may have fewer sentences."""
    whole, rest = divmod(sentences, len(NOISE))
    return [" ".join(NOISE)] * whole + ([" ".join(NOISE[:rest])] if rest else [])


def among(lines: Seq[str], planted: Seq[str], depths: Seq[float]) -> str:
    """The lines with others planted among them, each at a line's end nearest its depth (0 … 1 of the characters).
    depths: ascending; the planted keep their order."""
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    mixed: list[str] = []
    done = 0
    for depth, one in zip(depths, planted, strict=True):
        target = depth * starts[-1]
        cut = max(done, bisect_left(starts, target))
        if cut > done and target - starts[cut - 1] < starts[cut] - target:
            cut -= 1
        mixed += [*lines[done:cut], one]
        done = cut
    return "\n".join([*mixed, *lines[done:]])
