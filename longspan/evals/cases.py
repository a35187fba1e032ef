"""What suites of questions have in common: a text, questions about it, and what was said.

A suite that asks makes cases; how a case is put to a model (`longspan.evals.ask`) and how an answer is scored
(`longspan.evals.metrics`) are not its concern, so every regime, comparison and report works with every such suite.
"""

from __future__ import annotations

from dataclasses import dataclass

PLACES = ("end", "start", "row")
MARGIN = 4
"""Tokens of an answer beyond those expected: its first space, its end, and room to be seen writing on."""


@dataclass(frozen=True, slots=True)
class Question:
    """text: what is asked after the case's text. references: the right answers. metric: how an answer is held against
    them, a name of `METRICS`. room: tokens that an answer may have. begins: the first words of the answer, given to the
    model. depth: the share of the text before what answers it (0 … 1); None where that is no one place."""

    text: str
    references: tuple[str, ...]
    metric: str
    room: int
    begins: str = ""
    depth: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A text and its questions. group: what scores are summed up by: a task, an ability. index: among those of the
    group. length: tokens that were asked for. asked: where its questions stand: each on its own at the "end"; each at
    the "start", before the text; or in a "row", one conversation at the end, each after the model's own answers. plain:
    the prompt is text, question and the answer's first words as they stand, with nothing between or around them, no
    line ends the answer, and it is kept as it is."""

    group: str
    index: int
    length: int
    text: str
    questions: tuple[Question, ...]
    asked: str = "end"
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A question, what was answered and what that is worth, 0 … 1. turn: of the question, in its case. tokens: of the
    whole prompt."""

    group: str
    index: int
    turn: int
    length: int
    tokens: int
    question: str
    references: tuple[str, ...]
    metric: str
    answer: str
    score: float
    depth: float | None = None
