"""Fact lookup: invented facts, planted in a text and asked about (the embedded model's own task)."""

from longspan.evals.lookup.abilities import ABILITIES, MOST_FACTS, UNKNOWN, Ability, Sample, unanswerable
from longspan.evals.lookup.facts import Fact, Question, ask, make_facts, plant, prompt, restate, score
from longspan.evals.lookup.names import Phrasing, Split, split_of

__all__ = [
    "ABILITIES",
    "MOST_FACTS",
    "UNKNOWN",
    "Ability",
    "Fact",
    "Phrasing",
    "Question",
    "Sample",
    "Split",
    "ask",
    "make_facts",
    "plant",
    "prompt",
    "restate",
    "score",
    "split_of",
    "unanswerable",
]
