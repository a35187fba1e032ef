"""The two question tasks of RULER: a question about paragraphs that stand among many others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from longspan.errors import UsageError
from longspan.evals.cases import Question
from longspan.evals.haystack import Haystack
from longspan.evals.ruler.made import Made, Space
from longspan.evals.ruler.questions import Asked, Collection

ROOM = 32
_TASK = "Answer the question based on the given documents. Only give me the answer and do not output any other words."


@dataclass(frozen=True)
class Answering:
    """One question of the collection, which `index` chooses from an order that `seed` draws."""

    collection: Collection
    index: int
    seed: int

    def make(self, rng: random.Random, space: Space, essay: Haystack) -> Made:
        order = random.Random(self.seed).sample(range(len(self.collection.asked)), len(self.collection.asked))
        if self.index >= len(order):
            raise UsageError(f"samples: the file of questions has {len(order):,}; give so many or fewer")
        asked = self.collection.asked[order[self.index]]
        room = space.room(ROOM, (max(asked.answers, key=len),))
        question = Question(f"Question: {asked.text}", asked.answers, "some", room, "Answer:")
        others, places = list(asked.near), [rng.random() for _ in asked.needed]
        rng.shuffle(others)
        shown = _Documents(self.collection, asked, others, places, random.Random(rng.getrandbits(64)))
        return Made(space.fill(question, shown.text)[1], question)


class _Documents:
    """The needed documents among the others, as many characters of these as wanted; the last may be cut."""

    def __init__(
        self, collection: Collection, asked: Asked, near: list[int], places: list[float], rng: random.Random
    ) -> None:
        self._collection, self._asked, self._rng = collection, asked, rng
        self._needed = list(zip(places, (collection.documents[one] for one in asked.needed), strict=True))
        self._rest = self._more(near)
        self._drawn: list[tuple[float, str]] = []

    def text(self, characters: int) -> str:
        chosen, left = list(self._needed), characters
        for place, document in self._others():
            if left <= 0:
                break
            chosen.append((place, document if len(document) <= left else _cut(document, left)))
            left -= len(document) + 1
        shown = [document for _, document in sorted(chosen) if document]
        listed = "\n\n".join(f"Document {number}:\n{document}" for number, document in enumerate(shown, 1))
        return f"{_TASK}\n\nThe following are given documents.\n\n{listed}\n\n{_TASK}\n"

    def _others(self) -> Iterator[tuple[float, str]]:
        yield from self._drawn
        for one in self._rest:
            self._drawn.append((self._rng.random(), self._collection.documents[one]))
            yield self._drawn[-1]

    def _more(self, near: list[int]) -> Iterator[int]:
        """The near ones, then the rest of the collection; when it ends, all of it again and again."""
        every = range(len(self._collection.documents))
        used = {*self._asked.needed, *near}
        far = [one for one in every if one not in used]
        self._rng.shuffle(far)
        yield from chain(near, far)
        while True:
            yield from every


def _cut(document: str, characters: int) -> str:
    """The beginning, up to a space."""
    return document[: characters + 1].rpartition(" ")[0]
