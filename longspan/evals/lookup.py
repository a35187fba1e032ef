"""Fact lookup: sentences with invented facts, planted in a text and asked about afterwards.

A fact ties a value to an attribute of an entity ("The access code of the amber anchor is 48213.").
What makes the task hard is not the text around it but the other facts: the ones about the same
entity, or with the same attribute, or about an entity with nearly the same name. `make_facts`
therefore makes many of these.

Every draw comes from the `random.Random` passed in, so a seed fixes the result. Entities are split
by a hash of their name: a model trained on ``"train"`` has never seen a ``"held_out"`` entity.
"""

from __future__ import annotations

import random
import re
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, get_args

from longspan.errors import UsageError

Split = Literal["train", "held_out"]

_HELD_OUT_PERCENT = 10
_NUMBERED_SHARE = 0.2


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    """amber ancient azure bitter brave bright bronze calm clever copper coral crimson crooked curious
    distant dusty eager early faint fierce frozen gentle gilded golden grand green grey hidden hollow
    humble idle iron ivory jolly keen lively lonely lucky mellow misty narrow noble northern olive
    pale patient plain proud purple quiet rapid rusty scarlet secret silent silver simple slender
    southern steady stony sunny swift tiny velvet violet wild wooden"""
)
NOUNS = _words(
    """anchor antenna archive badger barn basin beacon bell bison bridge cabin camel candle canyon
    castle cellar chapel cliff clock compass cottage crane crater dragon drum eagle engine falcon
    ferry forest fountain fox furnace garden gate glacier hammer harbour hawk heron hotel island
    kettle kitchen ladder lantern library lighthouse locker lynx maple market meadow mill mirror
    monastery mountain museum needle observatory orchard otter owl palace parrot pier pigeon pilot
    pine pond quarry rabbit raven reactor river rocket sailor salmon satellite school server shelter
    sparrow station stork submarine table telescope temple theatre tiger tower tractor tunnel turbine
    valley vault village wagon walrus warehouse whale windmill wolf workshop"""
)

#: numeric attribute -> the fewest and the most digits of its values
NUMERIC_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "access code": (4, 6),
    "account number": (5, 7),
    "age": (2, 3),
    "batch number": (4, 6),
    "budget": (4, 6),
    "capacity": (2, 5),
    "depth": (2, 4),
    "extension": (3, 4),
    "height": (2, 4),
    "invoice number": (5, 6),
    "length": (2, 4),
    "licence number": (5, 7),
    "locker number": (2, 4),
    "magic number": (4, 6),
    "order number": (4, 6),
    "passcode": (4, 6),
    "phone number": (6, 7),
    "population": (3, 6),
    "price": (2, 5),
    "registration number": (4, 6),
    "room number": (2, 4),
    "serial number": (5, 7),
    "weight": (2, 5),
}

#: word-valued attribute -> its values
WORD_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    name: _words(values)
    for name, values in {
        "captain": "Alice Bruno Clara Daniel Elena Felix Greta Hugo Irene Jonas Karin Leon Maria Nina",
        "owner": "Olivia Peter Quentin Rosa Simon Tessa Ulrich Vera Walter Yusuf Anton Bella Conrad Dora",
        "keeper": "Emil Flora Gustav Helen Ivan Julia Klaus Laura Martin Nora Oscar Paula Robert Sofia",
        "home city": "Berlin Cairo Dublin Geneva Hanoi Lima Lisbon London Madrid Nairobi Oslo Paris Rome Tokyo",
        "favourite fruit": "apple banana cherry fig grape lemon lime mango melon orange peach pear plum quince",
        "colour": "black blue brown cyan green indigo magenta orange pink red teal turquoise white yellow",
        "material": "brass clay concrete cotton glass granite leather linen marble oak paper rubber steel wool",
        "password": "acorn bramble cactus dagger ember feather goblet helmet icicle jigsaw kernel lagoon nectar orbit",
        "opening day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "birth month": "January February March April May June July August September October November December",
    }.items()
}

ATTRIBUTES: tuple[str, ...] = (*NUMERIC_ATTRIBUTES, *WORD_ATTRIBUTES)

#: {a} attribute, {e} entity, {E} entity at the start of a sentence, {v} value
FACT_PHRASINGS: dict[Split, tuple[str, ...]] = {
    "train": (
        "The {a} of {e} is {v}.",
        "{E} has the {a} {v}.",
        "For {e}, the {a} is {v}.",
        "{E}'s {a} is {v}.",
        "Note that the {a} of {e} is {v}.",
        "The {a} for {e} is set to {v}.",
        "Remember that {e} has the {a} {v}.",
    ),
    "held_out": (
        "The {a} recorded for {e} is {v}.",
        "As of today, {e} has the {a} {v}.",
    ),
}
QUESTION_PHRASINGS: dict[Split, tuple[str, ...]] = {
    "train": (
        "What is the {a} of {e}?",
        "What {a} does {e} have?",
        "Tell me the {a} of {e}.",
        "What is {e}'s {a}?",
        "For {e}, what is the {a}?",
    ),
    "held_out": ("Which {a} was given for {e}?",),
}


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


def split_of(entity: str) -> Split:
    """The split that an entity belongs to, by a hash that no seed or platform changes."""
    return "held_out" if zlib.crc32(entity.encode()) % 100 < _HELD_OUT_PERCENT else "train"


