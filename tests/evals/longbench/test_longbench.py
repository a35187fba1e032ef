"""LongBench as a suite: its files, its prompts, what is cut, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import checkpoints
import pytest

from longspan import LLM
from longspan.errors import UsageError
from longspan.evals.ask import Said
from longspan.evals.longbench.datasets import DATASETS
from longspan.evals.longbench.suite import LongBench
from longspan.evals.suite import evaluate

TEMPLATE = "{% for m in messages %}<{{ m['content'] }}>\n{% endfor %}"


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    path = tmp_path_factory.mktemp("longbench")
    checkpoints.make("llama", path)
    checkpoints.tokenizer(path)
    return LLM(path, memory="32MB")


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    path = tmp_path_factory.mktemp("chatting")
    checkpoints.make("llama", path)
    checkpoints.tokenizer(path, TEMPLATE)
    return LLM(path, memory="32MB")


def row(dataset: str, **given: Any) -> dict[str, Any]:
    value = {"input": "Who?", "context": "Ada did it.", "answers": ["Ada"], "length": 3, "dataset": dataset}
    return {**value, "language": "en", "all_classes": None, "_id": "0", **given}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "hotpotqa.jsonl", *(row("hotpotqa", context=f"Ada did it {n} times.") for n in range(5)))
    write(
        tmp_path / "trec_e.jsonl",
        row("trec", input="Question: When?\nType:", answers=["Date"], all_classes=["Date", "City"]),
    )
    write(tmp_path / "lcc.jsonl", row("lcc", context="def f():\n", input="", answers=["    return 1"]))
    write(tmp_path / "gov_report.jsonl", row("gov_report", input="", answers=["It was Ada. "]))
    write(tmp_path / "dureader.jsonl", row("dureader", input="谁？", answers=["北京"]))
    return tmp_path


def test_prompts_are_those_of_longbench(llm: LLM, chatting: LLM, folder: Path):
    suite = LongBench(data=str(folder), length=3000, datasets=("hotpotqa", "lcc", "trec"))
    for engine, plain in ((llm, {True}), (chatting, {False})):
        found = {case.group: case for case in suite.cases(engine, None)}
        assert {found["hotpotqa"].plain} == plain
        assert found["trec"].plain
        assert found["lcc"].plain
        whole = {name: case.text + case.questions[0].text for name, case in found.items()}
        assert whole["trec"] == (
            "Please determine the type of the question below. Here are some examples of questions.\n\nAda did it.\n"
            "Question: When?\nType:"
        )
        assert whole["lcc"] == "Please complete the code given below. \ndef f():\nNext line of code:\n"
        if found["hotpotqa"].plain:
            assert whole["hotpotqa"] == (
                "Answer the question based on the given passages. Only give me the answer and do not output any other "
                "words.\n\nThe following are given passages.\nAda did it 4 times.\n\nAnswer the question based on the "
                "given passages. Only give me the answer and do not output any other words.\n\nQuestion: Who?\nAnswer:"
            )
        else:
            assert found["hotpotqa"].questions[0].text.startswith("Answer the question")
        assert [found[name].questions[0].room for name in ("hotpotqa", "trec", "lcc")] == [32, 64, 64]
        assert found["trec"].questions[0].references == ("Date", "", "Date", "City")


def test_every_prompt_has_its_context_in_the_text_and_its_input_in_the_question():
    for name, dataset in DATASETS.items():
        text, asked = dataset.written("{input} context", "{context} input")
        assert text.endswith("{input} context"), name
        assert ("{context} input" in asked) == (
            name not in {"gov_report", "multi_news", "vcsum", "lcc", "passage_count"}
        )


def test_a_long_prompt_loses_its_middle(llm: LLM, chatting: LLM, tmp_path: Path):
    context = "".join(f"Sentence number {number}. " for number in range(400))
    data = write(tmp_path / "qasper.jsonl", row("qasper", context=context, input="Which number?"))
    for engine in (llm, chatting):
        for length in (2000, 4001):
            (case,) = LongBench(data=data, length=length).cases(engine, None)
            (question,) = case.questions
            assert question.text.endswith("Question: Which number?\n\nAnswer:")
            assert case.text.startswith("You are given a scientific article")
            assert "Sentence number 0. " in case.text
            assert "Sentence number 399. " in case.text
            assert "Sentence number 200. " not in case.text
            around = 0 if case.plain else len("<\n\n>\n")
            written = case.text if case.plain else case.text.rstrip()  # templates take no space before a question
            used = len(engine.encode(written + question.text)) + around + question.room
            assert length - 4 <= used <= length
        (short,) = LongBench(data=data, length=500).cases(engine, None)
        assert short.questions[0].text.endswith("Question: Which number?\n\nAnswer:")
        with pytest.raises(UsageError, match="hold no question"):
            list(LongBench(data=data, length=129).cases(engine, None))


def test_samples_are_drawn_and_counted(llm: LLM, folder: Path):
    data = str(folder / "hotpotqa.jsonl")
    assert LongBench(data=data).count() == 5
    drawn = {
        seed: [case.text for case in LongBench(data=data, length=3000, samples=2, seed=seed).cases(llm, None)]
        for seed in range(6)
    }
    assert all(len(texts) == 2 for texts in drawn.values())
    assert len({tuple(texts) for texts in drawn.values()}) > 1
    again = [case.text for case in LongBench(data=data, length=3000, samples=2, seed=3).cases(llm, None)]
    assert again == drawn[3]


def test_right_answers_have_all_points_and_wrong_ones_none(llm: LLM, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    suite = LongBench(data=str(folder), length=3000)
    right = evaluate(
        suite, llm, answerer=lambda cases, _: [[Said(case.questions[0].references[0], 1)] for case in cases]
    ).results
    assert set(right.values["datasets"]) == {"hotpotqa", "gov_report", "trec", "lcc"}
    assert right.values["average"] == pytest.approx(100)
    assert right.values["left_out"] == ["dureader"]
    assert "dureader" in right.notes[0]
    assert right.rows[-1][0] == "average"
    wrong = evaluate(suite, llm, answerer=lambda cases, _: [[Said("~", 1)] for _ in cases]).results
    assert wrong.values["average"] == 0
    with pytest.raises(UsageError, match="jieba"):
        LongBench(data=str(folder), datasets=("dureader",))
    with pytest.raises(UsageError, match="nothing in it can be scored"):
        LongBench(data=str(folder / "dureader.jsonl"))


def test_a_model_answers(llm: LLM, folder: Path):
    made = evaluate(LongBench(data=str(folder), length=600, samples=1, datasets=("trec", "lcc")), llm)
    assert [one.group for one in made.samples] == ["trec", "lcc"]
    assert all(0 <= one.score <= 1 and one.tokens <= 600 - 64 for one in made.samples)


def test_what_is_missing_or_unknown_is_refused(llm: LLM, folder: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="give --data FILE"):
        LongBench()
    with pytest.raises(UsageError, match="unknown 'squad'; known: narrativeqa, qasper"):
        LongBench(data=str(folder), datasets=("squad",))
    with pytest.raises(UsageError, match="has none of it; it has hotpotqa"):
        LongBench(data=str(folder / "hotpotqa.jsonl"), datasets=("lcc",))
    with pytest.raises(UsageError, match="No such file"):
        LongBench(data=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.jsonl file"):
        LongBench(data=str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="has texts of its own"):
        list(LongBench(data=str(folder), length=3000).cases(llm, "own"))
    bad = tmp_path / "empty" / "bad.jsonl"
    for content, why in (
        ("{", "line 1 is not a sample"),
        ("[]", "line 1 is not a sample"),
        (json.dumps(row("squad")), "unknown dataset 'squad'; known: narrativeqa"),
        (json.dumps(row("trec")), "all_classes is missing"),
        ("\n" + json.dumps(row("qasper", answers=[])), "line 2 .* no list of texts"),
        (json.dumps(row("qasper", context=None)), "context and input"),
    ):
        bad.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=why):
            LongBench(data=str(bad))
