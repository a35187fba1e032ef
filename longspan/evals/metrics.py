"""How an answer is held against the right ones: the table that questions name."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

from longspan.evals import lookup
from longspan.evals.longbench.scores import SCORES

Metric = Callable[[str, Seq[str]], float]
"""Of an answer and its references: 0 … 1."""


def exact(answer: str, references: Seq[str]) -> float:
    """1 when the whole of the answer is one of the references, as fact lookup has it."""
    return float(any(lookup.score(answer, reference) for reference in references))


def every(answer: str, references: Seq[str]) -> float:
    """The share of the references that stand in the answer, in whatever case (RULER's `string_match_all`)."""
    said = answer.lower()
    return sum(reference.lower() in said for reference in references) / len(references)


def some(answer: str, references: Seq[str]) -> float:
    """1 when any reference stands in the answer, in whatever case (RULER's `string_match_part`)."""
    said = answer.lower()
    return float(any(reference.lower() in said for reference in references))


METRICS: dict[str, Metric] = {"exact": exact, "every": every, "some": some, **SCORES}
