"""Needles: facts where the suite says they are, asked after reading, compared question by question."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest

from longspan import LLM
from longspan.errors import UsageError
from longspan.evals.intervals import paired, wilson
from longspan.evals.needles import Needle, Needles
from longspan.evals.suite import evaluate


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    path = tmp_path_factory.mktemp("needles")
    checkpoints.make("llama", path, max_position_embeddings=500)
    checkpoints.tokenizer(path, "{% for m in messages %}U: {{ m['content'] }}\nA:{% endfor %}")
    return LLM(path, memory="32MB")


def test_each_fact_stands_at_its_depth_in_a_text_of_the_length(llm: LLM):
    for length in (3000, 24_000):
        suite = Needles(length=length, samples=12, depths=6)
        text, drawn = suite.text(llm), suite.drawn()
        assert 0.995 * length - 100 < len(llm.encode(text)) < length
        assert drawn.depths == tuple(sorted([(i + 0.5) / 6 for i in range(6)] * 2))
        for fact, question, depth in zip(drawn.facts, drawn.questions, drawn.depths, strict=True):
            assert abs(text.index(fact.sentence + "\n") / len(text) - depth) < 0.06
            assert question.answer in fact.sentence
        assert Needles(length=length, samples=12, depths=6).text(llm) == text
        assert Needles(length=length, samples=12, depths=6, seed=1).text(llm) != text


def test_longer_texts_have_the_same_facts_and_questions(llm: LLM):
    assert Needles(length=3000, samples=5).drawn() == Needles(length=30_000, samples=5).drawn()


def test_every_question_is_asked_after_reading_and_inside(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    suite = Needles(length=2500, samples=9, depths=3, inside=3)
    seen: list[tuple[float, float]] = []
    made = evaluate(suite, llm, progress=lambda done, total: seen.append((done, total)))
    assert [one.index for one in made.samples] == list(range(9))
    assert seen[0] == (0, 18)
    assert seen[-1] == (18, 18)
    assert all(one.inside is not None for one in made.samples)
    drawn = suite.drawn()
    assert [one.expected for one in made.samples] == [question.answer for question in drawn.questions]
    assert made.results.values["asked"] == 9
    assert made.results.rows[-1][0] == "inside"


def test_the_table_counts_rows_pairs_and_intervals():
    def needle(i: int, right: bool, inside: bool | None) -> Needle:
        return Needle(i, (i % 10 + 0.5) / 10, "?", "x", "x", right, inside, "x")

    rng = random.Random(1)
    samples = [needle(i, rng.random() < 0.8, rng.random() < 0.9) for i in range(200)]
    results = Needles().results(samples)
    won = sum(one.right and not one.inside for one in samples)
    lost = sum(bool(one.inside) and not one.right for one in samples)
    assert (results.values["won"], results.values["lost"]) == (won, lost)
    assert results.values["difference"] == (won - lost) / 200
    low, high = results.values["paired"]
    assert low < results.values["difference"] < high
    assert results.values["interval"] == wilson(sum(one.right for one in samples), 200)
    assert [row[0] for row in results.rows[:2]] == ["0 – 10 %", "10 – 20 %"]
    assert sum(part["asked"] for part in results.values["depths"].values()) == 200
    alone = Needles(inside=0).results([needle(i, True, None) for i in range(10)])
    assert "inside" not in alone.values


@pytest.mark.parametrize(
    ("both", "won", "lost", "neither", "low", "high"),
    [
        # Newcombe 1998, table II, method 10
        (36, 12, 2, 0, 0.0569, 0.3404),
        (36, 14, 0, 0, 0.1528, 0.4167),
        (54, 0, 0, 0, -0.0664, 0.0664),
        (30, 0, 0, 24, -0.0358, 0.0358),
    ],
)
def test_paired_intervals_are_those_of_the_paper(both: int, won: int, lost: int, neither: int, low: float, high: float):
    found = paired(both + lost, won, lost, both + won + lost + neither)
    assert found == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize(
    "settings",
    [{"samples": 0}, {"depths": 0}, {"inside": -1}, {"seed": -1}, {"length": 0}, {"phrasing": "odd"}],
    ids=str,
)
def test_bad_settings_are_refused(settings: dict[str, object]):
    with pytest.raises(UsageError):
        Needles(**settings)  # type: ignore[arg-type]


def test_a_length_that_is_too_short_says_what_is_enough(llm: LLM, folder: Callable[..., Path]):
    with pytest.raises(UsageError, match=r"do not hold 50 facts with a question; give [\d,]+ or more"):
        Needles(length=300, samples=50).text(llm)
