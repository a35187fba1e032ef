"""Training rows: plain text, repeated segments, facts said again, and every ability of the lookup task."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hints import Hints, Look, encode
from tokenizer import ANSWER, BOS, END
from tokenizers import Tokenizer

from longspan.evals import lookup
from longspan.evals.lookup import names

#: shares of the rows once the easiest are over; the rest asks questions
PLAIN_SHARE, RESTATE_SHARE = 0.10, 0.12
#: shares of the abilities among rows that ask
ABILITY_WEIGHTS = {
    "single": 1.0,
    "distractor": 3.0,
    "several": 1.5,
    "updated": 1.5,
    "unknown": 1.2,
    "two_hop": 1.5,
    "chain": 1.2,
    "list": 1.2,
    "count": 0.8,
    "copy": 0.8,
}
UNANSWERABLE_SHARE = 0.18  # of the questions after facts
QUESTION_FIRST_SHARE = 0.08

TEXT, FILLER = 1.0, 0.3
FIRST, REST, STOP = 8.0, 3.0, 2.0
_DIGIT = re.compile(r"\d")
QUESTION_TOKENS, SENTENCE_TOKENS = 20, 17  # about; what does not fit is left out


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, the loss weight of each as a target, the [start, end) of every answer, and where answers come from.

    `named` are positions, with the words (each as its token in the middle of a sentence) that name what is spoken of.
    """

    ids: np.ndarray
    weights: np.ndarray
    answers: tuple[tuple[int, int], ...] = ()
    looks: tuple[Look, ...] = ()
    named: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(slots=True)