def make_facts(
    rng: random.Random,
    count: int,
    split: Split = "train",
    *,
    same_attribute: float = 0.3,
    same_entity: float = 0.2,
    near_entity: float = 0.2,
    phrasing: Split = "train",
) -> list[Fact]:
    """`count` facts, no two of them about the same attribute of the same entity.

    Each new fact takes, with the given probability, the attribute of an earlier fact
    (`same_attribute`), and the entity of an earlier one (`same_entity`) or an entity that shares
    a part of its name with an earlier one (`near_entity`). All entities belong to `split`;
    `phrasing` says which sentence templates are used. No two facts with the same attribute have
    the same value, except where an attribute has too few values. An option that leaves nothing new
    to say about the earlier entities gives way to a new entity.
    """
    _check("split", split)
    _check("phrasing", phrasing)
    if not 0 <= same_attribute <= 1:
        raise UsageError(f"same_attribute is a probability, from 0 to 1; got {same_attribute}")
    if same_entity + near_entity > 1:
        raise UsageError(f"same_entity {same_entity} + near_entity {near_entity} exceed 1; lower one of them")
    facts: list[Fact] = []
    seen: set[tuple[str, str]] = set()
    values: dict[str, set[str]] = {}
    clashes = 0
    while len(facts) < count:
        attribute = rng.choice(facts).attribute if facts and rng.random() < same_attribute else rng.choice(ATTRIBUTES)
        draw = rng.random() if facts else 1.0
        if clashes >= 50:
            entity = _entity(rng, split)
        elif draw < same_entity:
            entity = rng.choice(facts).entity
        elif draw < same_entity + near_entity:
            entity = _near_entity(rng, rng.choice(facts).entity, split)
        else:
            entity = _entity(rng, split)
        if (entity, attribute) in seen:
            clashes += 1
            continue
        clashes = 0
        seen.add((entity, attribute))
        value = _value(rng, attribute, values.setdefault(attribute, set()))
        facts.append(restate(rng, Fact(entity, attribute, value, ""), phrasing))
    return facts


def restate(rng: random.Random, fact: Fact, phrasing: Split = "train") -> Fact:
    """The same fact in a sentence drawn anew."""
    _check("phrasing", phrasing)
    template = rng.choice(FACT_PHRASINGS[phrasing])
    name = fact.entity[0].upper() + fact.entity[1:]
    return replace(fact, sentence=template.format(a=fact.attribute, e=fact.entity, E=name, v=fact.value))


def ask(rng: random.Random, fact: Fact, phrasing: Split = "train") -> Question:
    """A question whose whole answer is the value of `fact`."""
    _check("phrasing", phrasing)
    template = rng.choice(QUESTION_PHRASINGS[phrasing])
    return Question(template.format(a=fact.attribute, e=fact.entity), fact.value)


def plant(text: str, facts: Sequence[Fact], rng: random.Random, depths: Sequence[float] | None = None) -> str:
    """`text` with each fact as a line of its own, at the line boundary nearest its depth.

    A depth is the share of the text (in characters) before the fact: 0 at the start, 1 at the end.
    Without `depths` they are drawn uniformly. Lines are never broken or changed.
    """
    if depths is None:
        depths = [rng.random() for _ in facts]
    if len(depths) != len(facts):
        raise UsageError(f"{len(facts)} facts but {len(depths)} depths; give one depth per fact, or none")
    if any(not 0 <= depth <= 1 for depth in depths):
        raise UsageError(f"depths are shares of the text, from 0 to 1; got {list(depths)}")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    starts = [0, *accumulate(map(len, lines))]
    before: dict[int, list[Fact]] = {}
    for depth, fact in sorted(zip(depths, facts, strict=True), key=lambda pair: pair[0]):
        target = depth * starts[-1]
        line = bisect_right(starts, target) - 1
        if line + 1 < len(starts) and starts[line + 1] - target < target - starts[line]:
            line += 1
        before.setdefault(line, []).append(fact)
    pieces: list[str] = []
    for index in range(len(lines) + 1):
        pieces += (fact.sentence + "\n" for fact in before.get(index, ()))
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


def _check(name: str, value: str) -> None:
    if value not in get_args(Split):
        raise UsageError(f"{name} {value!r} is not one of {', '.join(get_args(Split))}")


def _entity(rng: random.Random, split: Split) -> str:
    while True:
        first = rng.choice(ADJECTIVES if rng.random() < 0.7 else NOUNS)
        entity = f"the {first} {rng.choice(NOUNS)}"
        if rng.random() < _NUMBERED_SHARE:
            entity += f" {rng.randint(2, 29)}"
        if split_of(entity) == split:
            return entity


def _near_entity(rng: random.Random, entity: str, split: Split) -> str:
    """An entity that differs from `entity` in its first word, its noun or its number only."""
    match = re.fullmatch(r"the (\w+) (\w+)( \d+)?", entity)
    assert match is not None
    first, noun, number = match[1], match[2], match[3] or ""
    for _ in range(200):
        changed = rng.choice(("first", "noun", "number") if number else ("first", "noun"))
        if changed == "first":
            near = f"the {rng.choice(ADJECTIVES)} {noun}{number}"
        elif changed == "noun":
            near = f"the {first} {rng.choice(NOUNS)}{number}"
        else:
            near = f"the {first} {noun} {rng.randint(2, 29)}"
        if near != entity and split_of(near) == split:
            return near
    return _entity(rng, split)


def _value(rng: random.Random, attribute: str, taken: set[str]) -> str:
    """A value that no earlier fact with this attribute has, while there is one."""
    value = ""
    for _ in range(50):
        if attribute in WORD_ATTRIBUTES:
            value = rng.choice(WORD_ATTRIBUTES[attribute])
        else:
            fewest, most = NUMERIC_ATTRIBUTES[attribute]
            digits = rng.randint(fewest, most)
            value = str(rng.randint(10 ** (digits - 1), 10**digits - 1))
        if value not in taken:
            break
    taken.add(value)
    return value
