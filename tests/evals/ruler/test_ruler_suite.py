"""RULER as a suite: scores, averages and the effective length."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path

import checkpoints
import pytest

from longspan import LLM
from longspan.evals.ask import Said
from longspan.evals.cases import Case, Scored
from longspan.evals.ruler.suite import THRESHOLD, Ruler
from longspan.evals.ruler.tasks import GENERATED
from longspan.evals.suite import evaluate


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    path = tmp_path_factory.mktemp("ruler")
    checkpoints.make("llama", path)
    checkpoints.tokenizer(path)
    return LLM(path, memory="32MB")


def saying(words: Callable[[Case], str]) -> Callable[[Seq[Case], object], list[list[Said]]]:
    return lambda cases, progress: [[Said(words(case), case.length)] for case in cases]


def scored(group: str, length: int, index: int, score: float) -> Scored:
    return Scored(group, index, 0, length, length, "?", ("x",), "every", "x", score)


def test_who_knows_all_has_all_points_and_who_knows_nothing_none(llm: LLM):
    suite = Ruler(lengths=(3000, 4000), samples=2)
    right = evaluate(suite, llm, answerer=saying(lambda case: " and ".join(case.questions[0].references).upper()))
    assert right.results.values["effective_length"] == 4000
    for figures in right.results.values["lengths"].values():
        assert set(figures["tasks"]) == set(GENERATED)
        assert {one["score"] for one in (*figures["tasks"].values(), figures["average"])} == {100}
    wrong = evaluate(suite, llm, answerer=saying(lambda case: "I do not know."))
    assert {figures["average"]["score"] for figures in wrong.results.values["lengths"].values()} == {0}
    assert wrong.results.values["effective_length"] is None
    assert "none of these" in wrong.results.notes[0]


def test_a_part_of_the_references_is_a_part_of_the_points(llm: LLM):
    suite = Ruler(length=3000, samples=1, tasks=("niah_multivalue", "vt", "fwe"))
    made = evaluate(suite, llm, answerer=saying(lambda case: case.questions[0].references[0]))
    tasks = made.results.values["lengths"]["3000"]["tasks"]
    assert {name: one["score"] for name, one in tasks.items()} == pytest.approx(
        {"niah_multivalue": 25, "vt": 20, "fwe": 100 / 3}
    )


def test_the_effective_length_is_the_longest_that_reaches_the_threshold():
    suite = Ruler(lengths=(10, 20, 30), tasks=("vt", "cwe"), samples=2)
    assert (suite.length, suite.count()) == (30, 12)
    points = {10: (0.5, 0.9), 20: (THRESHOLD / 100, THRESHOLD / 100), 30: (1.0, 0.6)}
    samples = [
        scored(name, length, index, score)
        for length, scores in points.items()
        for name, score in zip(("vt", "cwe"), scores, strict=True)
        for index in range(2)
    ]
    results = suite.results(samples)
    assert results.values["effective_length"] == 20
    assert results.header == ("task", "10", "20", "30")
    assert results.rows[:3] == (
        ("vt", "50.0", "85.6", "100.0"),
        ("cwe", "90.0", "85.6", "60.0"),
        ("average", "70.0", "85.6", "80.0"),
    )
    assert "2 of RULER's 13 tasks" in results.notes[-1]


def test_the_interval_of_the_average_is_of_a_mean_of_means():
    samples = [scored(name, 10, index, float(index < 8)) for name in ("vt", "cwe") for index in range(16)]
    figures = Ruler(length=10, samples=16).results(samples).values["lengths"]["10"]
    # variance of eight of sixteen: 16 × 50² / 15; of the mean of two such means: a sixteenth of it, halved
    reach = 1.959963984540054 * (16 * 2500 / 15 / 16 / 2) ** 0.5
    assert figures["average"]["interval"] == pytest.approx((50 - reach, 50 + reach))
    one = Ruler(length=10, samples=1).results([scored("vt", 10, 0, 1.0)]).values["lengths"]["10"]
    assert one["average"] == {"score": 100, "asked": 1, "interval": None}


def test_what_is_left_out_is_said():
    results = Ruler(length=10, samples=1).results([scored(name, 10, 0, 1.0) for name in GENERATED])
    assert results.values["left_out"] == ["qa_1", "qa_2"]
    assert any("qa_1 and qa_2, which need --qa FILE" in note for note in results.notes)


def test_a_model_answers_and_the_file_goes_on(llm: LLM, tmp_path: Path):
    suite, raw = Ruler(length=2500, samples=1, tasks=("niah_single_1", "fwe", "cwe")), tmp_path / "raw.jsonl"
    whole = evaluate(suite, llm, raw=raw)
    assert [one.group for one in whole.samples] == ["niah_single_1", "fwe", "cwe"]
    assert all(one.tokens < 2500 for one in whole.samples)
    lines = raw.read_text(encoding="utf-8").splitlines(keepends=True)
    raw.write_text("".join(lines[:-1]), encoding="utf-8")
    assert evaluate(suite, llm, raw=raw).samples == whole.samples
