import random
from collections import Counter

import pytest

from longspan.errors import UsageError
from longspan.evals import lookup
from longspan.evals.lookup import names

TEXT = "".join(f"line {i} of a text that says nothing about anything\n" for i in range(200))


def facts(seed: int, count: int = 20, split: lookup.Split = "train", **options) -> list[lookup.Fact]:
    return lookup.make_facts(random.Random(seed), count, split, **options)


def sentences(drawn: list[lookup.Fact]) -> list[str]:
    return [fact.sentence for fact in drawn]


def test_a_seed_fixes_everything():
    for split in ("train", "held_out"):
        assert facts(3, split=split) == facts(3, split=split)
        assert facts(3, split=split) != facts(4, split=split)
    first, second = (lookup.plant(TEXT, sentences(facts(3)), random.Random(5)) for _ in range(2))
    assert first == second


def test_names_belong_to_their_split():
    train, held_out = set(), set()
    for seed in range(500):
        options = {"same_attribute": 0.5, "same_entity": 0.2, "near_entity": 0.6}
        train |= {fact.entity for fact in facts(seed, **options)}
        held_out |= {fact.entity for fact in facts(seed, split="held_out", **options)}
    assert len(train) > 3000
    assert len(held_out) > 1000
    assert train.isdisjoint(held_out)
    assert {lookup.split_of(entity) for entity in train} == {"train"}
    assert {lookup.split_of(entity) for entity in held_out} == {"held_out"}


def test_the_split_never_moves():
    """A trained model depends on it: these were drawn when the embedded model was trained."""
    pairs = [f"the {a} {n}" for a in names.ADJECTIVES for n in names.NOUNS]
    share = sum(lookup.split_of(entity) == "held_out" for entity in pairs) / len(pairs)
    assert 0.08 < share < 0.12
    assert lookup.split_of("the amber anchor") == "train"
    assert lookup.split_of("the amber drum") == "held_out"


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("phrasing", ["train", "held_out", "plain"])
def test_a_sentence_states_its_fact_and_a_question_names_it(split, phrasing):
    rng = random.Random(0)
    for fact in lookup.make_facts(rng, 300, split, phrasing=phrasing):
        question = lookup.ask(rng, fact, phrasing)
        for text in (fact.sentence, question.text):
            assert fact.attribute.lower() in text.lower()
            assert fact.entity.lower() in text.lower()
        assert fact.value in fact.sentence
        assert fact.value == question.answer
        assert fact.sentence.startswith(fact.sentence[0].upper())


def test_each_question_has_one_answer():
    for seed in range(100):
        drawn = facts(seed, 40, same_attribute=0.9, same_entity=0.5)
        assert len({(fact.entity, fact.attribute) for fact in drawn}) == 40
        for attribute in names.NUMERIC_ATTRIBUTES:
            values = [fact.value for fact in drawn if fact.attribute == attribute]
            # two-digit attributes may run out of fresh draws, nothing else may
            assert len(values) == len(set(values))


def test_distractors_follow_the_options():
    plain = [f for s in range(50) for f in facts(s, 16, same_attribute=0, same_entity=0, near_entity=0)]
    one = facts(0, 16, same_attribute=1)
    assert len({fact.attribute for fact in one}) == 1
    assert len({fact.entity for fact in facts(0, 16, same_entity=1, near_entity=0)}) == 1
    near = facts(0, 16, same_entity=0, near_entity=1)
    words = Counter(word for fact in near for word in set(fact.entity.split()[1:]))
    assert words.most_common(1)[0][1] > 3
    assert len({fact.entity for fact in plain}) > 700


def test_without_people_there_are_only_things():
    for seed in range(50):
        for fact in facts(seed, 20, split="held_out", near_entity=0.5, people=False):
            assert fact.entity.startswith("the ")
            assert fact.attribute not in names.ROLES


def test_options_that_leave_nothing_to_say_give_way_to_new_entities():
    drawn = facts(0, 60, same_attribute=1, same_entity=1, near_entity=0)
    assert len({(fact.entity, fact.attribute) for fact in drawn}) == 60


def test_planted_facts_are_lines_at_their_depths():
    drawn = facts(1, 5)
    depths = [0.0, 1.0, 0.25, 0.5, 0.5]
    planted = lookup.plant(TEXT, sentences(drawn), random.Random(0), depths)
    lines = planted.splitlines()
    for fact, depth in zip(drawn, depths, strict=True):
        assert lines.count(fact.sentence) == 1
        assert abs(planted.index(fact.sentence) / len(planted) - depth) < 0.02
    assert "".join(line + "\n" for line in lines if line not in sentences(drawn)) == TEXT


def test_planting_without_depths_scatters_and_keeps_the_order():
    drawn = facts(2, 30)
    planted = lookup.plant(TEXT, sentences(drawn), random.Random(0))
    places = [planted.index(fact.sentence) / len(planted) for fact in drawn]
    assert places == sorted(places)
    assert min(places) < 0.2
    assert max(places) > 0.8


def test_planting_in_an_empty_text_or_one_without_a_final_newline():
    drawn = facts(2, 2)
    assert sorted(lookup.plant("", sentences(drawn), random.Random(0)).splitlines()) == sorted(sentences(drawn))
    assert lookup.plant("end", sentences(drawn[:1]), random.Random(0), [1.0]) == f"end\n{drawn[0].sentence}\n"


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="one depth per sentence"):
        lookup.plant(TEXT, sentences(facts(0, 3)), random.Random(0), [0.5])
    with pytest.raises(UsageError, match="from 0 to 1"):
        lookup.plant(TEXT, sentences(facts(0, 1)), random.Random(0), [50.0])
    with pytest.raises(UsageError, match="train, held_out"):
        facts(0, split="test")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="exceed 1"):
        facts(0, same_entity=0.8, near_entity=0.8)


@pytest.mark.parametrize("answer", ["48213", " 48213", "48213.", " 48213.\n", "48213 ."])
def test_score_takes_the_whole_answer(answer):
    assert lookup.score(answer, "48213")


@pytest.mark.parametrize("answer", ["", "4821", "482130", "It is 48213", "48213 or 1", "48213..", "4 8213"])
def test_score_takes_nothing_else(answer):
    assert not lookup.score(answer, "48213")


def test_prompt_ends_in_the_question():
    question = lookup.Question("What is the age of the amber anchor?", "12")
    assert lookup.prompt("text\n\n", question) == f"text\n\n{question.text}"
