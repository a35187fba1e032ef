"""Training rows hold nothing of the held-out split, and say what they should."""

import random
import re
from collections.abc import Iterator

import numpy as np
import pytest
from corpus import held_out_texts, training_texts
from data import ABILITY_WEIGHTS, Row, Rows, Text
from tokenizer import train_bpe
from tokenizers import Tokenizer

from longspan.engine.llm import EMBEDDED
from longspan.evals import lookup, text
from longspan.evals.lookup import names
from longspan.evals.lookup.phrasings import KINDS

THING = rf"the (?:{'|'.join((*names.ADJECTIVES, *names.NOUNS))}) (?:{'|'.join(names.NOUNS)})(?: \d+)?(?!\w)"
PERSON = rf"(?:{'|'.join(names.FIRST_NAMES)}) (?:{'|'.join(names.LAST_NAMES)})\b"
VARIABLE = rf"\b(?:{'|'.join(names.CALL_SIGNS)})\d+\b"
GROUPS = {
    "e": f"{THING}|{PERSON}",
    "a": "|".join(names.ATTRIBUTES),
    "r": "|".join(names.ROLES),
    "c": "|".join(names.COLLECTIONS),
    "x": VARIABLE,
    "w": "|".join(names.NOUNS),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The embedded model's own."""
    return Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))


@pytest.fixture(scope="module")
def rows(tokenizer) -> Rows:
    return Rows(tokenizer, Text(tokenizer, training_texts(0)[:20]), "train")


def drawn(rows: Rows, count: int) -> Iterator[Row]:
    """Rows as all stages of a training run draw them."""
    rng = random.Random(0)
    for index in range(count):
        length = (128, 256, 512, 1024)[index % 4]
        yield rows.draw(rng, length, 0.05, rng.choice((0.0, 0.5)), rng.choice((0.0, 0.5)))


def sentences(rows: Rows, count: int) -> Iterator[str]:
    """The lines of those rows, questions without their answers; not the last, which may be cut anywhere."""
    for row in drawn(rows, count):
        for line in rows.tokenizer.decode(row.ids.tolist(), skip_special_tokens=False).split("\n")[:-1]:
            yield re.sub(r"<\|answer\|>.*|<\|\w+\|>", "", line)


def test_no_held_out_name_is_in_a_training_row(rows):
    found = set()
    for line in sentences(rows, 1200):
        found |= {name[0].lower() + name[1:] for name in re.findall(THING, line, re.IGNORECASE)}
        found |= set(re.findall(PERSON, line)) | set(re.findall(VARIABLE, line))
    assert len(found) > 5000
    assert {name for name in found if lookup.split_of(name) != "train"} == set()


def test_no_held_out_pair_of_entity_and_attribute_is_in_a_training_row(rows):
    """More than the names ask for: the pairs that the suite draws, looked for in every training sentence."""
    rng = random.Random(0)
    held_out = {(f.entity.lower(), f.attribute) for _ in range(200) for f in lookup.make_facts(rng, 16, "held_out")}
    entity, attribute = re.compile(f"{THING}|{PERSON}", re.IGNORECASE), re.compile(GROUPS["a"])
    pairs = {
        (e.lower(), a)
        for line in sentences(rows, 400)
        for e in entity.findall(line)
        for a in attribute.findall(line.lower())
    }
    assert len(held_out) > 3000
    assert len(pairs) > 3000
    assert pairs.isdisjoint(held_out)


def test_no_held_out_template_is_in_a_training_row(rows):
    patterns = [
        re.compile(
            re.sub(r"\\\{(\w+)\\\}", lambda match: f"(?:{GROUPS.get(match[1], '.+')})", re.escape(template)),
            re.IGNORECASE,
        )
        for kind in KINDS.values()
        for template in kind["held_out"].all()
    ]
    either = re.compile("|".join(f"(?:{pattern.pattern})" for pattern in patterns), re.IGNORECASE)
    # the patterns do find the held-out ones
    rng = random.Random(0)
    for ability in lookup.ABILITIES.values():
        sample = ability(rng, 8, 2, "held_out")
        assert all(either.fullmatch(line) for line in (*sample.sentences, *(q.text for q in sample.questions)))
    lines = [line for line in sentences(rows, 200) if line]
    assert len(lines) > 5000
    assert [line for line in lines if either.fullmatch(line)] == []


def test_no_held_out_document_is_trained_on():
    train, held_out = ({one.name for one in text.documents(split)} for split in ("train", "held_out"))
    assert train
    assert held_out
    assert train.isdisjoint(held_out)
    assert set(training_texts(0)).isdisjoint(held_out_texts())


def test_a_row_is_as_long_as_asked_and_marks_its_answers(rows):
    answers = 0
    for row in drawn(rows, 200):
        assert len(row.ids) == len(row.weights) in (128, 256, 512, 1024)
        for start, end in row.answers:
            assert 0 < start < end <= len(row.ids)
            assert (row.weights[start:end] > 0).all()
            answers += 1
    assert answers > 500


@pytest.mark.parametrize("ability", ABILITY_WEIGHTS)
def test_the_marked_answers_are_the_answers(rows, ability):
    rng = random.Random(0)
    for _ in range(10):
        row = rows.ask(rng, 256, [ability])
        whole = rows.tokenizer.decode(row.ids.tolist(), skip_special_tokens=False)
        said = re.findall(r"<\|answer\|> (.*)<\|end\|>", whole)
        marked = [
            rows.tokenizer.decode(row.ids[start:end].tolist(), skip_special_tokens=False) for start, end in row.answers
        ]
        assert [f" {one}<|end|>" for one in said] == marked
        assert said


