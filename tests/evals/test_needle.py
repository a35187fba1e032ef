"""Needles and passkeys: where they stand, how they are asked about, what the table says."""

from __future__ import annotations

import dataclasses
import re

import pytest

from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals import needle, passkey
from longspan.evals.ask import Said, scored
from longspan.evals.needle import Needle
from longspan.evals.passkey import Passkey
from longspan.evals.suite import evaluate

TEXT = "".join(f"line {i} of a text about nothing\n" for i in range(300))


@pytest.mark.parametrize("suite", [Passkey(lengths=(500, 3000), samples=5), Passkey(length=700, phrasing="fact")])
def test_the_key_stands_once_in_what_is_asked_for(llama, suite):
    depths = []
    for case in suite.cases(llama, None):
        (question,) = case.questions
        ids = prompts.conversation(llama, case.text, [question.text], begins=question.begins)
        assert case.length - 60 <= len(ids) + question.room <= case.length
        (key,) = question.references
        assert re.fullmatch(r"\d{5}", key)
        assert set(re.findall(r"\d+", case.text)) - {key} == set(re.findall(r"\d+", question.text))
        prompt = llama.tokenizer.decode(ids)
        assert prompt.endswith("What is the pass key? The pass key is" if question.begins else "?\nAnswer:")
        assert case.text.startswith(passkey.INTRODUCTION) == (suite.phrasing == "original")
        assert case.text[round(question.depth * len(case.text)) :].startswith("The pass")
        depths.append(question.depth)
    assert max(depths) - min(depths) > 0.4


def test_longer_texts_have_the_same_keys_and_more_samples_only_append(llama):
    many = list(Passkey(lengths=(500, 900), samples=4).cases(llama, None))
    assert [case.questions[0].references for case in many[:4]] == [case.questions[0].references for case in many[4:]]
    few = list(Passkey(length=500, samples=2).cases(llama, None))
    assert few == many[:2]
    assert [case.index for case in many] == list(range(8))


def test_a_needle_stands_at_every_depth_of_every_length(llama):
    suite = Needle(lengths=(900, 2500), depths=5, samples=2)
    cases = list(suite.cases(llama, TEXT))
    assert [case.length for case in cases] == [900] * 10 + [2500] * 10
    wanted = [depth for _ in range(2) for depth in (0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1)]
    for case, depth in zip(cases, wanted, strict=True):
        (question,) = case.questions
        assert abs(question.depth - depth) < 0.1
        assert question.metric == "exact"
        line = case.text[round(question.depth * len(case.text)) :].splitlines()[0]
        assert question.references[0] in line
        assert case.text.count("\n") > 5
    assert {case.text for case in cases} == {case.text for case in suite.cases(llama, TEXT)}


def test_several_needles_spread_from_the_depth_on(llama):
    (case,) = Needle(length=3000, depths=1, samples=1, needles=4).cases(llama, TEXT)
    depths = [question.depth for question in case.questions]
    assert depths == pytest.approx([0.5, 0.625, 0.75, 0.875], abs=0.05)
    assert len({question.references for question in case.questions}) == 4


def test_a_needle_of_ones_own(llama):
    own = {"needle": ("The best thing to do is to eat figs.", "Figs grow in Izmir."), "answer": ("eat figs", "Izmir")}
    suite = Needle(length=1200, depths=2, samples=1, question="What is best, and where?", **own)
    assert suite.count() == 2
    for case in suite.cases(llama, TEXT):
        assert all(f"{sentence}\n" in case.text for sentence in own["needle"])
        (question,) = case.questions
        assert (question.depth, question.room) == (None, 64)
        half = scored(case, 0, question, Said("To EAT FIGS.", 1))
        assert half.score == 0.5
    alone = Needle(length=1200, depths=1, samples=1, question="What?", needle=own["needle"][:1], answer=("figs",))
    (case,) = alone.cases(llama, TEXT)
    assert case.questions[0].depth == pytest.approx(0.5, abs=0.05)


def test_the_table_is_a_map_of_length_and_depth(llama):
    suite = Needle(lengths=(900, 1500), depths=3, samples=2)

    def answer(cases, progress):
        """Right where the text is short, or the needle at the end; once right in the middle."""
        found = []
        for case in cases:
            right = case.length == 900 or case.index % 6 > 3 or case.index % 6 == 2
            found.append([Said(case.questions[0].references[0] if right else "no", 1)])
        return found

    made = evaluate(suite, llama, TEXT, answerer=answer)
    assert made.results.header == ("tokens", "0 %", "50 %", "100 %", "score", "asked", "95 % interval")
    assert [row[:6] for row in made.results.rows] == [
        ("900", "100", "100", "100", "100.0 %", "6"),
        ("1,500", "0", "50", "100", "50.0 %", "6"),
    ]
    cells = made.results.values["cells"]
    assert [(one["length"], one["depth"], one["score"], one["asked"]) for one in cells] == [
        *((900, depth, 1.0, 2) for depth in (0.0, 0.5, 1.0)),
        *((1500, 0.0, 0.0, 2), (1500, 0.5, 0.5, 2), (1500, 1.0, 1.0, 2)),
    ]
    assert made.results.values["lengths"]["1500"]["score"] == 0.5
    assert made.results.values["all"]["interval"][0] > 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Needle(depths=0), "depths: 0"),
        (lambda: Needle(needle=("a",)), "go together"),
        (lambda: Needle(question="a?"), "go together"),
        (lambda: Needle(needle=("a",), question="a?", answer=("a",), needles=2), "repeat --needle"),
        (lambda: Needle(phrasing="odd"), "known: held_out, plain"),
        (lambda: Needle(lengths=(100, 0)), "length: 0"),
        (lambda: Passkey(length=5, lengths=(100,)), "give one of the two"),
        (lambda: Passkey(phrasing="odd"), "known: original, fact"),
        (lambda: Passkey(samples=0), "samples: 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("suite", [Needle(length=60), Passkey(length=60)], ids=["needle", "passkey"])
def test_a_length_that_is_too_short_says_what_is_enough(llama, suite):
    with pytest.raises(UsageError, match=r"length: 60 tokens do not hold .*; give [\d,]+ or more") as why:
        next(suite.cases(llama, TEXT))
    least = int(str(why.value).partition("give ")[2].split()[0].replace(",", ""))
    next(dataclasses.replace(suite, length=least).cases(llama, TEXT))


def test_the_length_becomes_the_longest():
    assert (Needle(lengths=(10, 30, 20, 30)).length, Needle(lengths=(10, 30, 30)).lengths) == (30, (10, 30))
    assert needle.name(1 / 3) == "33.33 %"
