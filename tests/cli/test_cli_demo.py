from __future__ import annotations

import random

import checkpoints
import pytest

from longspan import LLM
from longspan.cli import demo
from longspan.evals import lookup


@pytest.fixture(scope="module")
def model(tmp_path_factory, chatty):
    path = tmp_path_factory.mktemp("demo")
    checkpoints.make("llama", path, max_position_embeddings=700)
    checkpoints.tokenizer(path, "{% for m in messages %}U: {{ m['content'] }}\nA:{% endfor %}")
    return path


@pytest.fixture(autouse=True)
def few_facts(monkeypatch):
    monkeypatch.setattr(demo, "FACTS", 4)


def test_every_question_has_its_fact_in_the_text(model):
    llm = LLM(model)
    planted = demo.plant(llm, random.Random(3), 3000, 8, 5)
    assert planted == demo.plant(llm, random.Random(3), 3000, 8, 5)
    assert planted != demo.plant(llm, random.Random(4), 3000, 8, 5)
    assert len(planted.questions) == len(planted.depths) == 5
    for question, depth in zip(planted.questions, planted.depths, strict=True):
        line = planted.text[round(depth * len(planted.text)) :].splitlines()[0]
        assert question.answer in line
        whole = lookup.prompt(planted.text, question)
        assert 2800 < len(llm.encode(whole)) < 3000 - demo.ANSWER_TOKENS


def test_the_figures_are_those_of_the_run(cli, model):
    report = cli("demo", "--model", model, "--tokens", 1500, "--questions", 2, "--json").json
    assert (report["trained_tokens"], report["questions"]) == (700, 2)
    assert 1500 <= report["tokens"] < 1700, "the text alone has what was asked for"
    scaled, bare, inside = (report[name] for name in ("with_scaling", "without_scaling", "inside_trained_length"))
    assert scaled["rope"].startswith("yarn:factor=2.")
    assert bare["rope"] == inside["rope"] == "default"
    assert [one["question"] for one in scaled["answered"]] == [one["question"] for one in bare["answered"]]
    assert inside["tokens"] <= 700 < report["tokens"] < scaled["tokens"] == bare["tokens"]
    for trial in (scaled, bare, inside):
        assert len(trial["answered"]) == 2
        assert trial["right"] == sum(one["right"] for one in trial["answered"])
        for one in trial["answered"]:
            assert one["right"] == lookup.score(one["answer"], one["expected"])
    assert scaled["kv_bytes_peak"] > inside["kv_bytes_peak"]
    assert report["warnings"] == []


def test_people_see_each_question_and_the_sum(cli, model):
    result = cli("demo", "--model", model, "--tokens", 1500, "--questions", 5, "--seed", 1)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert sum(" at " in line and "%" in line for line in lines) == 5
    assert lines[-1] == "with scaling 0 of 5; without 0 of 5; inside the trained length 0 of 5"
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("options", [["--tokens", 100], ["--tokens", 0], ["--questions", 0], ["--seed", -1]])
def test_what_cannot_be_shown_is_refused(cli, model, options):
    result = cli("demo", "--model", model, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("longspan: error: ")
