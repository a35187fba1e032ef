"""`longspan eval`: what people see, what programs get, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import transformers

from longspan import LLM, __version__
from longspan.evals import lookup
from longspan.evals.suites import SUITES

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
    for option in ("--model", "--length", "--rope", "--dtype", "--memory", "--text", "--raw", "--json"):
        assert f"\n  {option} " in result.out
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
        *("--asked", "start", "--seed", 7, "--batch", 3, "--text", text, "--dtype", "bfloat16", "--json"),
    ).json
    assert set(report) == {
        "suite", "model", "dtype", "weights", "device", "rope", "format", "evict", "select", "place", "offload",
        "prefill", "settings", "versions", "kv_bytes_peak", "disk_bytes", "rss_peak_bytes", "seconds", "results",
        "samples", "warnings",
    }  # fmt: skip
    assert (report["suite"], report["model"]) == ("lookup", str(chatty))
    assert (report["dtype"], report["device"]) == ("bfloat16", "cpu")
    assert report["rope"].startswith("yarn:factor=")
    assert report["settings"] == {
        "length": 500,
        "facts": 2,
        "questions": 2,
        "abilities": ["single", "count"],
        "asked": "start",
        "seed": 7,
        "batch": 3,
        "text": str(text),
    }
    assert report["versions"]["longspan"] == __version__
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["transformers"] == transformers.__version__
    assert report["versions"]["python"] == sys.version.split()[0]
    assert set(report["results"]) == {"abilities", "all", "unknown"}
    assert set(report["results"]["abilities"]) == {"single", "count"}
    figures = report["results"]["abilities"]["single"]
    assert set(figures) == {"right", "asked", "accuracy", "interval", "said_unknown"}
    assert report["results"]["unknown"]["unanswerable"] == {"said_unknown": 0, "asked": 0}
    assert [(one["ability"], one["index"]) for one in report["samples"]] == [
        ("single", 0), ("single", 1), ("count", 0), ("count", 1)
    ]  # fmt: skip
    assert set(report["samples"][0]) == {
        "ability", "index", "turn", "question", "expected", "answer", "right", "depth", "tokens"
    }  # fmt: skip
    assert figures["right"] == sum(one["right"] for one in report["samples"] if one["ability"] == "single")
    assert report["warnings"] == []


def test_the_same_seed_gives_the_same_report(cli, chatty, text):
    command = ("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--json")
    first, again, other = (cli(*command, "--seed", seed).json for seed in (3, 3, 4))
    assert first["samples"] == again["samples"] != other["samples"]


def test_raw_holds_every_sample(cli, chatty, text, tmp_path):
    raw = tmp_path / "raw"
    raw.write_text("of an earlier run\n")
    report = cli("eval", "lookup", "--model", chatty, *ONE, "--text", text, "--raw", raw, "--json").json
    assert [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()] == report["samples"]


def test_ctrl_c_loses_no_sample(cli, chatty, text, tmp_path, monkeypatch):
    generate, calls = LLM.generate, []

    def interrupted(self, *args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, *args, **options)

    monkeypatch.setattr(LLM, "generate", interrupted)
    raw = tmp_path / "raw"
    result = cli("eval", "lookup", "--model", chatty, *SMALL, "--batch", 3, "--text", text, "--raw", raw)
    assert (result.code, result.out) == (130, "")
    assert len(raw.read_text().splitlines()) == 6


def test_the_length_is_the_trained_one_where_that_is_shorter(cli, chatty, text):
    report = cli("eval", "perplexity", "--model", chatty, "--windows", 2, "--text", text, "--json").json
    assert report["settings"] == {"length": 256, "windows": 2, "text": str(text)}
    assert (report["rope"], report["results"]["tokens"]) == ("default", 2 * 255)


def test_perplexity(cli, plain, text):
    command = ("eval", "perplexity", "--model", plain, "--length", 100, "--windows", 3, "--text", text)
    report = cli(*command, "--json").json
    assert set(report["results"]) == {
        "windows", "tokens", "nats_per_token", "perplexity", "interval", "second_half"
    }  # fmt: skip
    assert [set(one) for one in report["samples"]] == [
        {"index", "start", "tokens", "nats", "late_tokens", "late_nats"}
    ] * 3
    result = cli(*command)
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["part", "whole", "second"]
    assert f"{report['results']['perplexity']:,.3f}" in lines[1] or report["results"]["perplexity"] >= 1000
    assert "normal approximation" in lines[4]
    assert result.err.startswith("3 samples of 100 tokens, rope default, ")


def test_the_text_may_come_from_standard_input(cli, plain):
    command = ("eval", "perplexity", "--model", plain, "--length", 8, "--text", "-", "--json")
    report = cli(*command, stdin=b"hello world, hello").json
    assert report["settings"]["text"] == "-"
    assert report["results"]["windows"] == 2


FEW_NEEDLES = ("--length", 1500, "--questions", 2, "--inside", 0)


@pytest.mark.parametrize("suite", SUITES)
def test_without_a_text_the_held_out_one_is_taken(cli, chatty, suite):
    small = {"lookup": ONE, "perplexity": ("--windows", 2), "needles": FEW_NEEDLES}[suite]
    report = cli("eval", suite, "--model", chatty, *small, "--json").json
    assert report["settings"]["text"] is None
    assert len(report["samples"]) == 2


BAD = [
    ("lookup", ["--ability", "magic"], f"ability: unknown 'magic'; known: {', '.join(lookup.ABILITIES)}"),
    ("lookup", ["--asked", "middle"], "known: end, start, row"),
    ("lookup", ["--facts", "0"], "facts: 0; give a whole number, 1 or more"),
    ("lookup", ["--questions", "0"], "questions: 0"),
    ("lookup", ["--length", "0"], "length: 0"),
    ("lookup", ["--seed", "-1"], "seed: -1"),
    ("lookup", ["--batch", "0"], "batch: 0"),
    ("lookup", ["--facts", "many"], "Invalid value for '--facts'"),
    ("lookup", ["--windows", "3"], "options: --model, --length, --facts"),
    ("lookup", ["--raw", "/no/such/folder/raw"], "--raw /no/such/folder/raw: No such file or directory"),
    ("lookup", ["--raw", "/"], "--raw /: "),
    ("perplexity", ["--windows", "0"], "windows: 0"),
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
