from __future__ import annotations

import json

import evaluations
import pytest

from longspan.errors import UsageError
from longspan.evals.records import label, load, read


def test_answers_and_windows_are_told_apart():
    asked, foreseen = read(evaluations.answers(), "x"), read(evaluations.windows(), "x")
    assert (asked.windows, asked.regime, asked.lengths) == (False, "agnostic", (1024,))
    assert (foreseen.windows, foreseen.regime, foreseen.lengths) == (True, None, (512,))
    assert foreseen.samples[0].weight == 512
    assert sum(tokens for tokens, _ in foreseen.samples[0].deciles) == pytest.approx(512)


def test_facts_of_one_text_are_cases_of_their_own():
    needles = [
        {
            "index": i,
            "depth": 0.1 * i,
            "question": f"q{i}",
            "expected": "a",
            "answer": "a",
            "right": i > 1,
            "inside": None,
        }
        for i in range(4)
    ]
    told = evaluations.evaluation("needles", needles, regime="agnostic", settings={"length": 2048}, seed=0)
    record = read(told, "x")
    assert [one.value for one in record.samples] == [0.0, 0.0, 1.0, 1.0]
    assert len({one.case for one in record.samples}) == 4
    assert record.lengths == (2048,)


def test_a_plan_without_a_name_is_called_by_what_it_has():
    assert label(evaluations.USUAL) == "full"
    assert label({**evaluations.USUAL, "format": "int8", "evict": "h2o:budget=64"}) == "int8 h2o:budget=64"


BAD = [
    ({"samples": []}, "no samples"),
    ({"regime": None}, "regime None; known: agnostic, aware"),
    ({"regime": "both"}, "regime 'both'"),
    ({"samples": [{"score": 1}]}, "no 'group'"),
    ({"samples": 3}, "not the JSON of an evaluation"),
    ({"settings": None}, "not the JSON of an evaluation"),
]


@pytest.mark.parametrize(("change", "says"), BAD)
def test_what_is_no_evaluation_is_refused(change, says):
    with pytest.raises(UsageError, match=r"^here: ") as raised:
        read({**evaluations.answers(), **change}, "here")
    assert says in str(raised.value)


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan"), "1", None, True])
def test_scores_are_shares(score):
    told = evaluations.answers(samples=1)
    told["samples"][0]["score"] = score
    with pytest.raises(UsageError, match="score"):
        read(told, "here")


def test_a_sample_that_is_there_twice_is_refused():
    told = evaluations.answers(samples=1)
    told["samples"].append(told["samples"][0])
    with pytest.raises(UsageError, match="there twice"):
        read(told, "here")


def test_files_and_folders(tmp_path):
    for plan in ("b", "a"):
        (tmp_path / f"{plan}.json").write_text(json.dumps(evaluations.answers(plan=plan)))
    assert [one.plan for one in load([tmp_path]).records] == ["a", "b"]
    assert [one.plan for one in load([tmp_path / "b.json", tmp_path / "a.json"]).records] == ["b", "a"]
    failed = {"plan": "c", "suite": "lookup", "error": "no room"}
    listed = {"evaluations": [{"file": "b.json"}, {"file": "a.json"}], "failures": [failed], "baseline": "b"}
    (tmp_path / "comparison.json").write_text(json.dumps(listed))
    loaded = load([tmp_path])
    assert [one.plan for one in loaded.records] == ["b", "a"]
    assert (loaded.failures, loaded.baseline) == ((("c", "lookup", "no room"),), "b")


def test_bad_files_are_named(tmp_path):
    empty, text, array = tmp_path / "empty", tmp_path / "text.json", tmp_path / "array.json"
    empty.mkdir()
    text.write_text("not JSON")
    array.write_text("[1]")
    (tmp_path / "comparison.json").write_text("{}")
    for path, says in (
        (tmp_path / "none.json", "No such file"),
        (empty, "no .json files"),
        (text, "not JSON"),
        (array, "not a JSON object"),
        (tmp_path, "not the list of a comparison"),
    ):
        with pytest.raises(UsageError, match=says):
            load([path])


def test_the_same_evaluation_twice_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(evaluations.answers()))
    with pytest.raises(UsageError, match="two evaluations of plan 'full'"):
        load([path, path])
