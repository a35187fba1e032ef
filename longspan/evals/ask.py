"""Cases in, scored answers out, whoever answers (`longspan.evals.asker`: a model)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from itertools import islice

from longspan.evals.cases import Case, Question, Scored
from longspan.evals.metrics import METRICS
from longspan.evals.progress import Progress, part

BATCH = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """An answer. tokens: of its whole prompt. steps, seconds: tokens of the answer after its first, and the time they
    took. held, filed: bytes that the cache has of its text when that was read, in memory and in a file, the mean over
    the texts that were read at once."""

    text: str
    tokens: int
    steps: int = 0
    seconds: float = 0.0
    held: int = 0
    filed: int = 0


Answerer = Callable[[Seq[Case], Progress], list[list[Said]]]
"""Answers every question of some cases, told how far it is."""


def ask(
    cases: Iterable[Case], total: int, answer: Answerer, batch: int, progress: Progress, done: int = 0
) -> Iterator[tuple[Scored, Said]]:
    """Every question with its answer, in order, but for the first `done`. batch: cases that are asked at once; a batch
    of which some are done is asked again, so that each is always asked in the same company."""
    counted, rest = 0, iter(cases)
    progress(done, total)
    while some := list(islice(rest, batch)):
        size = sum(len(case.questions) for case in some)
        if counted + size <= done:
            counted += size
            continue
        answers = answer(some, part(progress, counted, size, total))
        for case, said in zip(some, answers, strict=True):
            for turn, (question, one) in enumerate(zip(case.questions, said, strict=True)):
                counted += 1
                if counted > done:
                    yield scored(case, turn, question, one), one
        progress(counted, total)


def scored(case: Case, turn: int, question: Question, said: Said) -> Scored:
    return Scored(
        case.group,
        case.index,
        turn,
        case.length,
        said.tokens,
        question.text,
        question.references,
        question.metric,
        said.text,
        METRICS[question.metric](said.text, question.references),
        question.depth,
    )
