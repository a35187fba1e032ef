"""Fact lookup as a suite: invented facts in a text of a given length, asked about ability by ability.

Names, phrasings and the text around are held out from the embedded model's training. An answer is right when the
whole of it is what was asked for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals import haystack, lookup
from longspan.evals.cases import MARGIN, PLACES, Case, Question, Scored
from longspan.evals.intervals import wilson
from longspan.evals.numbers import percent
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.words import Words

ROW = 5
"""Questions of a conversation asked in a "row"."""
ANSWERABLE = ("single", "distractor", "several", "updated")
"""Abilities whose questions could be in "unknown", and are not: "unknown" is always wrong there."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """All that chance decides of a text: its sentences and how deep each stands, the questions, and where in the
    haystack (0 … 1) the text around them begins. There are fewer than five questions in a row where there is less
    to ask about; of the last text, only the first `asked` count."""

    ability: str
    index: int
    sentences: tuple[str, ...]
    depths: tuple[float, ...]
    questions: tuple[lookup.Question, ...]
    asked: int
    place: float

    def text(self, around: str) -> str:
        return lookup.plant(around, self.sentences, random.Random(0), self.depths)


@dataclass(frozen=True)
class FactLookup:
    """Look invented facts up in a text that is all new to the embedded model.

    One question is asked about each text, so that answers are independent; asked in a "row" up to five are, in one
    conversation, each after the model's own earlier answers.
    """

    length: int | None = option(
        None, "TOKENS", "A prompt with its answer has up to so many. [default: 1024, or the trained length if shorter]"
    )
    facts: int = option(16, "N", "Facts in each text.")
    samples: int = option(
        100,
        "N",
        "Questions for each ability. 100 of each take a small model a minute or two on a CPU.",
        also="questions",
    )
    abilities: tuple[str, ...] = option(
        tuple(lookup.ABILITIES), "NAME", f"One of {', '.join(lookup.ABILITIES)}. Repeatable. [default: all]", "ability"
    )
    asked: str = option(
        "end",
        "PLACE",
        "Of the question: at the end or (with --regime aware) at the start of the prompt; or row, five in a row.",
    )
    seed: int = option(0, "N", "Another text and other facts.")

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("facts", 1), ("samples", 1), ("seed", 0)):
            whole(name, getattr(self, name), least)
        object.__setattr__(self, "abilities", tuple(dict.fromkeys(self.abilities)))
        if self.asked not in PLACES:
            raise UsageError(f"asked: unknown {self.asked!r}; known: {', '.join(PLACES)}")
        if not self.abilities:
            raise UsageError(f"ability: give at least one of {', '.join(lookup.ABILITIES)}")
        for name in self.abilities:
            if name not in lookup.ABILITIES:
                raise UsageError(f"ability: unknown {name!r}; known: {', '.join(lookup.ABILITIES)}")
            if self.facts > lookup.MOST_FACTS.get(name, self.facts):
                raise UsageError(
                    f"facts: {self.facts:,}; ability {name} has names for {lookup.MOST_FACTS[name]}: lower it, or name "
                    "the abilities wanted"
                )

    # what is asked

    def drawn(self) -> Iterator[Drawn]:
        """Every text's draws, ability by ability; more questions only append to an ability's."""
        for ability in self.abilities:
            left, index = self.samples, 0
            while left > 0:
                made = self.draw(ability, index, left)
                yield made
                left, index = left - made.asked, index + 1

    def draw(self, ability: str, index: int, most: int = ROW) -> Drawn:
        """The draws of one text: the seed, the ability, the index and the facts fix them. At most `most` questions
        of it are asked."""
        rng = random.Random(f"{self.seed}/{ability}/{index}")
        sample = lookup.ABILITIES[ability](rng, self.facts, ROW if self.asked == "row" else 1, "held_out")
        depths = tuple(sorted(rng.random() for _ in sample.sentences))
        asked = min(most, len(sample.questions))
        return Drawn(ability, index, sample.sentences, depths, sample.questions, asked, rng.random())

    def count(self) -> int:
        return self.samples * len(self.abilities)

    def cases(self, llm: Words, text: str | None) -> Iterator[Case]:
        assert self.length is not None
        self._check(llm)
        hay = haystack.Haystack(haystack.held_out(self.seed) if text is None else text)
        for drawn in self.drawn():
            whole_text = self._text(llm, drawn, hay)
            asked = [
                Question(
                    one.text,
                    (one.answer,),
                    "exact",
                    room(llm, one),
                    depth=depth(whole_text, drawn.sentences, one.answer),
                )
                for one in drawn.questions[: drawn.asked]
            ]
            yield Case(drawn.ability, drawn.index, self.length, whole_text, tuple(asked), self.asked)

    def _text(self, llm: Words, drawn: Drawn, hay: haystack.Haystack) -> str:
        """The sentences in as much text as the length leaves room for."""
        assert self.length is not None

        def made(characters: int) -> str:
            return drawn.text(hay.piece(drawn.place, characters))

        return made(haystack.fit(lambda characters: self._need(llm, drawn, made(characters)), self.length))

    def _need(self, llm: Words, drawn: Drawn, text: str) -> int:
        """Tokens of the whole conversation at most, with the room for every answer."""
        asked = [question.text for question in drawn.questions]
        expected = [question.answer for question in drawn.questions]
        ids = prompts.conversation(llm, text, asked, expected[:-1], self.asked == "start")
        # an earlier answer may fill its room, and its tokens need not join its neighbours' as the expected one's do
        return len(ids) + 2 * MARGIN * (len(asked) - 1) + room(llm, drawn.questions[-1])

    def _check(self, llm: Words) -> None:
        assert self.length is not None
        least = max(self._need(llm, one, one.text("")) for one in self.drawn())
        if least > self.length:
            raise UsageError(
                f"length: {self.length:,} tokens do not hold {self.facts:,} facts with a question; "
                f"give {least:,} or more, or fewer facts"
            )

    # what it comes to

    def results(self, samples: Seq[Scored]) -> Results:
        groups = {name: [one for one in samples if one.group == name] for name in self.abilities}
        values = {name: _figures(answers) for name, answers in groups.items()}
        together = _figures(samples)
        asked_for = {
            "answerable": [one for one in samples if one.group in ANSWERABLE],
            "unanswerable": [one for one in samples if one.references == (lookup.UNKNOWN,)],
        }
        unknown = {
            kind: {"said_unknown": _unknowns(answers), "asked": len(answers)} for kind, answers in asked_for.items()
        }
        rows = [*values.items(), *([("all", together)] if len(values) > 1 else [])]
        said = ", ".join(
            f"{counted['said_unknown']:,} of {counted['asked']:,} {kind} questions"
            for kind, counted in unknown.items()
            if counted["asked"]
        )
        notes = [f'Answered "{lookup.UNKNOWN}": {said}.'] if said else []
        if self.asked == "row":
            notes.append(f"Up to {ROW} questions share a text, so the intervals are somewhat too narrow.")
        return Results(
            {"abilities": values, "all": together, "unknown": unknown},
            ("ability", "right", "asked", "accuracy", "95 % interval"),
            tuple((name, *_row(figures)) for name, figures in rows),
            tuple(notes),
        )


def room(llm: Words, question: lookup.Question) -> int:
    """Tokens kept free for the answer."""
    return len(llm.encode(f" {question.answer}", special=False)) + MARGIN


def depth(text: str, sentences: Seq[str], value: str) -> float | None:
    """The share of the text before the one sentence that has the value as a word; None if not exactly one has."""
    found = [one for one in sentences if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", one)]
    return text.index(found[0] + "\n") / len(text) if len(found) == 1 else None


def _unknowns(answers: Seq[Scored]) -> int:
    return sum(lookup.score(one.answer, lookup.UNKNOWN) for one in answers)


def _figures(answers: Seq[Scored]) -> dict[str, Any]:
    right, asked = round(sum(one.score for one in answers)), len(answers)
    return {
        "right": right,
        "asked": asked,
        "accuracy": right / asked if asked else None,
        "interval": wilson(right, asked),
        "said_unknown": _unknowns(answers),
    }


def _row(figures: dict[str, Any]) -> tuple[str, ...]:
    low, high = figures["interval"]
    between = f"{percent(low)} – {percent(high)}"
    return f"{figures['right']:,}", f"{figures['asked']:,}", percent(figures["accuracy"]), between
