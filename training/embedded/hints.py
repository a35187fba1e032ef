"""What a training row knows about its own answers: where each stands in the text, and which words name it.

Training tells the network both (`train.loss_of`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

from longspan.evals import lookup
from longspan.evals.lookup import names

Place = tuple[int, int]
"""A sentence's number, and a token's in it."""
NOWHERE: Place = (-1, 0)
"""The first position of the row."""

_WORD = re.compile(r"[^\W_]+")
_PERSON = re.compile(rf"\b(?:{'|'.join(names.FIRST_NAMES)}) (?:{'|'.join(names.LAST_NAMES)})\b")
_PEOPLE = {name.lower() for name in (*names.FIRST_NAMES, *names.LAST_NAMES)}
_ENTITY = (
    rf"the (?:{'|'.join((*names.ADJECTIVES, *names.NOUNS))}) (?:{'|'.join(names.NOUNS)})(?: \d+)?(?!\w)"
    rf"|{_PERSON.pattern}"
    rf"|\b(?:{'|'.join(names.CALL_SIGNS)})\d+\b"
)
_ATTRIBUTE = rf"\b(?:{'|'.join((*names.ATTRIBUTES, *names.COLLECTIONS))})\b"
_NAMES_IN = re.compile(rf"(?P<entity>{_ENTITY})|(?P<attribute>{_ATTRIBUTE})", re.IGNORECASE)
_QUOTE = re.compile(r"(\w+)( .+)\.")


@dataclass(frozen=True, slots=True)
class Look:
    """At this position the next token of an answer is due, which also stands at one of `sources`.

    `first` are the positions to be found before, where the answer takes a second step; else the same. No `sources`
    means that nothing is due here, and that only the first step is taken.
    """

    position: int
    sources: tuple[int, ...]
    first: tuple[int, ...]


class Hints:
    """Makes the hints of rows that are written with this tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.words: dict[str, tuple[int, ...]] = {}

    def looks(
        self,
        question: lookup.Question,
        position: int,
        sentences: list[str],
        lines: list[list[int]],
        starts: list[int],
    ) -> Iterable[Look]:
        """A look for each token of the answer that stands in the sentences.

        position: the last before the answer. lines: the sentences' tokens, which begin at `starts` of the row.
        """
        for offset, first, places in self._sources(question, sentences, lines):
            sources, before = (
                tuple(0 if place == NOWHERE else starts[place[0]] + place[1] for place in one)
                for one in (places, first)
            )
            yield Look(position + offset, sources, before)

    def retold(self, sentences: list[str], starts: list[int]) -> Iterable[Look]:
        """Where a fact is stated, what was said of it before: how an update is known from the statement it replaces.

        A first step from every position after the names; to the first position of the row where nothing was said.
        """
        before: dict[tuple[str, ...], list[int]] = {}
        for sentence, start in zip(sentences, starts, strict=True):
            about, offsets = self._statement(sentence)
            if about:
                said = before.setdefault(about, [])
                earlier = tuple(said) or (0,)
                yield from (Look(start + offset, (), earlier) for offset in offsets)
                said += (start + offset for offset in offsets)

    def meant(self, question: str) -> tuple[int, ...]:
        """The tokens of the words that name what a question asks for."""
        return self._words(match[0] for match in _NAMES_IN.finditer(question))

    def spoken(self, sentence: str, start: int) -> list[tuple[int, tuple[int, ...]]]:
        """What is spoken of at each position of the sentence that begins at `start`, once all of it is named.

        That is the last attribute and the last entity before the position.
        """
        spans = [(match.end(), match[0], match.lastgroup) for match in _NAMES_IN.finditer(sentence)]
        if not spans:
            return []
        kinds = {kind for _, _, kind in spans}
        found = []
        offsets = self.tokenizer.encode(sentence, add_special_tokens=False).offsets
        for index, (begin, _) in enumerate(offsets):
            last = {kind: name for end, name, kind in spans if end <= begin}
            if len(last) == len(kinds):
                found.append((start + index, self._words(last.values())))
        return found

    def _sources(
        self, question: lookup.Question, sentences: list[str], lines: list[list[int]]
    ) -> list[tuple[int, list[Place], list[Place]]]:
        """Where each token of the answer stands in the sentences: (its offset, what to find first, places).

        If several sentences have the answer, then the one counts that shares most words with the question.
        Where no sentence has it the first position is meant, which stands for "nowhere". A count, the only answer of
        one digit, is not looked up.
        """
        if question.answer == lookup.UNKNOWN:
            return [(0, [NOWHERE], [NOWHERE])]
        if len(question.answer) == 1:
            return []
        asked = _WORD.findall(question.text.lower())
        about = _about(question.text)[0]
        shared = [len(set(asked) & set(_WORD.findall(sentence.lower()))) for sentence in sentences]
        found, done = [], 0
        for piece in question.answer.split(", "):
            ids = self._encode([" " + piece])[0]
            whole = [(line, at) for line, tokens in enumerate(lines) for at in _occurrences(tokens, ids)]
            if not whole and (quote := _QUOTE.fullmatch(piece)) is not None:
                # in quotation marks the first word and the period are other tokens
                begin, ids = self._encode([" " + quote[1], quote[2]])
                done += len(begin)
                whole = [(line, at) for line, tokens in enumerate(lines) for at in _occurrences(tokens, ids)]
            most = max((shared[line] for line, _ in whole), default=0)
            whole = [(line, at) for line, at in whole if shared[line] == most]
            if not whole:
                return []
            before = self._named(question, sentences, lines, whole[0][0], shared)
            answering = {line for line, _ in whole}
            replaced = [
                (line, offset)
                for line, sentence in enumerate(sentences)
                if about and line not in answering and _about(sentence)[0] == about
                for offset in self._statement(sentence)[1]
            ]
            for offset in range(len(ids)):
                places = [(line, at + offset) for line, at in whole]
                found.append((done + offset, before or [*places, *replaced], places))
            done += len(ids) + 1  # and the comma
        return found

    def _named(
        self,
        question: lookup.Question,
        sentences: list[str],
        lines: list[list[int]],
        said: int,
        shared: list[int],
    ) -> list[Place]:
        """Where the person whom `said` is about, and whom the question only describes, is named: that name's end."""
        person = _PERSON.search(sentences[said])
        if person is None or person[0] in question.text:
            return []
        ids = self._encode([" " + person[0]])[0]
        others = [
            (shared[line], line, at + len(ids) - 1)
            for line, tokens in enumerate(lines)
            if line != said
            for at in _occurrences(tokens, ids)
        ]
        most = max((one[0] for one in others), default=0)
        return [(line, at) for words, line, at in others if words == most]

    def _statement(self, sentence: str) -> tuple[tuple[str, ...], list[int]]:
        """What a sentence is about, and its tokens after that is named: the value is among them."""
        about, end = _about(sentence)
        if not about:
            return about, []
        offsets = self.tokenizer.encode(sentence, add_special_tokens=False).offsets
        return about, [index for index, (begin, _) in enumerate(offsets) if begin >= end]

    def _words(self, parts: Iterable[str]) -> tuple[int, ...]:
        words = [word for part in parts for word in part.lower().removeprefix("the ").split()]
        return tuple(dict.fromkeys(token for word in words for token in self._tokens_of(word)))

    def _tokens_of(self, word: str) -> tuple[int, ...]:
        """The tokens of a word in the middle of a sentence; people's names have a capital there."""
        if word not in self.words:
            self.words[word] = tuple(self._encode([" " + (word.capitalize() if word in _PEOPLE else word)])[0])
        return self.words[word]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return encode(self.tokenizer, texts)


@lru_cache(4096)
def _about(sentence: str) -> tuple[tuple[str, ...], int]:
    """The first attribute and the first entity that are named, in this order, and where the later one ends."""
    found: dict[str, re.Match[str]] = {}
    for match in _NAMES_IN.finditer(sentence):
        found.setdefault(str(match.lastgroup), match)
    if len(found) < 2:
        return (), 0
    names_said = tuple(found[kind][0].lower() for kind in ("attribute", "entity"))
    return names_said, max(match.end() for match in found.values())


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def name_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens of the words that entities are named with, and of those of attributes, inside a sentence."""

    def tokens(pool: Iterable[str]) -> set[int]:
        words = [f" {word}" for name in pool for word in name.split()]
        return {token for ids in encode(tokenizer, words) for token in ids}

    people = (*names.FIRST_NAMES, *names.LAST_NAMES)
    entities = tokens((*names.ADJECTIVES, *names.NOUNS, *people, *names.CALL_SIGNS))
    return sorted(entities), sorted(tokens((*names.ATTRIBUTES, *names.COLLECTIONS)) - entities)


def _occurrences(tokens: list[int], part: list[int]) -> list[int]:
    return [at for at in range(len(tokens) - len(part) + 1) if tokens[at : at + len(part)] == part]
