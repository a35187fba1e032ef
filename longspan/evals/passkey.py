"""Passkey retrieval (A. Mohtashami and M. Jaggi, 2023, "Landmark Attention", arXiv:2305.16300, section 4.2): a number
somewhere in a text that says the same few sentences over and over.

The paper's words, or (`--phrasing fact`) a sentence and a question of the kind that the embedded model was trained on:
it knows no other way to be asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals import haystack, lengths, lookup, scores
from longspan.evals.cases import MARGIN, Case, Question, Scored
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.words import Words

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there."
)


@dataclass(frozen=True)
class Phrasing:
    """How the key is told and asked about. above: stands before everything else."""

    above: str
    sentence: str
    question: str
    begins: str
    metric: str


PHRASINGS = {
    "original": Phrasing(
        f"{INTRODUCTION}\n",
        "The pass key is {key}. Remember it. {key} is the pass key.",
        "What is the pass key?",
        "The pass key is",
        "some",
    ),
    "fact": Phrasing("", "The passcode of {thing} is {key}.", "What is the passcode of {thing}?", "", "exact"),
}


@dataclass(frozen=True)
class Passkey:
    """Find a number of five digits in a text that repeats itself."""

    length: int | None = option(
        None, "TOKENS", "A prompt with its answer has up to so many. [default: 1024, or the trained length if shorter]"
    )
    lengths: tuple[int, ...] = option((), "TOKENS", lengths.SEVERAL)
    samples: int = option(100, "N", "Texts of each length, each asked about once.")
    phrasing: str = option(
        "original", "NAME", "original (of the paper), or fact (which the embedded model was trained on)."
    )
    seed: int = option(0, "N", "Other keys at other places.")

    def __post_init__(self) -> None:
        lengths.check(self)
        whole("samples", self.samples, 1)
        whole("seed", self.seed, 0)
        if self.phrasing not in PHRASINGS:
            raise UsageError(f"phrasing: unknown {self.phrasing!r}; known: {', '.join(PHRASINGS)}")

    def count(self) -> int:
        return self.samples * len(lengths.of(self))

    def cases(self, llm: Words, text: str | None) -> Iterator[Case]:
        """text: what is repeated instead of the paper's sentences, from its beginning on."""
        hay = haystack.Haystack(f"{FILLER}\n" if text is None else text)
        for place, length in enumerate(lengths.of(self)):
            for i in range(self.samples):
                yield self._case(llm, hay, length, i, place * self.samples + i)

    def _case(self, llm: Words, hay: haystack.Haystack, length: int, i: int, index: int) -> Case:
        rng = random.Random(f"{self.seed}/passkey/{i}")  # the same keys and depths at every length
        said = PHRASINGS[self.phrasing]
        key, depth, thing = str(rng.randint(10_000, 99_999)), rng.random(), lookup.names.thing(rng, "held_out")
        sentence = lookup.names.capital(said.sentence.format(key=key, thing=thing))
        asked = said.question.format(thing=thing)
        room = len(llm.encode(f" {key}", special=False)) + MARGIN

        def made(characters: int) -> str:
            around = hay.piece(0.0, characters)
            return said.above + lookup.plant(around, [sentence], rng, [depth])

        def need(characters: int) -> int:
            return len(prompts.conversation(llm, made(characters), [asked], begins=said.begins)) + room

        text = made(lengths.fit(need, length, "the key with its question"))
        stands = text.index(sentence) / len(text)
        question = Question(asked, (key,), said.metric, room, said.begins, stands)
        return Case("passkey", index, length, text, (question,))

    def results(self, samples: Seq[Scored]) -> Results:
        by_length = scores.groups(samples, lambda one: one.length)
        told = {str(length): scores.figures(part) for length, part in by_length.items()}
        together = scores.figures(samples)
        rows = [(f"{int(length):,}", *scores.row(one)) for length, one in told.items()]
        if len(rows) > 1:
            rows.append(("all", *scores.row(together)))
        return Results({"lengths": told, "all": together}, ("tokens", *scores.HEADER), tuple(rows), ())
