"""Variable tracking of RULER: a chain of assignments in noise, and the value that all of it ends up with."""

from __future__ import annotations

import random
from dataclasses import dataclass

from longspan.evals.cases import Question
from longspan.evals.haystack import Haystack
from longspan.evals.ruler.drawn import among, letters, noise
from longspan.evals.ruler.made import Made, Space

ROOM = 30
_EXAMPLE = 500
"""Tokens of the worked example, at most; in a short case half of the whole."""
_TASK = "Memorize and track the chain(s) of variable assignment hidden in the following text."
_ASK = "Question: Find all variables that are assigned the value {value} in the text above."
_BEGIN = (
    "Answer: According to the chain(s) of variable assignment in the text above, {count} variables are assigned the "
    "value {value}, they are:"
)


@dataclass(frozen=True)
class Chain:
    """value: of all. names: in the order of assignment. places: where, 0 … 1."""

    value: str
    names: list[str]
    places: list[float]

    @property
    def lines(self) -> list[str]:
        first = f"VAR {self.names[0]} = {self.value}"
        return [first, *(f"VAR {new} = VAR {old}" for old, new in zip(self.names, self.names[1:], strict=False))]

    def text(self, sentences: int) -> str:
        return f"{_TASK}\n\n" + among(noise(sentences), self.lines, self.places)

    def question(self, room: int) -> Question:
        return Question(
            _ASK.format(value=self.value),
            tuple(self.names),
            "every",
            room,
            _BEGIN.format(count=len(self.names), value=self.value),
        )


@dataclass(frozen=True)
class VariableTracking:
    """hops: assignments of one variable to the next. A worked example of a shorter text stands before."""

    hops: int = 4

    def make(self, rng: random.Random, space: Space, essay: Haystack) -> Made:
        example_value, value = (str(one) for one in rng.sample(range(10_000, 100_000), 2))
        shown, chain = self._chain(rng, example_value, 3), self._chain(rng, value, 5)
        asked = shown.question(0)
        most = max(min(_EXAMPLE, space.length // 2), space.tokens(shown.text(0), asked))
        worked = Space(space.llm, most).fill(asked, shown.text)[1]
        worked += f"\n{asked.text} {asked.begins} {' '.join(shown.names)}\n\n"
        question = chain.question(space.room(ROOM, tuple(chain.names)))
        return Made(space.fill(question, lambda n: worked + chain.text(n))[1], question)

    def _chain(self, rng: random.Random, value: str, length: int) -> Chain:
        count = self.hops + 1
        return Chain(value, letters(rng, count, length), sorted(rng.random() for _ in range(count)))
