"""Fact lookup: sentences with invented facts, planted in a text and asked about afterwards.

A fact ties a value to an attribute of an entity ("The access code of the amber anchor is 48213.").
What makes the task hard is not the text around it but the other facts: the ones about the same
entity, or with the same attribute, or about an entity with nearly the same name. `make_facts`
therefore makes many of these.

Every draw comes from the `random.Random` passed in, so a seed fixes the result. Names and phrasings
are split: a model trained on ``"train"`` has never seen a name or a phrasing of ``"held_out"``.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from longspan.errors import UsageError
from longspan.evals.lookup import names, phrasings
from longspan.evals.lookup.names import Phrasing, Split, check_phrasing, check_split


@dataclass(frozen=True, slots=True)
class Fact:
    """`value` is the `attribute` of `entity`; `sentence` says so."""

    entity: str
    attribute: str
    value: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answer: str


def make_facts(
    rng: random.Random,
    count: int,
    split: Split = "train",
    *,
    same_attribute: float = 0.3,
    same_entity: float = 0.2,
    near_entity: float = 0.2,
    phrasing: Phrasing | None = None,
    people: bool = True,
) -> list[Fact]:
    """`count` facts, no two of them about the same attribute of the same entity.

    Each new fact takes, with the given probability, the attribute of an earlier fact
    (`same_attribute`), and the entity of an earlier one (`same_entity`) or an entity that shares
    a part of its name with an earlier one (`near_entity`). All names belong to `split`, and so do
    the sentences unless `phrasing` says otherwise. Without `people` no entity and no value is a
    person. No two facts with the same attribute have the
    same value, except where an attribute has too few values. An option that leaves nothing new to
    say about the earlier entities gives way to a new entity.
    """
    check_split(split)
    phrasing = phrasing or split
    check_phrasing(phrasing)
    if not 0 <= same_attribute <= 1:
        raise UsageError(f"same_attribute is a probability, from 0 to 1; got {same_attribute}")
    if same_entity + near_entity > 1:
        raise UsageError(f"same_entity {same_entity} + near_entity {near_entity} exceed 1; lower one of them")
    attributes = names.ATTRIBUTES if people else names.THING_ATTRIBUTES
    new_entity = names.entity if people else names.thing
    facts: list[Fact] = []
    seen: set[tuple[str, str]] = set()
    values: dict[str, set[str]] = {}
    clashes = 0
    while len(facts) < count:
        repeats = facts and rng.random() < same_attribute
        attribute = rng.choice(facts).attribute if repeats else rng.choice(attributes)
        draw = rng.random() if facts else 1.0
        if clashes >= 50:
            entity = new_entity(rng, split)
        elif draw < same_entity:
            entity = rng.choice(facts).entity
        elif draw < same_entity + near_entity:
            entity = names.near(rng, rng.choice(facts).entity, split)
        else:
            entity = new_entity(rng, split)
        if (entity, attribute) in seen:
            clashes += 1
            continue
        clashes = 0
        seen.add((entity, attribute))
        value = names.value(rng, attribute, values.setdefault(attribute, set()), split)
        facts.append(restate(rng, Fact(entity, attribute, value, ""), phrasing))
    return facts


def restate(rng: random.Random, fact: Fact, phrasing: Phrasing = "train") -> Fact:
    """The same fact in a sentence drawn anew."""
    check_phrasing(phrasing)
    sentence = phrasings.FACT[phrasing].draw(rng, a=fact.attribute, e=fact.entity, v=fact.value)
    return replace(fact, sentence=sentence)


def ask(rng: random.Random, fact: Fact, phrasing: Phrasing = "train") -> Question:
    """A question whose whole answer is the value of `fact`."""
    check_phrasing(phrasing)
    return Question(phrasings.QUESTION[phrasing].draw(rng, a=fact.attribute, e=fact.entity), fact.value)


def plant(text: str, sentences: Sequence[str], rng: random.Random, depths: Sequence[float] | None = None) -> str:
    """`text` with each sentence as a line of its own, at the line boundary nearest its depth.

    A depth is the share of the text (in characters) before the sentence: 0 at the start, 1 at the
    end. Without `depths` they are drawn uniformly, and the sentences keep their order. Lines are
    never broken or changed.
    """
    if depths is None:
        depths = sorted(rng.random() for _ in sentences)
    if len(depths) != len(sentences):
        raise UsageError(f"{len(sentences)} sentences but {len(depths)} depths; give one depth per sentence, or none")
    if any(not 0 <= depth <= 1 for depth in depths):
        raise UsageError(f"depths are shares of the text, from 0 to 1; got {list(depths)}")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    starts = [0, *accumulate(map(len, lines))]
    before: dict[int, list[str]] = {}
    for depth, sentence in sorted(zip(depths, sentences, strict=True), key=lambda pair: pair[0]):
        target = depth * starts[-1]
        line = bisect_right(starts, target) - 1
        if line + 1 < len(starts) and starts[line + 1] - target < target - starts[line]:
            line += 1
        before.setdefault(line, []).append(sentence)
    pieces: list[str] = []
    for index in range(len(lines) + 1):
        pieces += (sentence + "\n" for sentence in before.get(index, ()))
        pieces += lines[index : index + 1]
    return "".join(pieces)


def prompt(text: str, question: Question) -> str:
    """The content of a user message: the text, an empty line, the question."""
    return f"{text.rstrip()}\n\n{question.text}"


def score(answer: str, expected: str) -> bool:
    """Whether `answer` is exactly `expected`, apart from white space around it and a final period."""
    return _bare(answer) == _bare(expected)


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").rstrip()
