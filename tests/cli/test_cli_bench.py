"""`longspan bench`: tables, JSON, plots, and what is refused. No time is asserted."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from longspan.bench import child, machine, measure
from longspan.cli import options
from longspan.cli.bench import PLANS, VERBS
from longspan.errors import DoesNotFit, LongspanError

QUICK = ("--repeats", 1, "--steps", 2, "--threads", 1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Limits are measured on little, so that tests are quick."""
    monkeypatch.setattr(machine, "bandwidth", lambda device: 1e12)
    monkeypatch.setattr(machine, "product", lambda dtype, device: 1e15)


@pytest.fixture
def here(monkeypatch):
    """Rows are measured in this process."""
    monkeypatch.setattr(child, "run", measure.measure)


def test_decode_in_a_process_of_its_own(cli, plain):
    result = cli("bench", "decode", "--shape", plain, "--context", 100, *QUICK, "--json")
    assert result.code == 0, result.err
    told = result.json
    assert told["verb"] == "decode"
    assert (told["shape"], told["dtype"], told["device"], told["threads"]) == (str(plain), "float32", "cpu", 1)
    assert set(told["versions"]) == {"longspan", "torch", "transformers", "python"}
    assert told["plot"] is None
    [row] = told["rows"]
    assert set(row) == {field.name for field in dataclasses.fields(measure.Row)}
    assert (row["plan"], row["context"], row["batch"], row["fill"], row["error"]) == ("full", 100, 1, "read", None)
    usual = {"format": "dense", "evict": "none", "select": "all", "place": "text", "offload": "none"}
    assert row["options"] == usual | {"prefill": "dense"}
    for name in (
        "prefill_seconds",
        "decode_ms",
        "decode_mean_ms",
        "kv_bytes_peak",
        "rss_peak_bytes",
        "bytes_per_token",
    ):
        assert row[name] > 0
    assert 0 < row["bandwidth_share"] < 1
    assert 0 < row["matrix_share"] < 1
    assert row["decode_tokens_per_second"] == pytest.approx(1000 / row["decode_ms"])
    assert "1 of 1: full at 100 tokens" in result.err


def test_several_texts_share_the_weights(cli, plain, here):
    rows = [
        cli("bench", "decode", "--shape", plain, "--context", "128", "--batch", n, *QUICK, "--json").json["rows"][0]
        for n in (1, 4)
    ]
    assert rows[0]["weight_bytes"] == rows[1]["weight_bytes"]
    assert rows[0]["cache_bytes"] == rows[1]["cache_bytes"]
    assert rows[1]["bytes_per_token"] == pytest.approx(rows[0]["weight_bytes"] / 4 + rows[0]["cache_bytes"])
    assert rows[1]["decode_tokens_per_second"] == pytest.approx(4000 / rows[1]["decode_ms"])


