"""What a question costs, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from longspan.errors import UsageError
from longspan.plan.cost import LOOKUP, PASSAGE, PASSAGES, QUESTION, Timing, Use, choose, ways
from longspan.plan.tasks import TASKS

FEW = PASSAGES * PASSAGE + QUESTION
FAST = Timing(
    read=lambda tokens: tokens / 10_000,
    more=lambda cached, new: new / 10_000,
    step=lambda tokens: 0.01,
    fits=200_000,
    answer=100,
)
FLOPS = 1e14


def test_each_way_by_hand():
    found = ways(FAST, Use(100_000, questions=50, updates=2, price=3.6), FLOPS)
    question, answer = QUESTION / 10_000, 1.0
    assert found["cold"].ttft == pytest.approx(10 + question)
    assert found["cold"].seconds == pytest.approx(10 + question + answer)
    assert found["cached"].ttft == pytest.approx(question)
    assert found["cached"].seconds == pytest.approx(question + answer + 10 / 25)  # 25 questions an update
    assert found["rag"].seconds == pytest.approx(LOOKUP + FEW / 10_000 + answer + 2 * 110e6 * 1e5 / FLOPS / 25)
    assert found["hybrid"].ttft == pytest.approx(LOOKUP + (32768 + QUESTION) / 10_000)
    for way in found.values():
        assert way.possible
        assert way.dollars == pytest.approx(way.seconds * 0.001)


def test_questions_from_which_a_kept_text_costs_no_more():
    use = Use(100_000, questions=50, updates=2)
    even = choose(FAST, use, FLOPS).even
    at = ways(FAST, Use(100_000, questions=even, updates=1), FLOPS)
    assert at["cached"].seconds == pytest.approx(at["rag"].seconds)
    slow = Timing(FAST.read, lambda cached, new: 100.0, FAST.step, FAST.fits, FAST.answer)
    assert choose(slow, use, FLOPS).even is None


def test_a_corpus_that_does_not_fit_is_retrieved():
    choice = choose(FAST, Use(10_000_000), FLOPS)
    assert choice.best == "rag"
    assert not choice.ways["cold"].possible
    assert not choice.ways["cached"].possible
    assert choice.even is None
    assert "does not fit; at most 200,000" in choice.why[0]
    assert choose(FAST, Use(10_000_000), FLOPS, TASKS["book"]).best == "hybrid"


def test_many_questions_keep_the_text_and_many_updates_do_not():
    assert choose(FAST, Use(100_000, questions=10_000, updates=1), FLOPS).best == "cached"
    assert choose(FAST, Use(100_000, questions=100, updates=100), FLOPS).best == "rag"


@pytest.mark.parametrize(("answering", "best"), [(1.0, "cached"), (3.0, "rag")])
def test_a_text_that_fits_is_read_whole_up_to_twice_the_time(answering, best):
    slower = Timing(FAST.read, lambda cached, new: answering, FAST.step, FAST.fits, FAST.answer)
    choice = choose(slower, Use(100_000, questions=1e6), FLOPS)
    assert choice.ways["cached"].seconds > choice.ways["rag"].seconds
    assert choice.best == best
    assert "2407.16833" in choice.why[-1] or "2406.15319" in choice.why[-1]


def test_what_needs_any_place_is_read_whole():
    assert choose(FAST, Use(100_000, questions=10, updates=10), FLOPS, TASKS["book"]).best in ("cold", "cached")


def test_attribution_and_reach_ask_for_both():
    assert choose(FAST, Use(100_000, questions=10_000, attribution=True), FLOPS).best == "hybrid"
    reached = choose(FAST, Use(100_000, questions=10_000), FLOPS, reach=32768)
    assert reached.best == "hybrid"
    assert any("32,768 tokens well" in reason for reason in reached.why)


def test_a_late_first_token_is_no_way():
    choice = choose(FAST, Use(150_000, questions=0.5, updates=24, ttft=1.0), FLOPS)
    assert any("cold: the first token comes after 15 s" in reason for reason in choice.why)
    assert any("hybrid: the first token comes after 3.33 s" in reason for reason in choice.why)
    assert choice.best == "rag"
    assert choose(FAST, Use(150_000, attribution=True, ttft=1.0), FLOPS).best == "rag"
    assert choose(FAST, Use(150_000, ttft=0.1), FLOPS).best == "cached"  # retrieval is late, a kept text is not
    none = choose(FAST, Use(150_000, ttft=0.001), FLOPS)
    assert none.best == "none"
    assert none.why[-1].startswith("no way is left")


@pytest.mark.parametrize("ttft", [None, 0.001, 0.1, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("fits", [100, 5000, 40_000, 200_000])
@pytest.mark.parametrize("task", [None, TASKS["book"]])
@pytest.mark.parametrize(("attribution", "reach"), [(False, None), (True, None), (False, 4096)])
def test_the_best_fits_and_is_in_time(ttft, fits, task, attribution, reach):
    use = Use(150_000, attribution=attribution, ttft=ttft)
    choice = choose(dataclasses.replace(FAST, fits=fits), use, FLOPS, task, reach)
    left = {name for name, way in choice.ways.items() if way.possible and (ttft is None or way.ttft <= ttft)}
    assert choice.best in left or (choice.best == "none" and not left & {"rag", "hybrid"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"corpus": 0},
        {"corpus": 1, "questions": 0},
        {"corpus": 1, "questions": -1},
        {"corpus": 1, "updates": -1},
        {"corpus": 1, "price": -0.1},
        {"corpus": 1, "price": float("nan")},
        {"corpus": 1, "ttft": 0},
        {"corpus": 1, "questions": float("inf")},
    ],
)
def test_values_that_make_no_sense(wrong):
    with pytest.raises(UsageError):
        Use(**wrong)
