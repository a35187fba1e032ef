"""A needle in a haystack (G. Kamradt, 2023, "Needle In A Haystack – pressure testing LLMs"): at every depth of texts of
every length, is it found?

A needle is a fact as the embedded model knows them, or (`--needle`, `--question`, `--answer`) whatever the user says.
Several needles stand at even distances from the depth on to the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals import haystack, lengths, lookup, scores
from longspan.evals.cases import MARGIN, Case, Question, Scored
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.words import Words

PHRASINGS = ("held_out", "plain")
CHARACTERS = 6
"""Of text for each token, at least: what the haystack should hold before it begins anew."""


@dataclass(frozen=True)
class Hidden:
    """What stands in a text, how deep, and what is asked about it. places: of each question's needle among the depths;
    None where it is about all of them."""

    sentences: tuple[str, ...]
    depths: tuple[float, ...]
    asked: tuple[tuple[str, tuple[str, ...], str], ...]
    places: tuple[int | None, ...]


@dataclass(frozen=True)
class Needle:
    """Find a needle, or several, at even depths of texts of one length or more."""

    length: int | None = option(
        None, "TOKENS", "A prompt with its answer has up to so many. [default: 1024, or the trained length if shorter]"
    )
    lengths: tuple[int, ...] = option((), "TOKENS", lengths.SEVERAL)
    depths: int = option(11, "N", "Depths, from the beginning to the end.")
    samples: int = option(5, "N", "Texts for each length and depth.")
    needles: int = option(1, "N", "Facts in each text, each asked about by itself.")
    phrasing: str = option("held_out", "NAME", "Of facts and questions: held_out (from training), or plain.")
    needle: tuple[str, ...] = option((), "TEXT", "A sentence to hide, instead of invented facts. Repeatable.")
    question: str | None = option(None, "TEXT", "With --needle: what is asked.")
    answer: tuple[str, ...] = option((), "TEXT", "With --needle: what the answer has to hold. Repeatable.")
    room: int = option(64, "TOKENS", "With --needle: tokens that an answer may have.")
    seed: int = option(0, "N", "Other facts in other places of the text around.")

    def __post_init__(self) -> None:
        lengths.check(self)
        for name, least in (("depths", 1), ("samples", 1), ("needles", 1), ("seed", 0), ("room", 1)):
            whole(name, getattr(self, name), least)
        if self.phrasing not in PHRASINGS:
            raise UsageError(f"phrasing: unknown {self.phrasing!r}; known: {', '.join(PHRASINGS)}")
        given = (bool(self.needle), self.question is not None, bool(self.answer))
        if any(given) != all(given):
            raise UsageError("needle: --needle, --question and --answer go together; give all three, or none")
        if self.needle and self.needles != 1:
            raise UsageError("needles: it counts invented facts; leave it out, and repeat --needle instead")

    def grid(self) -> tuple[float, ...]:
        """The depths: 0 to 1, or the middle where there is one only."""
        return tuple(i / (self.depths - 1) for i in range(self.depths)) if self.depths > 1 else (0.5,)

    def count(self) -> int:
        return len(lengths.of(self)) * self.depths * self.samples * (1 if self.needle else self.needles)

    def cases(self, llm: Words, text: str | None) -> Iterator[Case]:
        assert self.length is not None
        hay = haystack.Haystack(haystack.everything(self.seed, CHARACTERS * self.length) if text is None else text)
        index = 0
        for length in lengths.of(self):
            for row, depth in enumerate(self.grid()):
                for i in range(self.samples):
                    yield self._case(llm, hay, length, index, random.Random(f"{self.seed}/needle/{row}/{i}"), depth)
                    index += 1

    def _case(
        self, llm: Words, hay: haystack.Haystack, length: int, index: int, rng: random.Random, depth: float
    ) -> Case:
        hidden, place = self._hidden(rng, depth), rng.random()
        rooms = [self._room(llm, references) for _, references, _ in hidden.asked]

        def made(characters: int) -> str:
            return lookup.plant(hay.piece(place, characters), hidden.sentences, rng, hidden.depths)

        def need(characters: int) -> int:
            text = made(characters)
            asked = ((question, room) for (question, _, _), room in zip(hidden.asked, rooms, strict=True))
            return max(len(prompts.conversation(llm, text, [question])) + room for question, room in asked)

        text = made(lengths.fit(need, length, "the needles with a question"))
        questions = []
        for (question, references, metric), room, at in zip(hidden.asked, rooms, hidden.places, strict=True):
            where = None if at is None else text.index(hidden.sentences[at] + "\n") / len(text)
            questions.append(Question(question, references, metric, room, depth=where))
        return Case("needle", index, length, text, tuple(questions))

    def _hidden(self, rng: random.Random, depth: float) -> Hidden:
        count = len(self.needle) or self.needles
        depths = tuple(depth + i * (1 - depth) / count for i in range(count))
        if self.needle:
            assert self.question is not None
            asked = ((self.question, self.answer, "every"),)
            return Hidden(self.needle, depths, asked, (0,) if count == 1 else (None,))
        phrasing: Any = self.phrasing
        facts = lookup.make_facts(rng, count, "held_out", phrasing=phrasing, people=False)
        questions = [lookup.ask(rng, fact, phrasing) for fact in facts]
        return Hidden(
            tuple(fact.sentence for fact in facts),
            depths,
            tuple((one.text, (one.answer,), "exact") for one in questions),
            tuple(range(count)),
        )

    def _room(self, llm: Words, references: tuple[str, ...]) -> int:
        if self.needle:
            return self.room
        return max(len(llm.encode(f" {one}", special=False)) for one in references) + MARGIN

    def results(self, samples: Seq[Scored]) -> Results:
        """cells: the heatmap, length by depth, in the order of the grid."""
        grid = [(depth, name(depth)) for depth in self.grid()]
        by_cell = scores.groups(samples, lambda one: (one.length, one.index // self.samples % self.depths))
        by_length = scores.groups(samples, lambda one: one.length)
        told = {cell: scores.figures(part) for cell, part in by_cell.items()}
        cells = [{"length": length, "depth": grid[row][0], **one} for (length, row), one in told.items()]
        lines = {length: scores.figures(part) for length, part in by_length.items()}
        together = scores.figures(samples)
        rows = [
            (f"{length:,}", *(_cell(told.get((length, row))) for row in range(self.depths)), *scores.row(one))
            for length, one in lines.items()
        ]
        notes = ["Scores by tokens and depth of the needle."]
        if (self.needles or len(self.needle)) > 1:
            notes.append("The depth is that of the first needle; needles that share a text make intervals too narrow.")
        values = {"cells": cells, "lengths": {str(length): one for length, one in lines.items()}, "all": together}
        return Results(values, ("tokens", *(shown for _, shown in grid), *scores.HEADER), tuple(rows), tuple(notes))


def name(depth: float) -> str:
    return f"{100 * depth:.4g} %"


def _cell(told: dict[str, Any] | None) -> str:
    return "–" if told is None or told["score"] is None else f"{100 * told['score']:.0f}"
