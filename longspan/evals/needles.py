"""Facts at even depths of one long text, which is read once and asked about afterwards.

The questions come when the text is in the cache, so nothing that chooses or forgets can have known them. For
comparison each is asked again about a text inside the trained length that has the same fact among others.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from longspan.engine import prompts
from longspan.engine.answers import Answers, answer
from longspan.engine.memory import give_back
from longspan.errors import UsageError
from longspan.evals import haystack, lookup, regimes
from longspan.evals.fact_lookup import room
from longspan.evals.intervals import paired, wilson
from longspan.evals.numbers import percent
from longspan.evals.progress import Progress
from longspan.evals.suite import LENGTH, Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM
    from longspan.engine.session import Session

PHRASINGS = ("held_out", "plain")
ROWS = 10
"""Rows of the table; each sums up as many depths as that takes."""
BATCH = 8
EXACT = 20_000
"""Tokens up to which the text is as long as it may be, to a few tokens; and characters from which their share in a
longer one is taken."""


@dataclass(frozen=True, slots=True)
class Needle:
    """One question and its answers. depth: the share of the text before its fact. inside: whether it was right about a
    text inside the trained length; None where that was not asked."""

    index: int
    depth: float
    question: str
    expected: str
    answer: str
    right: bool
    inside: bool | None = None
    inside_answer: str | None = None


@dataclass(frozen=True)
class Drawn:
    """facts, questions and depths, in the order of the text; and the order of the documents around."""

    facts: tuple[lookup.Fact, ...]
    questions: tuple[lookup.Question, ...]
    depths: tuple[float, ...]


@dataclass(frozen=True)
class Needles:
    """Read one long text, then look facts up that stand at even depths of it."""

    length: int | None = option(
        None, "TOKENS", "The text with a question and its answer. [default: 1024, or the trained length if shorter]"
    )
    samples: int = option(100, "N", "Facts in the text, each asked about once.", also="questions")
    depths: int = option(10, "N", "Even depths at which they stand.")
    inside: int = option(
        16, "N", "Facts of each text inside the trained length that the same questions are asked about; 0 for none."
    )
    phrasing: str = option("held_out", "NAME", "Of facts and questions: held_out (from training), or plain.")
    seed: int = option(0, "N", "Other facts.")
    made: ClassVar[type] = Needle
    regime: ClassVar[str | None] = "agnostic"

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("samples", 1), ("depths", 1), ("inside", 0), ("seed", 0)):
            whole(name, getattr(self, name), least)
        if self.phrasing not in PHRASINGS:
            raise UsageError(f"phrasing: unknown {self.phrasing!r}; known: {', '.join(PHRASINGS)}")

    def drawn(self) -> Drawn:
        """All that chance decides; the length does not change it."""
        rng = random.Random(f"{self.seed}/needles/{self.samples}")
        phrasing: Any = self.phrasing
        facts = lookup.make_facts(rng, self.samples, "held_out", phrasing=phrasing, people=False)
        depths = sorted((i % self.depths + 0.5) / self.depths for i in range(self.samples))
        return Drawn(tuple(facts), tuple(lookup.ask(rng, fact, phrasing) for fact in facts), tuple(depths))

    def text(self, llm: LLM, own: str | None = None) -> str:
        """The text with its facts; with any of the questions and an answer it has up to `length` tokens."""
        assert self.length is not None
        drawn = self.drawn()
        hay = haystack.Haystack(haystack.everything(self.seed, 6 * self.length) if own is None else own)
        rest = max(room(llm, one) + len(llm.encode(one.text, special=False)) for one in drawn.questions)

        def made(characters: int) -> str:
            sentences = [fact.sentence for fact in drawn.facts]
            return lookup.plant(hay.piece(0.0, characters), sentences, random.Random(0), drawn.depths)

        def need(characters: int) -> int:
            return len(prompts.questions(llm, made(characters), ["?"]).common) + rest + len(prompts_around(llm))

        least = need(0)
        if least > self.length:
            raise UsageError(
                f"length: {self.length:,} tokens do not hold {self.samples:,} facts with a question; give {least:,} "
                "or more, or fewer questions"
            )
        if self.length - least <= EXACT:
            return made(haystack.fit(need, self.length))
        # encoding a long text takes seconds, so its length is found in a few steps, to a thousandth
        sample = hay.piece(0.0, EXACT)
        characters = int((self.length - least) * EXACT / len(llm.encode(sample, special=False)))
        while (over := need(characters) - self.length) > 0 or over < -self.length // 1000:
            characters -= math.ceil(1.02 * (over + self.length / 2000) * characters / (self.length + over - least))
        return made(characters)

    def measure(self, llm: LLM, text: str | None, progress: Progress, done: int) -> Iterator[Needle]:
        """All of them come at the end, so one that was interrupted begins anew."""
        regimes.check(llm.plan.evict, "agnostic")
        total = self.samples * (2 if self.inside else 1)
        progress(0, total)
        inside: list[tuple[bool, str]] = []
        for one in self.short(llm) if self.inside else ():
            inside.append(one)
            progress(len(inside), total)
        gc.collect()  # the engine of the short texts goes before the long one is read, so both are never held
        text = self.text(llm, text)
        give_back()
        found = self.long(llm, text, lambda index, one: progress(len(inside) + index + 1, total))[0]
        both = zip(found, inside or itertools.repeat((None, None), len(found)), strict=True)
        for needle, (right, said) in itertools.islice(both, done, None):
            yield replace(needle, inside=right, inside_answer=said)

    def long(
        self,
        llm: LLM,
        text: str,
        told: Callable[[int, Needle], None] = lambda index, one: None,
        read: Callable[[Session], None] = lambda session: None,
    ) -> tuple[list[Needle], Answers]:
        """The needles of the long text; told of each when it is answered, and of the session when it has read it."""
        drawn = self.drawn()
        found: list[Needle] = []

        def finished(index: int, output: Output) -> None:
            question, said = drawn.questions[index], output.text.strip()
            right = lookup.score(said, question.answer)
            found.append(Needle(index, drawn.depths[index], question.text, question.answer, said, right))
            told(index, found[-1])

        split = prompts.questions(llm, text, [question.text for question in drawn.questions])
        longest = max(room(llm, question) for question in drawn.questions)
        settings = llm.sampling(None, _until(llm, longest))
        del text
        give_back()
        at_once = min(llm.scheduler.rows, BATCH)
        answers = answer(llm, split, settings, finished=finished, read=read, at_once=at_once)
        return found, answers

    def short(self, llm: LLM) -> Iterator[tuple[bool, str]]:
        """The same questions, each about a text inside the trained length, whose every token is read."""
        from longspan.engine.llm import LLM as Engine

        plain = Engine(
            llm.path, dtype=str(llm.dtype).removeprefix("torch."), device=str(llm.device), rope=llm.ropes.choice
        )
        drawn = self.drawn()
        length = min(LENGTH, llm.shape.trained)
        hay = haystack.Haystack(haystack.held_out(self.seed))
        for first in range(0, self.samples, BATCH):
            numbers = range(first, min(first + BATCH, self.samples))
            asked = [self._inside(plain, drawn, number, hay, length) for number in numbers]
            longest = max(room(llm, drawn.questions[number]) for number in numbers)
            outputs = plain.generate(asked, **_until(llm, longest))
            for number, output in zip(numbers, outputs, strict=True):
                yield lookup.score(output.text.strip(), drawn.questions[number].answer), output.text.strip()

    def _inside(self, llm: LLM, drawn: Drawn, number: int, hay: haystack.Haystack, length: int) -> list[int]:
        """The prompt that asks question `number` about a text of `length` tokens with `inside` of the facts."""
        rng = random.Random(f"{self.seed}/needles/{number}")
        others = [i for i in range(self.samples) if i != number]
        chosen = sorted([number, *rng.sample(others, min(self.inside - 1, len(others)))], key=lambda _: rng.random())
        sentences, place = [drawn.facts[i].sentence for i in chosen], rng.random()
        depths = sorted(rng.random() for _ in sentences)
        question = drawn.questions[number]

        def made(characters: int) -> list[int]:
            text = lookup.plant(hay.piece(place, characters), sentences, rng, depths)
            return prompts.conversation(llm, text, [question.text])

        most = length - room(llm, question)
        if len(made(0)) > most:
            raise UsageError(f"inside: {length:,} tokens do not hold {self.inside} facts; give fewer")
        return made(haystack.fit(lambda characters: len(made(characters)), most))

    def results(self, samples: Seq[Needle]) -> Results:
        deep = [[one for one in samples if _row_of(one.depth) == row] for row in range(ROWS)]
        rows = [(f"{100 * n // ROWS} – {100 * (n + 1) // ROWS} %", part) for n, part in enumerate(deep) if part]
        table = [(name, *_figures(part)) for name, part in [*rows, ("all", samples)]]
        values: dict[str, Any] = {
            "depths": {name: {"right": sum(one.right for one in part), "asked": len(part)} for name, part in rows},
            "right": sum(one.right for one in samples),
            "asked": len(samples),
        }
        values["interval"] = wilson(values["right"], values["asked"])
        notes = []
        both = [one for one in samples if one.inside is not None]
        if both:
            lost = sum(bool(one.inside) and not one.right for one in both)
            won = sum(one.right and not one.inside for one in both)
            inside = sum(bool(one.inside) for one in both)
            low, high = paired(inside, won, lost, len(both))
            difference = (won - lost) / len(both)
            values |= {"inside": inside, "won": won, "lost": lost, "difference": difference, "paired": (low, high)}
            table.append(("inside", *_share(inside, len(both))))
            notes.append(
                f"Against the same questions inside the trained length: {100 * difference:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f}); {lost} lost, {won} won."
            )
        return Results(values, ("depth", "right", "asked", "accuracy", "95 % interval"), tuple(table), tuple(notes))


def prompts_around(llm: LLM) -> list[int]:
    """Tokens that may stand around a text and its question, and between them."""
    return prompts.conversation(llm, "?", ["?"])


def _until(llm: LLM, longest: int) -> dict[str, Any]:
    # a model without a template has no way to end its answer but the line
    return {"max_new_tokens": longest, "stop": () if llm.has_template else ("\n",)}


def _row_of(depth: float) -> int:
    return min(int(depth * ROWS), ROWS - 1)


def _figures(part: Seq[Needle]) -> tuple[str, ...]:
    return _share(sum(one.right for one in part), len(part))


def _share(right: int, asked: int) -> tuple[str, ...]:
    low, high = wilson(right, asked)
    return f"{right:,}", f"{asked:,}", percent(right / asked), f"{percent(low)} – {percent(high)}"
