"""What can be asked of a text: one function per ability, and the table of them.

Each makes a `Sample`: sentences that stand in the text in this order, and questions about them whose
answers follow from these sentences alone. `facts` is the number of facts (or assignments, or marks,
or quotes) in the text; as many questions come as were asked for, or as many as there is something
to ask about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longspan.errors import UsageError
from longspan.evals.lookup import names, phrasings
from longspan.evals.lookup.facts import Fact, Question, ask, make_facts, restate
from longspan.evals.lookup.names import Split

UNKNOWN = "unknown"
MOST_FACTS = {"count": 60, "chain": 200}
"""Facts of a text where the names of a split, or the marks that a word may have, do not suffice for more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Sentences to plant, in order, questions about them, and the facts where there are any (the newest of each)."""

    sentences: tuple[str, ...]
    questions: tuple[Question, ...]
    facts: tuple[Fact, ...] = ()


Ability = Callable[[random.Random, int, int, Split], Sample]


def single(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """Facts that have little in common."""
    made = make_facts(rng, facts, split, same_attribute=0, same_entity=0, near_entity=0)
    return _sample(rng, made, made, questions, split)


def distractor(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """Facts of which others have the same attribute, and others the same entity or nearly the same."""
    made = _alike(rng, facts, split)
    return _sample(rng, made, _with_rivals(made), questions, split)


def several(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """Two to five facts about each entity, in one sentence or in several."""
    made: list[Fact] = []
    sentences: list[str] = []
    pool = rng.sample(names.ATTRIBUTES, rng.randint(5, 9))
    taken: dict[str, set[str]] = {}
    seen: set[str] = set()
    while len(made) < facts:
        entity = names.entity(rng, split)
        if entity in seen:
            continue
        seen.add(entity)
        count = min(rng.randint(2, 5), facts - len(made))
        own = [
            Fact(entity, attribute, names.value(rng, attribute, taken.setdefault(attribute, set()), split), "")
            for attribute in rng.sample(pool, count)
        ]
        made += own
        if count > 1 and rng.random() < 0.5:
            pairs = [f"the {fact.attribute} {fact.value}" for fact in own]
            joined = ", ".join(pairs[:-1]) + " and " + pairs[-1]
            sentences.append(phrasings.SEVERAL[split].draw(rng, e=entity, pairs=joined))
        else:
            sentences += (restate(rng, fact, split).sentence for fact in own)
    rng.shuffle(sentences)
    asked = rng.sample(made, min(questions, len(made)))
    return Sample(tuple(sentences), tuple(ask(rng, fact, split) for fact in asked), tuple(made))


def updated(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """Facts that are stated again later with another value: the newest holds."""
    facts = max(2, facts)
    changes = max(1, round(facts * rng.choice((0.2, 0.4, 0.5))))
    first = _alike(rng, max(1, facts - changes), split)
    now = list(first)
    sentences = [fact.sentence for fact in first]
    changed: set[int] = set()
    some = rng.sample(range(len(first)), max(1, min(len(first), round(changes * rng.choice((0.5, 1.0))))))
    for number in range(facts - len(first)):
        index = some[number] if number < len(some) else rng.choice(some)
        old = now[index]
        fact = replace(old, value=names.value(rng, old.attribute, {f.value for f in now}, split))
        if rng.random() < 0.5:
            sentence = phrasings.UPDATE[split].draw(rng, a=fact.attribute, e=fact.entity, v=fact.value)
        else:
            sentence = restate(rng, fact, split).sentence
        # anywhere after the last statement of the same fact
        sentences.insert(rng.randint(sentences.index(old.sentence) + 1, len(sentences)), sentence)
        now[index] = replace(fact, sentence=sentence)
        changed.add(index)
    asked = rng.sample(sorted(changed), min(questions, len(changed)))
    return Sample(tuple(sentences), tuple(ask(rng, now[index], split) for index in asked), tuple(now))


def unknown(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """Questions that the text does not answer, though it has the entity, or the attribute, or both apart."""
    made = _alike(rng, facts, split)
    return Sample(
        tuple(fact.sentence for fact in made),
        tuple(unanswerable(rng, made, split) for _ in range(questions)),
        tuple(made),
    )


def two_hop(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """The role of a thing names a person, another sentence says something about that person."""
    links: list[Fact] = []
    about: list[Fact] = []
    seen: set[tuple[str, str]] = set()
    roles = rng.sample(names.ROLES, rng.randint(1, 3))
    attributes = rng.sample([*names.NUMERIC_ATTRIBUTES, *names.WORD_ATTRIBUTES], rng.randint(1, 3))
    people: set[str] = set()
    taken: dict[str, set[str]] = {}
    while len(links) + len(about) + 2 <= max(2, facts):
        entity = names.near(rng, rng.choice(links).entity, split) if links and rng.random() < 0.3 else None
        if entity is None or not entity.startswith("the "):
            entity = names.thing(rng, split)
        role, attribute = rng.choice(roles), rng.choice(attributes)
        if (entity, role) in seen:
            continue
        seen.add((entity, role))
        person = names.value(rng, role, people, split)
        links.append(restate(rng, Fact(entity, role, person, ""), split))
        value = names.value(rng, attribute, taken.setdefault(attribute, set()), split)
        about.append(restate(rng, Fact(person, attribute, value, ""), split))
    sentences = [fact.sentence for fact in (*links, *about)]
    rng.shuffle(sentences)
    asked = [
        Question(phrasings.TWO_HOP[split].draw(rng, a=fact.attribute, r=link.attribute, e=link.entity), fact.value)
        for link, fact in zip(links, about, strict=True)
    ]
    return Sample(tuple(sentences), tuple(rng.sample(asked, min(questions, len(asked)))))


def chain(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """Variables, each set to a number or to an earlier one, up to three steps from its number."""
    _check_size("chain", facts)
    values: dict[str, str] = {}
    steps: dict[str, int] = {}
    sentences: list[str] = []
    while len(values) < facts:
        name = names.variable(rng, split)
        if name in values:
            continue
        before = [other for other, depth in steps.items() if depth < 3]
        if before and rng.random() < 0.7:
            other = rng.choice(before)
            values[name], steps[name], written = values[other], steps[other] + 1, other
        else:
            written = str(rng.randint(1000, 99999))
            values[name], steps[name] = written, 0
        sentences.append(phrasings.ASSIGNMENT[split].draw(rng, x=name, v=written))
    linked = [name for name, depth in steps.items() if depth > 0] or list(values)
    return Sample(
        tuple(sentences),
        tuple(
            Question(phrasings.VARIABLE[split].draw(rng, x=name), values[name])
            for name in rng.sample(linked, min(questions, len(linked)))
        ),
    )


def listing(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """All values of what an entity has several of, in the order of the text."""
    values: dict[tuple[str, str], list[str]] = {}
    said: list[tuple[tuple[str, str], str]] = []
    kinds = rng.sample(list(names.COLLECTIONS), rng.randint(1, 3))
    while len(said) < facts:
        entity = names.near(rng, rng.choice(said)[0][0], split) if said and rng.random() < 0.3 else None
        if entity is None or not entity.startswith("the "):
            entity = names.thing(rng, split)
        kind = rng.choice(kinds)
        if (entity, kind) in values:
            continue
        values[entity, kind] = []
        count = min(rng.randint(1, 4), facts - len(said))
        said += (((entity, kind), value) for value in rng.sample(names.COLLECTIONS[kind], count))
    rng.shuffle(said)
    sentences = []
    for (entity, kind), value in said:
        values[entity, kind].append(value)
        sentences.append(phrasings.ITEM[split].draw(rng, c=kind, e=entity, v=value))
    longer = {key: found for key, found in values.items() if len(found) > 1} or values
    asked = [
        Question(phrasings.LIST[split].draw(rng, c=kind, e=entity), ", ".join(found))
        for (entity, kind), found in longer.items()
    ]
    return Sample(tuple(sentences), tuple(rng.sample(asked, min(questions, len(asked)))))


def count(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """How often a word is marked, up to nine times."""
    _check_size("count", facts)
    words = [word for word in names.NOUNS if names.split_of(f"marked {word}") == split]
    counts: dict[str, int] = {}
    while (left := facts - sum(counts.values())) > 0:
        unused = [word for word in words if word not in counts]
        if unused:
            counts[rng.choice(unused)] = min(rng.randint(1, 9), left)
        else:  # each once, and still not enough: more marks for the words that are there
            counts[rng.choice([word for word in words if counts[word] < 9])] += 1
    marks = [word for word, number in counts.items() for _ in range(number)]
    rng.shuffle(marks)
    return Sample(
        tuple(phrasings.MARK[split].draw(rng, w=word) for word in marks),
        tuple(
            Question(phrasings.COUNT[split].draw(rng, w=word), str(counts[word]))
            for word in rng.sample(list(counts), min(questions, len(counts)))
        ),
    )


def copy(rng: random.Random, facts: int, questions: int, split: Split) -> Sample:
    """A quoted sentence, word for word. Its words come in no order that could be guessed."""
    quotes: dict[str, str] = {}
    while len(quotes) < facts:
        entity = names.near(rng, rng.choice(list(quotes)), split) if quotes and rng.random() < 0.3 else None
        quotes[entity or names.entity(rng, split)] = _quote(rng)
    return Sample(
        tuple(phrasings.QUOTE[split].draw(rng, e=entity, q=quote) for entity, quote in quotes.items()),
        tuple(
            Question(phrasings.COPY[split].draw(rng, e=entity), quotes[entity])
            for entity in rng.sample(list(quotes), min(questions, len(quotes)))
        ),
    )


ABILITIES: dict[str, Ability] = {
    "single": single,
    "distractor": distractor,
    "several": several,
    "updated": updated,
    "unknown": unknown,
    "two_hop": two_hop,
    "chain": chain,
    "list": listing,
    "count": count,
    "copy": copy,
}


def unanswerable(rng: random.Random, facts: Sequence[Fact], split: Split) -> Question:
    """A question about a fact that is not among `facts`, as like them as can be."""
    said = {(fact.entity, fact.attribute) for fact in facts}
    while True:
        like, other = rng.choice(facts), rng.choice(facts)
        entity, attribute = rng.choice(
            (
                (like.entity, other.attribute),
                (like.entity, rng.choice(names.ATTRIBUTES)),
                (names.near(rng, like.entity, split), like.attribute),
                (names.entity(rng, split), like.attribute),
                (names.entity(rng, split), rng.choice(names.ATTRIBUTES)),
            )
        )
        if (entity, attribute) not in said:
            return ask(rng, Fact(entity, attribute, UNKNOWN, ""), split)


def _check_size(ability: str, facts: int) -> None:
    if facts > MOST_FACTS[ability]:
        raise UsageError(f"facts: {facts:,}; ability {ability} has names for {MOST_FACTS[ability]}: ask for fewer")


def _alike(rng: random.Random, facts: int, split: Split) -> list[Fact]:
    return make_facts(
        rng,
        facts,
        split,
        same_attribute=rng.choice((0.5, 0.7, 0.9)),
        same_entity=rng.choice((0.1, 0.3)),
        near_entity=rng.choice((0.2, 0.4)),
    )


def _with_rivals(facts: list[Fact]) -> list[Fact]:
    """Facts of which another has the attribute, and another the entity or a word of it; all if there are none."""

    def rivalled(fact: Fact) -> bool:
        others = [other for other in facts if other is not fact]
        words = set(fact.entity.removeprefix("the ").split())
        return any(other.attribute == fact.attribute for other in others) and any(
            words & set(other.entity.removeprefix("the ").split()) for other in others
        )

    return [fact for fact in facts if rivalled(fact)] or facts


def _sample(rng: random.Random, facts: list[Fact], choice: list[Fact], questions: int, split: Split) -> Sample:
    asked = rng.sample(choice, min(questions, len(choice)))
    return Sample(tuple(fact.sentence for fact in facts), tuple(ask(rng, fact, split) for fact in asked), tuple(facts))


def _quote(rng: random.Random) -> str:
    words = [rng.choice(rng.choice(_QUOTED)) for _ in range(rng.randint(4, 8))]
    return names.capital(" ".join(words)) + "."


_QUOTED = (names.ADJECTIVES, names.NOUNS, names.FRUITS, names.PASSWORDS, names.COLOURS, names.CITIES)
