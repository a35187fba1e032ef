"""Every question is answered by its sample's sentences alone: a solver that reads them finds the answer."""

import random
import re

import pytest

from longspan.errors import UsageError
from longspan.evals import lookup
from longspan.evals.lookup import names
from longspan.evals.lookup.phrasings import KINDS, Templates

SPLITS = ("train", "held_out")
KNOWN = {"a": "|".join(names.ATTRIBUTES), "r": "|".join(names.ROLES), "c": "|".join(names.COLLECTIONS)}


def samples(ability: str, split: lookup.Split, count: int = 60, facts: int = 16, questions: int = 4):
    for seed in range(count):
        yield lookup.ABILITIES[ability](random.Random(seed), facts, questions, split)


def filled(kind: str, split: lookup.Split, text: str) -> list[dict[str, str]]:
    """What the names in any template of this kind must be for `text` to come out."""
    found = []
    for template in KINDS[kind][split].all():
        pattern = re.escape(template)
        seen: set[str] = set()
        for name in re.findall(r"\\{(\w+)\\}", pattern):
            group = f"(?P={name})" if name in seen else f"(?P<{name}>{KNOWN.get(name, '.+?')})"
            pattern = pattern.replace(rf"\{{{name}\}}", group, 1)
            seen.add(name)
        if match := re.fullmatch(pattern, text, re.IGNORECASE):
            found.append(match.groupdict())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_template_is_a_training_template(kind):
    train, held_out = (KINDS[kind][split].all() for split in SPLITS)
    assert train
    assert held_out
    assert train.isdisjoint(held_out)
    # and not even a body is shared, so no lead or tail makes them alike
    parts = [{*templates.bodies, *templates.plain} for templates in KINDS[kind].values()]
    assert parts[0].isdisjoint(parts[1])


def test_all_lists_exactly_what_can_be_drawn():
    templates = Templates(
        bodies=("{x} [is|was] here", "so {x}"), leads=("then ",), tails=(".", "!"), plain=("- {x}",), capitals=False
    )
    rng = random.Random(0)
    drawn = {templates.draw(rng, x="{x}") for _ in range(2000)}
    assert drawn == templates.all()
    assert len(drawn) == 2 * 2 * 3 + 1


@pytest.mark.parametrize("ability", lookup.ABILITIES)
@pytest.mark.parametrize("split", SPLITS)
def test_a_seed_fixes_a_sample(ability, split):
    first, again = (list(samples(ability, split, 5)) for _ in range(2))
    assert first == again
    assert len(set(first)) == 5


@pytest.mark.parametrize("ability", lookup.ABILITIES)
@pytest.mark.parametrize("facts", [1, 2, 3, 16, 40])
def test_every_size_asks_something(ability, facts):
    for sample in samples(ability, "held_out", 20, facts):
        assert sample.questions
        assert all(question.answer for question in sample.questions)
        assert len(sample.sentences) <= max(2, facts)


@pytest.mark.parametrize("ability", ["single", "distractor", "several"])
def test_the_fact_asked_about_is_stated_once(ability):
    for sample in samples(ability, "held_out"):
        assert len({(fact.entity, fact.attribute) for fact in sample.facts}) == len(sample.facts) == 16
        for question in sample.questions:
            (fact,) = asked_about(question, sample.facts)
            assert fact.value == question.answer
            assert sum(stated(line, fact) for line in sample.sentences) == 1


def stated(line: str, fact: lookup.Fact) -> bool:
    return all(part.lower() in line.lower() for part in (f"{fact.attribute} ", fact.entity, fact.value)) or (
        fact.value in values_in(line, fact.entity, fact.attribute)
    )


def asked_about(question: lookup.Question, facts: tuple[lookup.Fact, ...]) -> list[lookup.Fact]:
    """The facts that the question can be read to ask about."""
    readings = {(r["e"].lower(), r["a"].lower()) for r in filled("question", "held_out", question.text)}
    return [fact for fact in facts if (fact.entity.lower(), fact.attribute.lower()) in readings]


def test_the_newest_value_holds():
    changes = 0
    for sample in samples("updated", "held_out"):
        assert len(sample.sentences) == 16
        for question in sample.questions:
            (fact,) = asked_about(question, sample.facts)
            told = [value for line in sample.sentences for value in values_in(line, fact.entity, fact.attribute)]
            assert len(told) >= 2
            assert told[-1] == question.answer
            changes += len(told) - 1
    assert changes > 100


