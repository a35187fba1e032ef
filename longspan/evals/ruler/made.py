"""What one task makes: a text as long as there is space for, and the question about it."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals.cases import Case, Question

if TYPE_CHECKING:
    from longspan.engine.words import Words
    from longspan.evals.haystack import Haystack

_SPARE = 4
"""Tokens by which the written answer may exceed its references' own: a separator's."""


@dataclass(frozen=True, slots=True)
class Made:
    text: str
    question: Question


@dataclass(frozen=True)
class Space:
    """How long a text may be: with its question, the answer's first words and the answer's room, `length` tokens."""

    llm: Words
    length: int

    @property
    def plain(self) -> bool:
        """Whether the prompt is text, question and the answer's first words as they stand, as RULER's own for models
        without a chat template."""
        return not self.llm.has_template

    def case(self, group: str, index: int, made: Made) -> Case:
        return Case(group, index, self.length, made.text, (self._joined(made.question),), plain=self.plain)

    def tokens(self, text: str, question: Question) -> int:
        """Of the whole prompt, and the room for the answer."""
        one = self._joined(question)
        if self.plain:
            return len(self.llm.encode(text + one.text + one.begins)) + one.room
        return len(prompts.conversation(self.llm, text, [one.text], begins=one.begins)) + one.room

    def _joined(self, question: Question) -> Question:
        if not self.plain:
            return question
        return dataclasses.replace(question, text=f"\n{question.text}", begins=f" {question.begins}")

    def room(self, least: int, references: tuple[str, ...]) -> int:
        """RULER's own room; more where this tokenizer needs more to write all the references."""
        return max(least, len(self.llm.encode(", ".join(references), special=False)) + _SPARE * len(references))

    def fill(self, question: Question, made: Callable[[int], str]) -> tuple[int, str]:
        """The largest n, nearly, for which `made(n)` fits, and that text. More units must not make fewer tokens.

        Raises UsageError when not even `made(0)` fits.
        """
        text = made(0)
        low, low_tokens = 0, self.tokens(text, question)
        if low_tokens > self.length:
            raise UsageError(f"length: {self.length:,} tokens do not hold such a case; give {low_tokens:,} or more")
        slack = self.length // 250
        high, step, rate = 0, 16, 0.0
        while not high:  # grow until it is too much
            longer = made(low + step)
            found = self.tokens(longer, question)
            if found > self.length:
                high, high_tokens = low + step, found
                break
            rate = (found - low_tokens) / step
            low, low_tokens, text = low + step, found, longer
            step = max(1, math.ceil(1.01 * (self.length - found) / rate)) if rate else 2 * step
        halve = False
        while self.length - low_tokens > slack and high - low > 1:
            share = 0.5 if halve else (self.length - slack / 2 - low_tokens) / (high_tokens - low_tokens)
            halve = not halve  # a straight line alone can creep
            middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
            between = made(middle)
            found = self.tokens(between, question)
            if found <= self.length:
                low, low_tokens, text = middle, found, between
            else:
                high, high_tokens = middle, found
        return low, text


class Task(Protocol):
    """One kind of case; its fields are the task's parameters."""

    def make(self, rng: random.Random, space: Space, essay: Haystack) -> Made:
        """A case. rng: decides all that is drawn. essay: text that has nothing to do with the task."""
