"""The model that the repository carries: it loads, it answers, and scaling is what carries it past its length."""

from __future__ import annotations

import random

import pytest

from longspan import LLM
from longspan.cli import demo
from longspan.engine.llm import EMBEDDED


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(memory="256MB")


def test_it_is_small_and_declares_plain_rope(llm: LLM):
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) <= 20_000_000
    assert (llm.shape.trained, llm.ropes.used(1024), llm.has_template) == (1024, "default", True)
    assert llm.ropes.used(1025).startswith("yarn")


def test_it_answers_inside_its_length(llm: LLM):
    """Twenty facts in documentation, held-out names, ten questions; nearly all right is what it does on average."""
    text = demo.plant(llm, random.Random(5), 1000, 20, 10)
    assert demo.attempt(llm, [text]).right >= 9


def test_it_says_when_it_does_not_know(llm: LLM):
    text = demo.plant(llm, random.Random(6), 1000, 20, 1).text
    said = llm.chat([{"role": "user", "content": f"{text}\n\nWhat is the access code of the amber anchor?"}])
    assert said.text.strip() == "unknown"


def test_a_chat_keeps_to_the_template(llm: LLM):
    facts = "The access code of the amber anchor is 48213.\nThe access code of the azure anchor is 7702.\n"
    said = llm.chat([{"role": "user", "content": f"{facts}\nWhat is the access code of the azure anchor?"}])
    assert said.finish_reason == "stop"
    assert said.text.strip() == "7702"


@pytest.mark.long
def test_yarn_keeps_three_quarters_at_eight_times_the_length(llm: LLM):
    """And without it nothing is left: 100 questions over five texts of 8,192 tokens."""
    long = [demo.plant_at_least(llm, seed, 8192, 20, 20) for seed in range(5)]
    short = [demo.plant(llm, random.Random(100 + seed), 1024, 20, 20) for seed in range(5)]
    inside, scaled = demo.attempt(llm, short), demo.attempt(llm, long)
    assert scaled.right >= 0.75 * inside.right
    bare = demo.attempt(LLM(memory="256MB", rope="checkpoint"), long[:2])
    assert bare.right <= 4
