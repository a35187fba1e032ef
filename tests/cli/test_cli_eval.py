"""`longspan eval`: what people see, what programs get, and what is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import get_type_hints

import pytest
import torch
import transformers
from small_suites import OPTIONS

from longspan import LLM, __version__
from longspan.cli import tasks
from longspan.evals import asker, lookup, origin
from longspan.evals.suites import SUITES
from longspan.model.load import inspect

SMALL = ("--length", 500, "--facts", 2, "--questions", 2)
ONE = (*SMALL, "--ability", "single")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text("".join(f"line {i} of a text about nothing\n" for i in range(90)))
    return path


@pytest.mark.parametrize("suite", SUITES)
def test_help_lists_the_suites_own_options(cli, suite):
    result = cli("eval", suite, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: longspan eval {suite} ")
    assert max(map(len, result.out.splitlines())) <= 80
    for option in ("--model", "--rope", "--dtype", "--memory", "--text", "--raw", "--make", "--regime", "--json"):
        assert f"\n  {option} " in result.out
    for option in ("--length", "--seed", "--samples", "--batch"):
        assert f"\n  {option}" in result.out
    assert ("--ability" in result.out) == (suite == "lookup")
    assert ("--windows" in result.out) == (suite == "perplexity")


def test_help_imports_no_torch():
    script = (
        "import sys; from longspan.cli.main import call; call(['eval', 'lookup', '--help']);"
        "print([name for name in ('torch', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_people_see_a_table(cli, chatty, text):
    result = cli("eval", "lookup", "--model", chatty, *SMALL, "--text", text)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split("  ")[0] == "ability"
    assert [line.split()[0] for line in lines[1:12]] == [*lookup.ABILITIES, "all"]
    assert all(" of " not in line and "%" in line for line in lines[1:12])
    assert lines[13].startswith('Answered "unknown": ')
    assert "of 8 answerable questions" in lines[13]
    assert len({len(line) for line in lines[:12]}) == 1, "columns stand under one another"
    assert result.err.startswith("20 samples of 500 tokens, rope yarn:factor=")


def test_json_says_everything(cli, chatty, text):
    report = cli(
        *("eval", "lookup", "--model", chatty, *SMALL, "--ability", "single", "--ability", "count"),
        *("--asked", "start", "--regime", "aware", "--seed", 7, "--batch", 3, "--text", text),
        *("--dtype", "bfloat16", "--json"),
    ).json
    assert set(report) == {
        "suite", "model", "dtype", "weights", "device", "rope", "format", "evict", "select", "place", "offload",
        "prefill", "regime", "seed", "settings", "contents", "versions", "trained", "command", "revision",
        "kv_bytes_peak", "disk_bytes", "text_bytes", "rss_peak_bytes", "seconds", "decode_ms_per_token", "results",
        "samples", "warnings",
    }  # fmt: skip
    assert (report["suite"], report["model"]) == ("lookup", str(chatty))
    assert (report["dtype"], report["device"]) == ("bfloat16", "cpu")
    assert report["rope"].startswith("yarn:factor=")
    assert (report["regime"], report["seed"]) == ("aware", 7)
    assert report["decode_ms_per_token"] > 0
    assert report["trained"] == inspect(str(chatty)).trained
    assert report["command"].startswith(f"longspan eval lookup --model {chatty} --length 500")
    assert report["revision"] == origin.revision()
    assert report["settings"] == {
        "length": 500,
        "facts": 2,
        "samples": 2,
        "abilities": ["single", "count"],
        "asked": "start",
        "seed": 7,
        "batch": 3,
        "text": str(text),
    }
    assert report["contents"] == {"text": hashlib.sha256(text.read_bytes()).hexdigest()}
    assert report["versions"]["longspan"] == __version__
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["transformers"] == transformers.__version__
    assert report["versions"]["python"] == sys.version.split()[0]
    assert set(report["results"]) == {"abilities", "all", "unknown"}
    assert set(report["results"]["abilities"]) == {"single", "count"}
    figures = report["results"]["abilities"]["single"]
    assert set(figures) == {"right", "asked", "accuracy", "interval", "said_unknown"}
    assert report["results"]["unknown"]["unanswerable"] == {"said_unknown": 0, "asked": 0}
    assert [(one["group"], one["index"]) for one in report["samples"]] == [
        ("single", 0), ("single", 1), ("count", 0), ("count", 1)
    ]  # fmt: skip
    assert set(report["samples"][0]) == {
        "group", "index", "turn", "length", "tokens", "question", "references", "metric", "answer", "score", "depth"
    }  # fmt: skip
    assert figures["right"] == sum(one["score"] for one in report["samples"] if one["group"] == "single")
    assert report["warnings"] == []


def test_the_same_seed_gives_the_same_report(cli, chatty, text):
    command = ("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--json")
    first, again, other = (cli(*command, "--seed", seed).json for seed in (3, 3, 4))
    assert first["samples"] == again["samples"] != other["samples"]


def samples(raw) -> list[dict]:
    """Those of a raw file, without what they cost."""
    found = [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]
    assert found[0]["kind"] == "longspan evaluation"
    return [{name: value for name, value in one.items() if name != "cost"} for one in found[1:]]


def test_raw_holds_every_sample(cli, chatty, text, tmp_path):
    raw = tmp_path / "raw"
    command = ("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--raw", raw)
    report = cli(*command, "--json").json
    assert samples(raw) == report["samples"]
    again = cli(*command, "--json").json
    for name in ("results", "samples", "seconds", "decode_ms_per_token", "kv_bytes_peak", "text_bytes"):
        assert again[name] == report[name], "nothing was asked again"


@pytest.mark.parametrize("more", [("--seed", 1), ("--regime", "aware"), ("--format", "int8"), ("--dtype", "bfloat16")])
def test_raw_of_another_evaluation_is_refused(cli, chatty, text, tmp_path, more):
    raw = tmp_path / "raw"
    command = ("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--raw", raw)
    assert cli(*command).code == 0
    before = raw.read_bytes()
    result = cli(*command, *more)
    assert (result.code, result.out) == (2, "")
    assert f"--raw {raw}: it holds samples of another evaluation (" in result.err
    assert raw.read_bytes() == before
    text.write_text("another text\n" * 50)
    assert "(text " in cli(*command).err


def test_a_file_of_something_else_is_no_raw_file(cli, chatty, text, tmp_path):
    raw = tmp_path / "raw"
    raw.write_text("of an earlier run\n")
    result = cli("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--raw", raw)
    assert result.code == 2
    assert "something other than samples" in result.err
    assert raw.read_text() == "of an earlier run\n"


def test_ctrl_c_loses_no_sample_and_the_rest_comes_later(cli, chatty, text, tmp_path, monkeypatch):
    command = ("eval", "lookup", "--model", chatty, *SMALL, "--batch", 3, "--text", text)
    whole = cli(*command, "--json").json
    raw, calls = tmp_path / "raw", []
    with monkeypatch.context() as patch:

        def interrupted(*args):
            calls.append(1)
            if len(calls) == 5:  # two for each batch: reading, answering
                raise KeyboardInterrupt
            return together(*args)

        together = asker.together
        patch.setattr(asker, "together", interrupted)
        result = cli(*command, "--raw", raw)
    assert (result.code, result.out) == (130, "")
    assert len(samples(raw)) == 6
    made = cli(*command, "--raw", raw, "--json").json
    assert (made["samples"], made["results"]) == (whole["samples"], whole["results"])
    assert samples(raw) == whole["samples"]


def test_make_writes_the_cases_and_runs_nothing(cli, chatty, text, tmp_path, monkeypatch):
    monkeypatch.setattr(LLM, "__init__", lambda *args, **options: pytest.fail("weights were loaded"))
    command = ("eval", "lookup", "--model", chatty, *SMALL, "--text", text)
    report = cli(*command, "--make", tmp_path / "made", "--json").json
    lines = [json.loads(line) for line in (tmp_path / "made").read_text().splitlines()]
    assert (report["cases"], report["questions"], len(lines)) == (20, 20, 20)
    assert set(lines[0]) == {"group", "index", "length", "text", "questions", "asked", "plain"}
    (question,) = lines[0]["questions"]
    assert set(question) == {"text", "references", "metric", "room", "begins", "depth", "tokens"}
    assert question["references"][0] in lines[0]["text"]
    again = tmp_path / "again"
    assert cli(*command, "--make", again).err == f"20 texts with 20 questions are in {again}\n"
    assert again.read_bytes() == (tmp_path / "made").read_bytes()
    for options, message in [
        (("lookup", "--make", tmp_path / "a", "--raw", tmp_path / "b"), "leave one of them out"),
        (("perplexity", "--make", tmp_path / "a"), "--make: perplexity asks nothing"),
        (("lookup", "--make", "/no/such/folder/a"), "--make /no/such/folder/a: No such file"),
    ]:
        result = cli("eval", *options)
        assert result.code == 2
        assert message in result.err


def test_aware_waits_for_the_question_and_says_so(cli, chatty, text):
    command = ("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--evict", "snapkv:budget=80", "--json")
    agnostic, aware = (cli(*command, "--regime", regime).json for regime in ("agnostic", "aware"))
    assert (agnostic["regime"], agnostic["evict"]) == ("agnostic", "snapkv:budget=80")
    assert (aware["regime"], aware["evict"]) == ("aware", "snapkv:budget=80,wait=true")
    assert aware["text_bytes"][0] > 0
    assert aware["kv_bytes_peak"] >= agnostic["kv_bytes_peak"]
    refused = cli(*command[:-2], "snapkv:budget=80,wait=true")
    assert refused.code == 2
    assert "wait=true lets it see the question" in refused.err


@pytest.mark.parametrize("suite", SUITES)
def test_two_samples_of_every_suite_with_the_embedded_model(cli, suite, tmp_path):
    more = OPTIONS.get(suite, lambda folder: [])(tmp_path)
    report = cli("eval", suite, "--samples", 2, *more, "--raw", tmp_path / "raw", "--json").json
    assert report["suite"] == suite
    assert report["settings"]["samples"] == 2
    assert len(report["samples"]) == len(samples(tmp_path / "raw")) >= 2
    assert report["warnings"] == []
    assert report["kv_bytes_peak"] > 0


def test_the_length_is_the_trained_one_where_that_is_shorter(cli, chatty, text):
    report = cli("eval", "perplexity", "--model", chatty, "--windows", 2, "--text", text, "--json").json
    assert report["settings"] == {
        "length": 256, "lengths": [], "stride": None, "samples": 2, "seed": 0, "text": str(text), "batch": 8
    }  # fmt: skip
    assert (report["regime"], report["decode_ms_per_token"], report["text_bytes"]) == (None, None, None)
    assert "regime: this suite asks nothing" in cli("eval", "perplexity", "--regime", "aware").err
    assert (report["rope"], report["results"]["tokens"]) == ("default", 2 * 255)


@pytest.mark.parametrize("given", [("--lengths", "100,120"), ("--lengths", 100, "--lengths", 120)])
def test_several_lengths_with_commas_or_repeated(cli, plain, text, given):
    command = ("eval", "perplexity", "--model", plain, *given, "--windows", 1, "--text", text, "--json")
    report = cli(*command).json
    assert report["settings"]["lengths"] == [100, 120]
    assert list(report["results"]["lengths"]) == ["100", "120"]


@pytest.mark.parametrize("name", [name for name in SUITES if "lengths" in get_type_hints(SUITES[name])])
def test_lengths_are_written_alike_in_every_suite(name):
    assert get_type_hints(SUITES[name])["lengths"] == tuple[int, ...]
    made = tasks.suite(f"{name}:lengths=1024/2048", {}, "agnostic")
    assert (made.lengths, made.length) == ((1024, 2048), 2048)
    assert tasks.arguments(made, "agnostic", {})[2:4] == ("--length=2048", "--lengths=1024")


def test_perplexity(cli, plain, text):
    command = ("eval", "perplexity", "--model", plain, "--length", 100, "--windows", 3, "--text", text)
    report = cli(*command, "--json").json
    assert set(report["results"]) == {
        "windows", "tokens", "nats_per_token", "perplexity", "interval", "second_half", "deciles", "lengths"
    }  # fmt: skip
    assert [set(one) for one in report["samples"]] == [
        {"index", "start", "tokens", "nats", "late_tokens", "late_nats", "length", "part_tokens", "part_nats"}
    ] * 3
    result = cli(*command)
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["part", "whole", "second"]
    assert f"{report['results']['perplexity']:,.3f}" in lines[1] or report["results"]["perplexity"] >= 1000
    assert lines[3].startswith("0 – 10 %")
    assert "normal approximation" in lines[-1]
    assert result.err.startswith("3 samples of 100 tokens, rope default, ")


def test_the_text_may_come_from_standard_input(cli, plain):
    command = ("eval", "perplexity", "--model", plain, "--length", 8, "--text", "-", "--json")
    report = cli(*command, stdin=b"hello world, hello").json
    assert report["settings"]["text"] == "-"
    assert report["results"]["windows"] == 2


FEW_NEEDLES = ("--length", 1500, "--questions", 2, "--inside", 0)
FEW = ("--length", 600, "--samples", 2)


@pytest.mark.parametrize("suite", ["lookup", "perplexity", "needles", "passkey"])
def test_without_a_text_the_held_out_one_is_taken(cli, chatty, suite):
    small = {"lookup": ONE, "perplexity": ("--windows", 2), "needles": FEW_NEEDLES}.get(suite, FEW)
    report = cli("eval", suite, "--model", chatty, *small, "--json").json
    assert report["settings"]["text"] is None
    assert len(report["samples"]) == 2


BAD = [
    ("lookup", ["--ability", "magic"], f"ability: unknown 'magic'; known: {', '.join(lookup.ABILITIES)}"),
    ("lookup", ["--asked", "middle"], "known: end, start, row"),
    ("lookup", ["--facts", "0"], "facts: 0; give a whole number, 1 or more"),
    ("lookup", ["--questions", "0"], "samples: 0"),
    ("lookup", ["--length", "0"], "length: 0"),
    ("lookup", ["--seed", "-1"], "seed: -1"),
    ("lookup", ["--batch", "0"], "batch: 0"),
    ("lookup", ["--regime", "both"], "regime: unknown 'both'; known: agnostic, aware"),
    ("needles", ["--regime", "aware"], "regime: this suite is always agnostic; leave out --regime"),
    ("passkey", ["--phrasing", "mine"], "phrasing: unknown 'mine'; known: original, fact"),
    ("needle", ["--needle", "A needle."], "--needle, --question and --answer go together"),
    ("needle", ["--lengths", "0"], "length: 0"),
    ("ruler", ["--lengths", "1024,4K"], "lengths: '4K'; give whole numbers, such as 1024,2048"),
    ("perplexity", ["--length", "9", "--lengths", "5,6"], "give one of the two"),
    ("lookup", ["--facts", "many"], "Invalid value for '--facts'"),
    ("lookup", ["--windows", "3"], "options: --model, --length, --facts"),
    ("lookup", ["--raw", "/no/such/folder/raw"], "--raw /no/such/folder/raw: No such file or directory"),
    ("lookup", ["--raw", "/"], "--raw /: "),
    ("perplexity", ["--windows", "0"], "samples: 0"),
    ("perplexity", ["--length", "1"], "length: 1; give a whole number, 4 or more"),
    ("perplexity", ["--text", "/no/such/file"], "--text /no/such/file: there is no such file"),
    ("perplexity", ["--text", "/dev/null"], "--text /dev/null: it is empty"),
    ("perplexity", ["--rope", "nope"], "known: auto, checkpoint"),
    ("perplexity", ["--page", "48"], "choose one of 16, 32, 64, 128"),
]


@pytest.mark.parametrize(("suite", "options", "message"), BAD)
def test_bad_options_are_refused_before_the_model_is_loaded(cli, suite, options, message):
    result = cli("eval", suite, "--model", "/no/such/model", *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("longspan: error: ")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_facts_that_do_not_fit_say_what_would_hold_them(cli, chatty, text):
    result = cli("eval", "lookup", "--model", chatty, "--facts", 8, "--questions", 2, "--text", text, "--json")
    assert result.code == 2
    message = result.json["error"]["message"]
    assert message.startswith("length: 256 tokens do not hold 8 facts with a question; give ")
    least = message.partition("give ")[2].split()[0]
    command = ("eval", "lookup", "--model", chatty, "--facts", 8, "--questions", 2, "--text", text)
    assert cli(*command, "--length", least.replace(",", "")).code == 0


@pytest.mark.parametrize(("command", "code"), [(["eval"], 2), (["eval", "sing"], 2), (["eval", "--help"], 0)])
def test_the_suites_are_named(cli, command, code):
    result = cli(*command)
    assert result.code == code
    for suite in SUITES:
        assert suite in result.out + result.err


def test_a_model_that_cannot_be_loaded(cli, text):
    result = cli("eval", "lookup", "--model", "/no/such/model", "--text", text)
    assert (result.code, result.out) == (3, "")
    assert "no model at" in result.err
