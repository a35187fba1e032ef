"""The model that the repository carries: it loads, it answers, and what carries it past its length does."""

from __future__ import annotations

from pathlib import Path

import pytest

from longspan import LLM
from longspan.engine.llm import EMBEDDED
from longspan.evals.fact_lookup import FactLookup
from longspan.evals.needles import Needles
from longspan.evals.suite import evaluate


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(memory="256MB")


def test_it_is_small_and_declares_plain_rope(llm: LLM):
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) <= 20_000_000
    assert (llm.shape.trained, llm.ropes.used(1024), llm.has_template) == (1024, "default", True)
    assert llm.ropes.used(1025).startswith("yarn")


WINDOW = Path(__file__).parents[1] / "training" / "embedded" / "variants" / "window"


def test_all_weights_together_are_small():
    files = [*EMBEDDED.iterdir(), *(file for file in WINDOW.parent.rglob("*") if file.is_file())]
    assert sum(file.stat().st_size for file in files if file.suffix == ".safetensors") <= 20_000_000


def test_the_twin_with_windows_answers_too():
    """Every second layer sees 256 tokens and keeps no more; what is selected or evicted is so in the others."""
    twin = LLM(WINDOW, memory="256MB")
    assert [layer.window for layer in twin.shape.layers] == [256, None] * 3
    assert sum(right for right, _ in Needles(samples=10, seed=5).short(twin)) >= 9
    with twin.session() as session:
        session.feed(list(range(3, 1003)))
        assert twin.pool.owned_bytes <= 3 * 2 * (16 + 5) * twin.layout.page_bytes  # 16 pages hold 1,000 tokens
    far = LLM(WINDOW, memory="256MB", select="sketch:pages=8,near=512", place="far:near=512")
    suite = Needles(length=8_000, samples=20, seed=3)
    found, _ = suite.long(far, suite.text(far))
    assert sum(one.right for one in found) >= 15


def test_it_answers_inside_its_length(llm: LLM):
    """Ten held-out facts among sixteen; nearly all right is what it does on average."""
    assert sum(right for right, _ in Needles(samples=10, seed=5).short(llm)) >= 9


def test_it_says_when_it_does_not_know(llm: LLM):
    made = evaluate(FactLookup(length=1000, samples=5, abilities=("unknown",), seed=6), llm)
    assert made.results.values["all"]["right"] >= 4


def test_a_chat_keeps_to_the_template(llm: LLM):
    facts = "The access code of the amber anchor is 48213.\nThe access code of the azure anchor is 7702.\n"
    said = llm.chat([{"role": "user", "content": f"{facts}\nWhat is the access code of the azure anchor?"}])
    assert said.finish_reason == "stop"
    assert said.text.strip() == "7702"


def test_selection_finds_facts_far_beyond_the_trained_length():
    """Twenty facts at even depths of 12,000 tokens, asked after reading."""
    llm = LLM(memory="256MB", select="sketch:pages=8,near=512", place="far:near=512")
    suite = Needles(length=12_000, samples=20, seed=3)
    found, _ = suite.long(llm, suite.text(llm))
    assert sum(one.right for one in found) >= 18


@pytest.mark.long
def test_yarn_keeps_three_quarters_at_eight_times_the_length(llm: LLM):
    """And without it nothing is left: 100 facts in five texts of 8,192 tokens."""
    suites = [Needles(length=8192, samples=20, phrasing="plain", seed=seed) for seed in range(5)]

    def right(engine: LLM, suite: Needles) -> int:
        return sum(one.right for one in suite.long(engine, suite.text(engine))[0])

    inside = sum(right for suite in suites for right, _ in suite.short(llm))
    assert sum(right(llm, suite) for suite in suites) >= 0.75 * inside
    bare = LLM(memory="256MB", rope="checkpoint")
    with pytest.warns(UserWarning, match="more than the 1,024"):
        assert sum(right(bare, suite) for suite in suites[:2]) <= 4
