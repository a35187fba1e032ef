"""Training rows: plain text, repeated segments and fact lookup, as token ids with loss weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizer import ANSWER, BOS, END
from tokenizers import Tokenizer

from longspan.evals import lookup

PLAIN_SHARE, REPEAT_SHARE, RESTATE_SHARE = 0.15, 0.02, 0.28  # the rest is lookup
DRILL_SHARE = 0.6  # of the lookup rows: little text, like attributes, every fact asked about

TEXT, FACT, VALUE_FIRST, VALUE_REST = 1.0, 0.1, 8.0, 3.0
ANSWER_END = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, the loss weight of each as a target, and the [start, end) of every answer."""

    ids: np.ndarray
    weights: np.ndarray
    answers: tuple[tuple[int, int], ...] = ()


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

    def draw(self, rng: random.Random, length: int, plainly: float = 0.0) -> Row:
        """A row of any kind; the share `plainly` of them says and asks everything in one way only."""
        if rng.random() < plainly:
            return self.plain_spoken(rng, length)
        kind = rng.random()
        if kind < PLAIN_SHARE:
            return self.plain(rng, length)
        if kind < PLAIN_SHARE + REPEAT_SHARE:
            return self.repeat(rng, length)
        if kind < PLAIN_SHARE + REPEAT_SHARE + RESTATE_SHARE:
            return self.restate(rng, length)
        return self.lookup(rng, length)

    def plain(self, rng: random.Random, length: int) -> Row:
        ids = self.text.any(rng, length).copy()
        if rng.random() < 0.5:
            ids[0] = self.bos
        return Row(ids, np.full(length, TEXT))

    def repeat(self, rng: random.Random, length: int) -> Row:
        """A segment of text, cut anywhere, that comes again and again until the row is full."""
        segment = self.text.any(rng, rng.randint(length // 8, length // 2))
        ids = np.tile(segment, length // len(segment) + 1)[:length].copy()
        if rng.random() < 0.5:
            ids[0] = self.bos
        return Row(ids, np.full(length, TEXT))

    def plain_spoken(self, rng: random.Random, length: int) -> Row:
        """Facts with one attribute, all in one phrasing: only the entity tells them apart, at a fixed distance."""
        most = max(2, (length - 4) // 40)
        facts = lookup.make_facts(
            rng, rng.randint(2, most), self.split, same_attribute=rng.choice((0.8, 1.0)), same_entity=0, near_entity=0
        )
        fact_template, question_template = (
            phrasings["train"][0] for phrasings in (lookup.FACT_PHRASINGS, lookup.QUESTION_PHRASINGS)
        )
        sentences = self._encode([fact_template.format(a=f.attribute, e=f.entity, v=f.value) for f in facts])
        asked = [
            lookup.Question(question_template.format(a=f.attribute, e=f.entity), f.value)
            for f in rng.sample(facts, len(facts))
        ]
        while True:
            tail, tail_weights, spans = self._dialogue(asked)
            room = length - 1 - len(tail)
            if sum(len(ids) + 2 for ids in sentences) <= room:
                break
            asked.pop()
        body, body_weights = self._scatter(rng, sentences, room)
        ids = np.array([self.bos, *body, *tail])
        weights = np.array([0.0, *body_weights, *tail_weights])
        return Row(ids, weights, tuple((1 + len(body) + a, 1 + len(body) + b) for a, b in spans))

    def restate(self, rng: random.Random, length: int) -> Row:
        """A few facts, then the same facts again and again in other words: a value is known from the second time on.

        The cheapest way to learn which fact is meant: a sentence both says it and asks for it.
        """
        most = max(2, length // 60)
        facts = lookup.make_facts(
            rng,
            rng.randint(2, most),
            self.split,
            same_attribute=rng.choice((0.5, 0.8, 1.0)),
            same_entity=rng.choice((0.0, 0.0, 0.3)),
            near_entity=rng.choice((0.0, 0.0, 0.3)),
        )
        said = list(facts)
        while 11 * len(said) < length:
            rng.shuffle(facts)
            said += (lookup.restate(rng, fact) for fact in facts)
        ids, weights = [self.bos], [0.0]
        for index, fact in enumerate(said):
            known = index >= len(facts)
            before, after = fact.sentence.rsplit(fact.value, 1)
            head, value, rest = self._encode([before.rstrip(), " " + fact.value, after + "\n"])
            ids += [*head, *value, *rest]
            weights += [FACT] * len(head)
            weights += self._value_weights(value) if known else [FACT] * len(value)
            weights += [ANSWER_END if known else FACT, *[FACT] * (len(rest) - 1)]
        return Row(np.array(ids[:length]), np.array(weights[:length]))

    def lookup(
        self,
        rng: random.Random,
        length: int,
        count: int | None = None,
        questions: int | None = None,
    ) -> Row:
        """Facts in text, then questions with their answers. Filled up with text to `length` exactly."""
        same_attribute = rng.choice((0.0, 0.3, 0.6, 0.9, 0.97))
        if count is None and questions is None and rng.random() < DRILL_SHARE:
            most = max(2, (length - 4) // 43)
            count = questions = rng.randint(max(2, most // 2), most)
            same_attribute = rng.choice((0.5, 0.8, 1.0))
        if questions is None:
            questions = rng.randint(1, 3 if length <= 128 else 6 if length <= 256 else 10)
        if count is None:
            most = (length - 21 * questions) // 19
            count = rng.randint(1, max(1, int(most * rng.choice((0.4, 0.8, 1.0)))))
        same_entity = rng.choice((0.0, 0.0, 0.1, 0.3, 0.5))
        near_entity = rng.choice((0.0, 0.0, 0.3))
        facts = lookup.make_facts(
            rng,
            count,
            self.split,
            same_attribute=same_attribute,
            same_entity=same_entity,
            near_entity=near_entity,
        )
        asked = [lookup.ask(rng, fact) for fact in rng.sample(facts, min(questions, count))]
        kept = {question.answer for question in asked}
        sentences = self._encode([fact.sentence for fact in facts])
        tail, tail_weights, spans = self._dialogue(asked)
        room = length - 1 - len(tail)
        # A fact that does not fit goes, but never one that is asked about.
        pairs = list(zip(facts, sentences, strict=True))
        while sum(len(ids) + 2 for _, ids in pairs) > room:
            spare = [i for i, (fact, _) in enumerate(pairs) if fact.value not in kept]
            if not spare:
                return self.lookup(rng, length, None, questions=1)
            del pairs[spare[-1]]
        body, body_weights = self._scatter(rng, [ids for _, ids in pairs], room)
        ids = np.array([self.bos, *body, *tail])
        weights = np.array([0.0, *body_weights, *tail_weights])
        if rng.random() < 0.1:
            ids[0] = self.newline
        offset = 1 + len(body)
        return Row(ids, weights, tuple((offset + a, offset + b) for a, b in spans))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _dialogue(self, asked: list[lookup.Question]) -> tuple[list[int], list[float], list[tuple[int, int]]]:
        """`\\n\\nQUESTION<|answer|> ANSWER<|end|>\\n`, the next question right after it."""
        ids, weights, spans = [self.newline] * 2, [FACT] * 2, []
        texts = self._encode([q.text for q in asked])
        values = self._encode([" " + q.answer for q in asked])
        for text, value in zip(texts, values, strict=True):
            ids += [*text, self.answer]
            weights += [FACT] * (len(text) + 1)
            spans.append((len(ids), len(ids) + len(value) + 1))
            ids += [*value, self.end, self.newline]
            weights += [*self._value_weights(value), ANSWER_END, FACT]
        return ids, weights, spans

    def _value_weights(self, value: list[int]) -> list[float]:
        # Before a number comes a lone space: what is hard is the first token after it.
        lone_space = len(value) > 1 and self.tokenizer.decode(value[:1]) == " "
        lead = [ANSWER_END, VALUE_FIRST] if lone_space else [VALUE_FIRST]
        return [*lead, *[VALUE_REST] * (len(value) - len(lead))]

    def _scatter(self, rng: random.Random, sentences: list[list[int]], room: int) -> tuple[list[int], list[float]]:
        """Exactly `room` tokens of text with the sentences at line boundaries, most on lines of their own."""
        joints = [rng.random() < 0.12 for _ in sentences]  # an empty line on either side
        cost = sum(len(ids) + (3 if wide else 1) for ids, wide in zip(sentences, joints, strict=True))
        if cost > room:
            joints = [False] * len(sentences)
            cost = sum(len(ids) + 1 for ids in sentences)
        text = self.text.to_line_end(rng, room - cost) if room > cost else []
        breaks = [i for i, token in enumerate(text) if token == self.newline] + [len(text)]
        if rng.random() < 0.15:  # all in one place
            at = rng.choice(breaks)
            breaks = [i for i in breaks if abs(i - at) < 40]
        places = sorted(rng.choice(breaks) for _ in sentences)
        ids: list[int] = []
        weights: list[float] = []
        done = 0
        for place, sentence, wide in zip(places, sentences, joints, strict=True):
            ids += text[done:place]
            weights += [TEXT] * (place - done)
            done = place
            lead = [self.newline] * (2 if wide else 1)
            ids += [*lead, *sentence, *lead[1:]]
            weights += [FACT] * (len(lead) + len(sentence) + len(lead) - 1)
        ids += text[done:]
        weights += [TEXT] * (len(text) - done)
        return ids, weights
