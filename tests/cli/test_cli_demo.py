from __future__ import annotations

import checkpoints
import pytest

from longspan.cli import demo
from longspan.evals import lookup


@pytest.fixture(scope="module")
def model(tmp_path_factory, chatty):
    path = tmp_path_factory.mktemp("demo")
    checkpoints.make("llama", path, max_position_embeddings=700)
    checkpoints.tokenizer(path, "{% for m in messages %}U: {{ m['content'] }}\nA:{% endfor %}")
    return path


@pytest.fixture(autouse=True)
def few_depths(monkeypatch):
    monkeypatch.setattr(demo, "DEPTHS", 4)


def test_the_figures_are_those_of_the_run(cli, model):
    report = cli("demo", "--model", model, "--tokens", 8000, "--questions", 6, "--memory", "4MB", "--json").json
    assert (report["trained_tokens"], report["questions"], report["tokens"]) == (700, 6, 8000)
    chosen, stream = report["selected"], report["streaming"]
    assert chosen["plan"]["select"].startswith("sketch")
    assert (stream["plan"]["evict"], stream["plan"]["place"]) == ("streaming:budget=516", "slot")
    for trial in (chosen, stream):
        assert trial["asked"] == len(trial["needles"]) == 6
        assert trial["right"] == sum(one["right"] for one in trial["needles"])
        assert 7900 <= trial["tokens"] - 6 * 40 <= 8400
        assert sorted({one["depth"] for one in trial["needles"]}) == [0.125, 0.375, 0.625, 0.875]
        for one in trial["needles"]:
            assert one["right"] == lookup.score(one["answer"], one["expected"])
    assert max(stream["kv_bytes_peak"], chosen["kv_bytes_peak"]) <= 4_000_000
    assert report["full_attention"]["kv_bytes"] > 4_000_000
    assert report["inside_trained_length"]["asked"] == 6
    assert report["warnings"] == []


def test_people_see_a_line_for_each_depth_and_what_it_took(cli, model):
    result = cli("demo", "--model", model, "--tokens", 4000, "--questions", 5, "--memory", "8MB", "--seed", 1)
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split(" %")[0] for line in lines if line.startswith("at ")] == ["at 12", "at 38", "at 62", "at 88"]
    for said in ("tok/s", "Peak memory of the process", "Full attention would hold", "StreamingLLM", "inside the"):
        assert said in result.out


@pytest.mark.parametrize(
    "options", [["--tokens", 100], ["--tokens", 0], ["--questions", 0], ["--seed", -1], ["--memory", "x"]]
)
def test_what_cannot_be_shown_is_refused(cli, model, options):
    result = cli("demo", "--model", model, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("longspan: error: ")