def test_prefill_does_not_decode(cli, plain, here):
    result = cli("bench", "prefill", "--shape", plain, "--context", "64,128", *QUICK)
    assert result.code == 0, result.err
    header, *rows = result.out.splitlines()[:3]
    assert header.split("  ")[0] == "plan"
    assert "prefill s" in header
    assert "decode ms" not in header
    assert [row.split()[:3] for row in rows] == [["full", "64", "read"], ["full", "128", "read"]]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_scale_tells_every_plan_and_draws(cli, plain, here, tmp_path):
    path = tmp_path / "scale.png"
    result = cli("bench", "scale", "--shape", plain, "--context", "64,128", *QUICK, "--plot", path, "--json")
    assert result.code == 0, result.err
    rows = result.json["rows"]
    assert [(row["context"], row["plan"]) for row in rows] == [(n, plan) for n in (64, 128) for plan in PLANS]
    assert all(row["decode_ms"] > 0 and row["prefill_tokens_per_second"] > 0 for row in rows)
    assert result.json["plot"] == str(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_own_plans_add_to_the_options(cli, plain, here):
    own = ("--plan", "mine=--format int8 --chunk 32", "--plan", "other=")
    result = cli("bench", "scale", "--shape", plain, "--context", 300, "--fill", "random", *QUICK, *own, "--json")
    assert result.code == 0, result.err
    rows = result.json["rows"]
    assert [(row["plan"], row["options"]["format"], row["fill"]) for row in rows] == [
        ("mine", "int8", "random"),
        ("other", "dense", "random"),
    ]
    assert rows[0]["cache_bytes"] < rows[1]["cache_bytes"]
    assert rows[0]["prefill_seconds"] is None
    shown = cli("bench", "scale", "--shape", plain, "--context", 300, "--fill", "random", *QUICK, *own)
    assert "random: not read" in shown.out


def test_a_plan_that_does_not_fit_does_not_end_the_others(cli, plain, here):
    plans = ("--plan", "small=--memory 20kB", "--plan", "large=")
    result = cli("bench", "scale", "--shape", plain, "--context", 200, *QUICK, *plans, "--json")
    assert result.code == 0
    small, large = result.json["rows"]
    assert "limit of" in small["error"]
    assert small["decode_ms"] is None
    assert large["error"] is None
    alone = cli("bench", "decode", "--shape", plain, "--context", 200, "--memory", "20kB", *QUICK)
    assert alone.code == 3


def test_long_contexts_are_filled_where_they_can_be(plain):
    case = measure.Case(str(plain), "", 20_000, 1, 1, 1, 1, "auto", 1, {})
    from longspan import LLM

    assert measure.filling(case, LLM(plain)) == "random"
    assert measure.filling(dataclasses.replace(case, context=16_384), LLM(plain)) == "read"
    assert measure.filling(case, LLM(plain, evict="lru")) == "read"
    assert measure.filling(dataclasses.replace(case, rounds=0), LLM(plain)) == "read"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--context", "12x"), "--context: '12x'"),
        (("--context", "0"), "--context: '0'"),
        (("--context", ""), "--context: ''"),
        (("--context", "-5"), "--context: '-5'"),
        (("--batch", 0), "--batch: 0"),
        (("--repeats", 0), "--repeats: 0"),
        (("--steps", -1), "--steps: -1"),
        (("--threads", 0), "--threads: 0"),
        (("--fill", "half"), "--fill: half; give one of auto, read, random"),
        (("--format", "int3"), "int3"),
        (("--place", "slot"), "place"),
        (("--plot", "nowhere/at/all.png"), "--plot nowhere/at/all.png"),
        (("--plot", "table.txt"), ".png, .pdf, .svg"),
        (("--shape", "7c"), "--shape 7c: give S, 1b, 8b, embedded"),
        (("--dtype", "int7"), "int7"),
        (("--plan", "nameless"), "--plan"),
        (("--plan", "a=--format"), "--plan a: '--format' is no option with a value"),
        (("--plan", "a=--colour red"), "options: --rope, --format"),
        (("--plan", "a=--chunk many"), "--plan a: --chunk many"),
        (("--plan", "a=--format int3"), "int3"),
        (("--plan", 'a="'), "--plan a"),
        (("--fill", "random", "--plan", "a=--evict lru"), "--fill random: lru"),
    ],
)
def test_bad_options_are_refused(cli, plain, here, args, says):
    given = args if "--shape" in args else ("--shape", plain, *args)
    result = cli("bench", "scale", *(() if "--context" in args else ("--context", 64)), *given, *QUICK[:0])
    assert (result.code, result.out) == (2, ""), result.err
    assert says in result.err


def test_what_is_no_model_is_refused(cli, tmp_path):
    result = cli("bench", "decode", "--shape", tmp_path, "--json")
    assert result.code == 3
    assert result.json["error"]["exit_code"] == 3


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_the_engine_is_there(cli, verb):
    result = cli("bench", verb, "--help")
    assert result.code == 0
    for name in options.check.__kwdefaults__:
        assert f"\n  --{name.replace('_', '-')} " in result.out
    assert ("--plan " in result.out) == (verb == "scale")


def test_help_imports_no_torch():
    script = (
        "import sys; from longspan.cli.main import call; call(['bench', 'scale', '--help']);"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_errors_of_the_process_are_raised_here(plain):
    case = measure.Case(str(plain), "full", 200, 1, 1, 1, 1, "read", 1, {"memory": "20kB"})
    with pytest.raises(DoesNotFit, match="limit of"):
        child.run(case)


@pytest.mark.parametrize(
    ("signal", "kind", "says"), [("KILL", DoesNotFit, "ended the process"), ("TERM", LongspanError, "ended with")]
)
def test_a_process_that_dies(plain, monkeypatch, tmp_path, signal, kind, says):
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\nkill -{signal} $$\n")
    os.chmod(dying, 0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(kind, match=says):
        child.run(measure.Case(str(plain), "full", 200, 1, 1, 1, 1, "read", 1, {}))
