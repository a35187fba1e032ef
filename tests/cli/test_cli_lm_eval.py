"""`longspan eval lm-eval`: what is refused without the package, and a run with it."""

from __future__ import annotations

import json
import sys
from importlib import metadata

import checkpoints
import pytest

from longspan.cli.lm_eval import rows
from longspan.evals import origin
from longspan.evals.raw import versions
from longspan.model.load import inspect


def test_help(cli):
    result = cli("eval", "lm-eval", "--help")
    assert (result.code, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= 80
    for option in ("--tasks", "--include-path", "--apply-chat-template", "--evict", "--json"):
        assert f"\n  {option} " in result.out or f"\n* {option} " in result.out


def test_without_the_package_it_says_what_to_install(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "longspan.evals.harness", raising=False)
    result = cli("eval", "lm-eval", "--tasks", "anything")
    assert result.code == 2
    assert "pip install lm-eval" in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tasks", " ,"), "at least one name"),
        (("--tasks", "a", "--include-path", "nowhere"), "no such folder"),
        (("--tasks", "a", "--evict", "h3o"), "h3o"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, options: tuple[str, ...], said: str):
    result = cli("eval", "lm-eval", *options)
    assert result.code == 2
    assert said in result.err


def test_rows_have_a_metric_each():
    found = {"one": {"alias": "one", "sample_len": 8, "acc,none": 0.5, "acc_stderr,none": 0.1, "em,strict": 1.0}}
    assert rows(found) == [("one", "acc", "0.5000", "0.1000"), ("one", "em (strict)", "1.0000", "–")]


def test_a_task_of_ones_own(cli, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install lm-eval)")
    model, tasks = tmp_path / "model", tmp_path / "tasks"
    checkpoints.make("llama", model)
    made = checkpoints.tokenizer(model)
    made.eos_token = made.convert_ids_to_tokens(2)
    made.save_pretrained(model)
    tasks.mkdir()
    (tasks / "data.jsonl").write_text("".join(json.dumps({"text": f"text {i}", "gold": 0}) + "\n" for i in range(4)))
    (tasks / "tiny.yaml").write_text(
        f"task: tiny\ndataset_path: json\ndataset_kwargs:\n  data_files: {{test: {tasks / 'data.jsonl'}}}\n"
        f"  cache_dir: {tmp_path / 'cache'}\ntest_split: test\noutput_type: multiple_choice\n"
        "doc_to_text: '{{text}}'\ndoc_to_choice: ['a', 'b']\ndoc_to_target: '{{gold}}'\nmetric_list:\n  - metric: acc\n"
    )
    given = ("eval", "lm-eval", "--tasks", "tiny", "--include-path", tasks, "--model", model, "--memory", "64MB")
    result = cli(*given, "--limit", 3, "--json")
    assert result.code == 0
    assert 0 <= result.json["results"]["tiny"]["acc,none"] <= 1
    assert result.json["samples"]["tiny"]["effective"] == 3
    assert (result.json["rope"], result.json["trained"]) == ("default", inspect(str(model)).trained)
    assert result.json["versions"] == {**versions(), "lm-eval": metadata.version("lm-eval")}
    assert result.json["command"].startswith("longspan eval lm-eval --tasks tiny ")
    assert result.json["revision"] == origin.revision()
    assert "tiny" in cli(*given, "--evict", "h2o:budget=128").out
