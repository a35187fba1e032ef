"""The eight needle tasks of RULER: sentences with a key and a value in a haystack, and keys that are asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from longspan.evals.cases import Question
from longspan.evals.haystack import Haystack
from longspan.evals.ruler.drawn import among, identifier, noise, number, word
from longspan.evals.ruler.made import Made, Space

KINDS: dict[str, Callable[[random.Random], str]] = {"words": word, "numbers": number, "uuids": identifier}
ROOM = 128
_DEPTHS = 40
"""Even depths, both ends among them, from which those of needles in an essay are drawn."""


@dataclass(frozen=True)
class Needles:
    """haystack: `noise`, `essay`, or `needle` (sentences of the needles' own form, with other keys). keys, values: how
    many needles have a key of their own, and how many values each key has. asked: keys in the question."""

    haystack: str
    key: str = "words"
    value: str = "numbers"
    keys: int = 1
    values: int = 1
    asked: int = 1

    def make(self, rng: random.Random, space: Space, essay: Haystack) -> Made:
        taken: set[str] = set()
        needles = [
            (key, _new(rng, self.value, taken))
            for key in (_new(rng, self.key, taken) for _ in range(max(self.keys, self.asked)))
            for _ in range(self.values)
        ]
        keys = rng.sample(list(dict.fromkeys(key for key, _ in needles)), self.asked)
        rng.shuffle(needles)
        references = tuple(value for one in keys for key, value in needles if key == one)
        if self.haystack == "essay":
            depths = [depth / (_DEPTHS - 1) for depth in sorted(rng.sample(range(_DEPTHS), len(needles)))]
        else:
            depths = sorted(rng.random() for _ in needles)
        only = [depth for depth, (key, _) in zip(depths, needles, strict=True) if key in keys]
        room, depth = space.room(ROOM, references), only[0] if len(only) == 1 else None
        told, question = self._asked(keys, references, room, depth)
        planted = [self._sentence(key, value) for key, value in needles]
        if self.haystack == "essay":
            hay = _essay(rng, essay)
        else:
            hay = noise if self.haystack == "noise" else self._others(rng, taken)
        count, text = space.fill(question, lambda n: told + among(hay(n), planted, depths))
        if self.haystack == "needle":
            # a sentence of the needles' form can be longer than the space that is left, so noise fills that
            lines = among(hay(count), planted, depths)
            text = space.fill(question, lambda n: "\n".join([told.strip(), *noise(n), lines]))[1]
        return Made(text, question)

    def _asked(
        self, keys: list[str], references: tuple[str, ...], room: int, depth: float | None
    ) -> tuple[str, Question]:
        """What stands before the text, and the question after it."""
        if len(references) > 1:
            begin, kind, verb, ask = "Some", self.value, "are", "are all"
        else:
            begin, kind, verb, ask = "A", self.value[:-1], "is", "is"
        listed = ", ".join(keys[:-1]) + ", and " + keys[-1] if len(keys) > 1 else keys[0]
        told = (
            f"{begin} special magic {kind} {verb} hidden within the following text. Make sure to memorize it. I will "
            f"quiz you about the {kind} afterwards.\n"
        )
        what = f"the special magic {kind} for {listed} mentioned in the provided text"
        begins = f"T{what[1:]} {verb}"
        return told, Question(f"What {ask} {what}?", references, "every", room, begins, depth)

    def _sentence(self, key: str, value: str) -> str:
        return f"One of the special magic {self.value} for {key} is: {value}."

    def _others(self, rng: random.Random, taken: set[str]) -> Callable[[int], list[str]]:
        """The first so many sentences with other keys and values."""
        others: list[str] = []

        def made(count: int) -> list[str]:
            while len(others) < count:
                key, value = _new(rng, self.key, taken, keep=False), _new(rng, self.value, taken, keep=False)
                others.append(self._sentence(key, value))
            return others[:count]

        return made


def _essay(rng: random.Random, essay: Haystack) -> Callable[[int], list[str]]:
    """The lines of so many characters, from one place on."""
    place = rng.random()
    return lambda characters: essay.piece(place, characters).splitlines()


def _new(rng: random.Random, kind: str, taken: set[str], keep: bool = True) -> str:
    """One that is not taken, and from then on is, if it is to be kept."""
    while (drawn := KINDS[kind](rng)) in taken:
        pass
    if keep:
        taken.add(drawn)
    return drawn