def test_every_answer_follows_its_question(rows, monkeypatch):
    monkeypatch.setattr("data.QUESTION_FIRST_SHARE", 0)
    rng = random.Random(0)
    later = unfilled = 0
    for _ in range(40):
        row = rows.ask(rng, 256, ["single"])
        whole = rows.tokenizer.decode(row.ids.tolist(), skip_special_tokens=False)
        for question in re.findall(r"\n(.*)<\|answer\|>", whole):
            assert re.search(GROUPS["e"], question, re.IGNORECASE), whole
            assert re.search(GROUPS["a"], question, re.IGNORECASE), whole
            later += 1
        unfilled += whole.endswith("\n" * 30)
    assert later > 100
    # text fills a row up, but for the few that have nothing but facts
    assert unfilled <= 4


@pytest.mark.parametrize("ability", [name for name in ABILITY_WEIGHTS if name != "count"])
def test_a_look_shows_where_the_answer_stands(rows, ability):
    rng = random.Random(0)
    looks = 0
    for _ in range(20):
        row = rows.ask(rng, 256, [ability])
        due = {look.position: look for look in row.looks}
        for start, end in row.answers:
            answer = rows.tokenizer.decode(row.ids[start : end - 1].tolist())
            if answer == " unknown":
                assert due[start - 1].sources == (0,)
                continue
            for place in range(start, end - 1):
                if (look := due.get(place - 1)) is not None:
                    looks += 1
                    assert {row.ids[source] for source in look.sources} == {row.ids[place]}
                    assert max(look.sources) < place
            # every token of a value is shown; of a list not the commas, of a quotation not its ends
            shown = sum(place - 1 in due for place in range(start, end - 1))
            least = {"copy": 0.4, "list": 0.5}.get(ability, 1.0)
            assert shown >= least * (end - 1 - start), answer
    assert looks > 50 or ability == "unknown"


def test_the_second_step_is_shown_after_the_person_in_between(rows):
    rng = random.Random(0)
    both = 0
    for _ in range(20):
        row = rows.ask(rng, 256, ["two_hop"])
        for look in row.looks:
            before = rows.tokenizer.decode(row.ids[max(0, look.first[0] - 1) : look.first[0] + 1].tolist()).strip()
            if look.first != look.sources and re.fullmatch(PERSON, before):
                both += 1
    assert both > 50


def test_an_update_looks_at_the_statement_that_it_replaces(rows):
    rng = random.Random(0)
    new = replaced = 0

    def line_of(row: Row, place: int) -> str:
        before, after = (rows.tokenizer.decode(ids.tolist()) for ids in (row.ids[:place], row.ids[place:]))
        return (before.split("\n")[-1] + after.split("\n")[0]).lower()

    for _ in range(20):
        row = rows.ask(rng, 256, ["updated"])
        for look in row.looks:
            if look.sources:
                continue
            if look.first == (0,):
                new += 1
                continue
            here = line_of(row, look.position)
            for place in look.first:
                there = line_of(row, place)
                assert place < look.position
                assert here != there
                for group in "ea":
                    named = re.compile(rf"\b(?:{GROUPS[group]})\b", re.IGNORECASE)
                    said, replacing = (named.findall(line)[:1] for line in (there, here))
                    assert said == replacing
                    assert said
            replaced += 1
    assert new > 100
    assert replaced > 100


def test_positions_know_what_is_spoken_of(rows):
    rng = random.Random(0)
    pool = {
        word.lower()
        for name in (
            *names.ADJECTIVES, *names.NOUNS, *names.FIRST_NAMES, *names.LAST_NAMES, *names.CALL_SIGNS,
            *names.ATTRIBUTES, *names.COLLECTIONS,
        )
        for word in name.split()
    }  # fmt: skip
    for _ in range(20):
        row = rows.ask(rng, 256, ["distractor"])
        places = {place for place, _ in row.named}
        assert all({start - 1, start} <= places for start, _ in row.answers)
        for place, words in row.named:
            said = [word for word in rows.tokenizer.decode(list(words)).lower().split() if not word.isdigit()]
            assert said
            assert set(said) <= pool
            # all of it was said on this line, before
            line = rows.tokenizer.decode(row.ids[: place + 1].tolist()).split("\n")[-1].lower()
            assert all(word in line for word in said) or "<|answer|>" in rows.tokenizer.decode(
                row.ids[: place + 1].tolist(), skip_special_tokens=False
            )


def test_every_ability_is_trained():
    assert list(ABILITY_WEIGHTS) == list(lookup.ABILITIES)


@pytest.mark.long
def test_words_of_names_are_single_tokens():
    tokenizer = train_bpe(training_texts(0), 2048, 0)
    pools = (names.ADJECTIVES, names.NOUNS, names.FIRST_NAMES, names.LAST_NAMES, names.CITIES, names.FRUITS)
    long = [w for pool in pools for w in pool if len(tokenizer.encode(f" {w}", add_special_tokens=False).ids) > 1]
    assert long == []
    assert tokenizer.encode(" 48213", add_special_tokens=False).tokens == ["Ġ48", "21", "3"]
    pairs = [f"{number:02}" for number in range(100)]
    assert {token for pair in pairs for token in (f"Ġ{pair}", pair)} <= set(tokenizer.get_vocab())


def test_a_seed_fixes_the_rows(rows):
    first, again = (list(drawn(rows, 20)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.weights, other.weights)