def values_in(line: str, entity: str, attribute: str) -> set[str]:
    """What `line` says the value is: with several ways to read it, the shortest (a tail is no value)."""
    readings = [
        names_["v"]
        for kind in ("fact", "update")
        for names_ in filled(kind, "held_out", line)
        if (names_["e"].lower(), names_["a"].lower()) == (entity.lower(), attribute.lower())
    ]
    return {min(readings, key=len)} if readings else set()


def test_unknown_is_never_said_and_looks_like_what_is():
    near = 0
    for sample in samples("unknown", "held_out"):
        for question in sample.questions:
            assert question.answer == lookup.UNKNOWN
            assert not asked_about(question, sample.facts)
            text = question.text.lower()
            near += any(fact.attribute in text or fact.entity.lower() in text for fact in sample.facts)
    assert near > 0.8 * 240


def test_two_hops_are_needed():
    for sample in samples("two_hop", "held_out"):
        for question in sample.questions:
            (names_,) = filled("two_hop", "held_out", question.text)[:1]
            role = {v for line in sample.sentences for v in values_in(line, names_["e"], names_["r"])}
            assert len(role) == 1
            person = role.pop()
            assert {v for line in sample.sentences for v in values_in(line, person, names_["a"])} == {question.answer}
            assert not [
                line for line in sample.sentences if names_["e"].lower() in line.lower() and question.answer in line
            ]


def test_chains_lead_to_a_number():
    depths = set()
    for sample in samples("chain", "held_out"):
        links = {}
        for line in sample.sentences:
            (names_,) = filled("assignment", "held_out", line)
            assert names_["v"] in links or names_["v"].isdigit(), "a variable is set before it is used"
            links[names_["x"]] = names_["v"]
        for question in sample.questions:
            name = filled("variable", "held_out", question.text)[0]["x"]
            steps = 0
            while name in links:
                name, steps = links[name], steps + 1
            assert name == question.answer
            depths.add(steps)
    assert depths == {2, 3, 4}  # assignments on the way: one to three steps before the number's own


def test_lists_are_complete_and_in_order():
    for sample in samples("list", "held_out"):
        for question in sample.questions:
            names_ = filled("list", "held_out", question.text)[0]
            told = []
            for line in sample.sentences:
                readings = filled("item", "held_out", line)
                (reading,) = {(r["c"], r["e"].lower()) for r in readings}
                if reading == (names_["c"], names_["e"].lower()):
                    told.append(min((r["v"] for r in readings), key=len).rstrip("."))
            assert ", ".join(told) == question.answer
            assert len(told) == len(set(told)) >= 2


def test_marks_are_counted():
    seen = set()
    for sample in samples("count", "held_out"):
        for question in sample.questions:
            word = min((r["w"] for r in filled("count", "held_out", question.text)), key=len)
            marks = sum(bool(re.search(rf"\b{word}\b", line)) for line in sample.sentences)
            assert str(marks) == question.answer
            seen.add(marks)
    assert seen == set(range(1, 10))


def test_a_quote_stands_in_the_text_word_for_word():
    for sample in samples("copy", "held_out"):
        for question in sample.questions:
            assert sum(f'"{question.answer}"' in line for line in sample.sentences) == 1


def test_split_of_names_covers_every_kind_of_name():
    rng = random.Random(0)
    for split in SPLITS:
        for make in (names.thing, names.person, names.variable, names.entity):
            drawn = {make(rng, split) for _ in range(100)}
            assert {lookup.split_of(name) for name in drawn} == {split}
        assert lookup.split_of(names.near(rng, "the amber anchor 12", split)) == split
        assert lookup.split_of(names.near(rng, "Nora Vogel", split)) == split


@pytest.mark.parametrize("ability", lookup.MOST_FACTS)
@pytest.mark.parametrize("split", SPLITS)
def test_no_more_facts_than_there_are_names_for(ability, split):
    most = lookup.MOST_FACTS[ability]
    for seed in range(20):
        assert len(lookup.ABILITIES[ability](random.Random(seed), most, 1, split).sentences) == most
    with pytest.raises(UsageError, match=f"names for {most}"):
        lookup.ABILITIES[ability](random.Random(0), most + 1, 1, split)