class Draft:
    """A row in the making."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    named: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float | Sequence[float] = 0.0) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids) if isinstance(weight, float) else weight

    def row(self, length: int) -> Row:
        return Row(
            np.array(self.ids[:length]),
            np.array(self.weights[:length]),
            tuple(self.answers),
            tuple(self.looks),
            tuple(one for one in self.named if one[0] < length),
        )


class Text:
    """A tokenized corpus that gives stretches of exactly n tokens, ending at the end of a line."""

    def __init__(self, tokenizer: Tokenizer, documents: Sequence[str]) -> None:
        encodings = tokenizer.encode_batch_fast([text + "\n\n" for text in documents], add_special_tokens=False)
        self.ids = np.concatenate([np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings])
        self.newline = tokenizer.encode("\n", add_special_tokens=False).ids[0]
        self.line_ends = np.flatnonzero(self.ids == self.newline)

    def any(self, rng: random.Random, length: int) -> np.ndarray:
        start = rng.randrange(len(self.ids) - length)
        return self.ids[start : start + length]

    def to_line_end(self, rng: random.Random, length: int) -> list[int]:
        """`length` tokens up to, and without, a newline that ends a line with something on it."""
        while True:
            end = int(self.line_ends[rng.randrange(len(self.line_ends))])
            if end >= length and self.ids[end - 1] != self.newline:
                return self.ids[end - length : end].tolist()


class Rows:
    """An endless source of rows of a given length. `split` and `text` decide what they hold."""

    def __init__(self, tokenizer: Tokenizer, text: Text, split: lookup.Split) -> None:
        self.tokenizer, self.text, self.split = tokenizer, text, split
        self.bos, self.answer, self.end = (tokenizer.token_to_id(t) for t in (BOS, ANSWER, END))
        self.newline = text.newline
        # without digits, which could make a held-out name of a word before them
        self.wordlike = [token for word, token in sorted(tokenizer.get_vocab().items()) if not _DIGIT.search(word)]
        self.hints = Hints(tokenizer)

    def draw(self, rng: random.Random, length: int, repeated: float, plainly: float, lookup_only: float) -> Row:
        """A row of any kind.

        The share `repeated` comes first: nothing teaches faster to look back. Of the rest, the share
        `plainly` says and asks everything in one way only. Of the others that ask, the share
        `lookup_only` is about facts, without the abilities that take more than one step.
        """
        if rng.random() < repeated:
            return self.repeat(rng, length)
        if rng.random() < plainly:
            return self.plain_spoken(rng, length) if rng.random() < 0.5 else self.restate(rng, length, plainly=True)
        kind = rng.random()
        if kind < PLAIN_SHARE:
            return self.plain(rng, length)
        if kind < PLAIN_SHARE + RESTATE_SHARE:
            return self.restate(rng, length)
        if rng.random() < lookup_only:
            return self.ask(rng, length, rng.choices(("single", "distractor", "several", "updated"), (2, 5, 2, 6)))
        count = 1 if length <= 128 or rng.random() < 0.5 else 2
        return self.ask(rng, length, rng.choices(list(ABILITY_WEIGHTS), list(ABILITY_WEIGHTS.values()), k=count))

    def plain(self, rng: random.Random, length: int) -> Row:
        ids = self.text.any(rng, length).copy()
        if rng.random() < 0.5:
            ids[0] = self.bos
        return Row(ids, np.full(length, TEXT))

    def repeat(self, rng: random.Random, length: int) -> Row:
        """A segment of text, or of random tokens, that comes again and again until the row is full."""
        size = rng.randint(length // 8, length // 2)
        words = rng.random() >= 0.5
        segment = np.array(rng.choices(self.wordlike, k=size)) if words else self.text.any(rng, size)
        ids = np.tile(segment, length // len(segment) + 1)[:length].copy()
        if rng.random() < 0.5:
            ids[0] = self.bos
        return Row(ids, np.full(length, TEXT))

    def plain_spoken(self, rng: random.Random, length: int) -> Row:
        """Facts with one attribute, all in one phrasing: only the entity tells them apart, at a fixed distance."""
        facts = lookup.make_facts(
            rng,
            max(2, length // 30 - rng.randrange(2)),
            self.split,
            same_attribute=rng.choice((0.8, 1.0)),
            same_entity=0,
            near_entity=rng.choice((0, 0, 0.3)),
            phrasing="plain",
        )
        asked = [lookup.ask(rng, fact, "plain") for fact in rng.sample(facts, len(facts))]
        return self._assemble(rng, length, [fact.sentence for fact in facts], asked, first=False)

    def restate(self, rng: random.Random, length: int, plainly: bool = False) -> Row:
        """A few facts, then the same facts again and again in other words: a value is known from the second time on.

        The cheapest way to learn which fact is meant: a sentence both says it and asks for it.
        """
        phrasing: names.Phrasing = "plain" if plainly else self.split
        facts = lookup.make_facts(
            rng,
            rng.randint(2, max(2, length // 40)),
            self.split,
            same_attribute=rng.choice((0.5, 0.8, 1.0)),
            same_entity=rng.choice((0.0, 0.0, 0.3)),
            near_entity=rng.choice((0.0, 0.0, 0.3)),
            phrasing=phrasing,
        )
        said = list(facts)
        while 7 * len(said) < length:
            rng.shuffle(facts)
            said += (lookup.restate(rng, fact, phrasing) for fact in facts)
        draft = Draft()
        draft.add([self.bos])
        said_at: dict[tuple[str, str], list[int]] = {}
        for index, fact in enumerate(said):
            before, after = fact.sentence.rsplit(fact.value, 1)
            head, value, rest = self._encode([before.rstrip(), " " + fact.value, after + "\n"])
            draft.add(head)
            line, start = len(draft.ids) - len(head), len(draft.ids)
            before_it = said_at.setdefault((fact.entity, fact.attribute), [])
            if index >= len(facts) and start + len(value) <= length:
                draft.answers.append((start, start + len(value)))
                for offset in range(len(value)):
                    sources = tuple(place + offset for place in before_it)
                    draft.looks.append(Look(start + offset - 1, sources, sources))
            before_it.append(start)
            draft.add(value, self._value_weights(value) if index >= len(facts) else 0.0)
            draft.add(rest)
            draft.named += self.hints.spoken(fact.sentence, line)
        return draft.row(length)

    def ask(self, rng: random.Random, length: int, abilities: Sequence[str]) -> Row:
        """Facts of these abilities in text, then questions with their answers, filled up with text to `length`."""
        share = rng.choice((0.4, 0.5, 0.6) if length <= 256 else (0.2, 0.4, 0.5))
        questions = max(1, round(length * share / QUESTION_TOKENS))
        facts = max(2, round(length * (1 - share) / SENTENCE_TOKENS * rng.choice((0.6, 0.8, 1.0))))
        first = rng.random() < QUESTION_FIRST_SHARE
        sentences: list[str] = []
        asked: list[lookup.Question] = []
        for ability in abilities:
            count = max(1, facts // len(abilities))
            if ability == "copy":
                count = max(1, count // 2)
            wanted = max(1, questions // len(abilities))
            sample = lookup.ABILITIES[ability](rng, count, wanted, self.split)
            sentences = _merge(rng, sentences, list(sample.sentences))
            more = list(sample.questions)
            if sample.facts:
                more += (lookup.ask(rng, rng.choice(sample.facts), self.split) for _ in range(wanted - len(more)))
            for question in more:
                if sample.facts and rng.random() < UNANSWERABLE_SHARE:
                    question = lookup.unanswerable(rng, sample.facts, self.split)
                asked.append(question)
        rng.shuffle(asked)
        return self._assemble(rng, length, sentences, asked[:1] if first else asked, first)

    def _assemble(
        self, rng: random.Random, length: int, sentences: list[str], asked: list[lookup.Question], first: bool
    ) -> Row:
        """`TEXT\\n\\nQUESTION<|answer|> ANSWER<|end|>\\n` and so on, or the one question before the text."""
        encoded = self._encode([*sentences, *(q.text for q in asked), *(" " + q.answer for q in asked)])
        lines = encoded[: len(sentences)]
        texts, values = encoded[len(sentences) : -len(asked)], encoded[-len(asked) :]
        cost = sum(len(line) + 1 for line in lines)
        kept = 0
        for text, value in zip(texts, values, strict=True):
            more = len(text) + len(value) + 3
            if 3 + cost + more > length:
                break
            cost, kept = cost + more, kept + 1
        if kept == 0:  # too much for this length: another draw, with less
            return self.ask(rng, length, ["single"])
        draft = Draft()
        draft.add([self.newline if rng.random() < 0.1 else self.bos])
        if first:
            draft.add([*texts[0], self.newline, self.newline])
        else:
            cost += 2
        starts = self._scatter(
            rng, draft, lines, length - 1 - cost - (2 if first else 0) + sum(len(line) + 1 for line in lines)
        )
        for sentence, start in zip(sentences, starts, strict=True):
            draft.named += self.hints.spoken(sentence, start)
        for index in range(kept):
            if not first:
                draft.add([*([self.newline] * 2 if index == 0 else []), *texts[index]])
            draft.add([self.answer])
            start = len(draft.ids)
            draft.answers.append((start, start + len(values[index]) + 1))
            meant = self.hints.meant(asked[index].text)
            draft.named += ((place, meant) for place in range(start - 1, start + len(values[index])) if meant)
            draft.looks += self.hints.looks(asked[index], start - 1, sentences, lines, starts)
            draft.add(values[index], self._value_weights(values[index]))
            draft.add([self.end], STOP)
            draft.add([self.newline])
        retold = list(self.hints.retold(sentences, starts))
        draft.looks += rng.sample(retold, len(retold))
        draft.add([self.newline] * (length - len(draft.ids)))
        return draft.row(length)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return encode(self.tokenizer, texts)

    @staticmethod
    def _value_weights(value: list[int]) -> list[float]:
        """A long answer counts more than a short one, but not in proportion to its length."""
        return [FIRST] + [REST * min(1.0, 6 / len(value))] * (len(value) - 1)

    def _scatter(self, rng: random.Random, draft: Draft, lines: list[list[int]], room: int) -> list[int]:
        """Up to `room` tokens of text with the lines, in order, at its line boundaries; no newline at the end.

        Gives where each line begins.
        """
        spare = room - sum(len(line) + 1 for line in lines)
        if rng.random() < 0.03:
            spare = 0  # nothing but facts
        text = self.text.to_line_end(rng, spare) if spare > 0 else []
        breaks = [i for i, token in enumerate(text) if token == self.newline] + [len(text)]
        if rng.random() < 0.15:  # all in one place
            at = rng.choice(breaks)
            breaks = [i for i in breaks if abs(i - at) < 40]
        done, starts = 0, []
        for place, line in zip(sorted(rng.choice(breaks) for _ in lines), lines, strict=True):
            draft.add(text[done:place], FILLER)
            starts.append(len(draft.ids) + 1)
            draft.add([self.newline, *line])
            done = place
        draft.add(text[done:], FILLER)
        return starts


def _merge(rng: random.Random, first: list[str], second: list[str]) -> list[str]:
    """Both lists shuffled into one; each keeps its order."""
    turns = [0] * len(first) + [1] * len(second)
    rng.shuffle(turns)
    sources = iter(first), iter(second)
    return [next(sources[turn]) for turn in turns]
