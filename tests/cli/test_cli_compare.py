"""`longspan eval compare` and `longspan eval report`, from the plans to the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from small_suites import longbench

from longspan import LLM
from longspan.cli import child
from longspan.cli.main import call
from longspan.errors import DoesNotFit, LongspanError
from longspan.evals.suites import SUITES

LOOKUP = "lookup:length=500,facts=2,samples=2,abilities=single+count"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text("".join(f"line {i} of a text about nothing\n" for i in range(90)))
    return path


@pytest.fixture
def here(monkeypatch, capsys):
    """Evaluations run in this process, and are counted."""
    ran = []

    def run(args):
        ran.append(list(args))
        before = capsys.readouterr()
        code = call([*args, "--json"])
        mine = capsys.readouterr()
        sys.stdout.write(before.out)
        sys.stderr.write(before.err + mine.err)
        if code == child.INTERRUPTED:
            raise KeyboardInterrupt
        return child.told(mine.out, code)

    monkeypatch.setattr(child, "run", run)
    return ran


def test_two_plans_in_processes_of_their_own(cli, chatty, text, tmp_path):
    """The whole way: compare in real processes, then report."""
    out, page = tmp_path / "out", tmp_path / "page"
    command = ("eval", "compare", "--model", chatty, "--suite", LOOKUP, "--text", text, "--plan", "int8=--format int8")
    result = cli(*command, "--out", out, "--json")
    assert result.code == 0, result.err
    told = result.json
    assert (told["verb"], told["regime"], told["baseline"], told["trained"]) == ("compare", "agnostic", "full", 256)
    assert told["plans"] == {"full": "", "int8": "--format int8"}
    assert [(row["task"], row["plan"]) for row in told["rows"]] == [
        (task, plan) for task in ("single", "count", "all") for plan in ("full", "int8")
    ]
    base, other = told["rows"][-2:]
    assert (base["questions"], base["change"], other["against"]) == (4, None, "full")
    assert other["change"] == pytest.approx(other["score"] - base["score"])
    assert other["kv_bytes_peak"] > 0
    assert base["decode_ms_per_token"] > 0
    assert other["on_front"] in (True, False)
    assert len(list(out.glob("*.raw.jsonl"))) == 2
    assert "1 of 2: full on lookup" in result.err
    drawn = cli("eval", "report", out, "--out", page, "--title", "Two plans", "--json")
    assert drawn.code == 0, drawn.err
    assert drawn.json["evaluations"] == 2
    numbers = json.loads((page / "report.json").read_text())
    shown = [{key: row[key] for key in ("plan", "task", "score", "low", "high")} for row in numbers["scores"]]
    assert shown == [{key: row[key] for key in ("plan", "task", "score", "low", "high")} for row in told["rows"]]
    assert numbers["evaluations"][1]["command"].endswith("--format=int8 --regime=agnostic")


def test_people_see_a_table(cli, chatty, text, here):
    suites = ("--suite", LOOKUP, "--suite", "perplexity:length=100,samples=3")
    plans = ("--plan", "small=--evict sliding_window:budget=128", "--plan", "int4=--format int4")
    result = cli("eval", "compare", "--model", chatty, *suites, *plans, "--text", text)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split()[:3] == ["task", "plan", "score"]
    assert [line.split()[:2] for line in lines[1:10]] == [
        [task, plan] for task in ("single", "count", "all") for plan in ("full", "small", "int4")
    ]
    assert len({len(line) for line in lines[:10]}) == 1
    assert any(line.startswith("task") and "perplexity" in line for line in lines[10:])
    assert f"{LOOKUP}: 3 plans: 4 questions about 4 texts of 500 tokens, query-agnostic." in lines


def test_the_samples_are_the_same_and_the_regime_is_given(cli, chatty, text, here):
    cli("eval", "compare", "--model", chatty, "--suite", LOOKUP, "--text", text, "--regime", "aware",
        "--plan", "kept=--evict snapkv:budget=160", "--no-full", "--plan", "all=", "--seed", 5)  # fmt: skip
    assert len(here) == 2
    for args in here:
        assert {"--seed=5", "--regime=aware", "--samples=2", "--ability=single", "--ability=count"} <= set(args)
    assert "--evict=snapkv:budget=160" in here[0]
    assert not any(word.startswith("--evict") for word in here[1])


def test_an_interrupted_comparison_goes_on(cli, chatty, text, here, tmp_path, monkeypatch):
    command = ("eval", "compare", "--model", chatty, "--suite", LOOKUP, "--text", text, "--batch", 1)
    plans = ("--plan", "int8=--format int8")
    whole = cli(*command, *plans, "--out", tmp_path / "whole", "--json").json
    del here[:]
    session, calls = LLM.session, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return session(self, *args)

    monkeypatch.setattr(LLM, "session", interrupted)
    out = tmp_path / "out"
    assert cli(*command, *plans, "--out", out).code == 130
    assert len(here) == 2
    [raw] = [path for path in out.glob("*.raw.jsonl") if "int8" in path.name]
    left = raw.read_text().splitlines()
    assert 1 < len(left) < 5, "a header and some of the four samples"
    monkeypatch.setattr(LLM, "session", session)
    result = cli(*command, *plans, "--out", out, "--json")
    assert result.code == 0, result.err
    assert len(here) == 3, "the finished one is not run again"
    assert raw.read_text().splitlines()[: len(left)] == left
    figures = [
        [{name: row[name] for name in ("plan", "task", "score", "low", "high", "change", "won")} for row in one["rows"]]
        for one in (whole, result.json)
    ]
    assert figures[0] == figures[1]
    more = cli(*command, *plans, "--plan", "fp8=--format fp8", "--out", out, "--json")
    assert len(here) == 4, "a plan that is added is the only one to run"
    assert [row["plan"] for row in more.json["rows"]][-3:] == ["full", "int8", "fp8"]


def test_a_folder_of_another_comparison_is_refused(cli, chatty, text, here, tmp_path):
    command = (
        "eval",
        "compare",
        "--model",
        chatty,
        "--suite",
        LOOKUP,
        "--text",
        text,
        "--no-full",
        "--out",
        tmp_path / "o",
    )
    assert cli(*command, "--plan", "a=").code == 0
    result = cli(*command, "--plan", "a=--format int8")
    assert (result.code, result.out) == (2, "")
    assert "was made with nothing where now --format=int8 is asked for; give a new folder" in result.err
    [kept] = [path for path in (tmp_path / "o").glob("*.json") if path.name != "comparison.json"]
    kept.write_text("{}")
    assert "is no evaluation of a comparison" in cli(*command, "--plan", "a=").err


def test_a_plan_that_does_not_fit_does_not_end_the_others(cli, chatty, text, here):
    command = ("eval", "compare", "--model", chatty, "--suite", LOOKUP, "--text", text)
    result = cli(*command, "--plan", "tiny=--memory 20kB", "--json")
    assert result.code == 0, result.err
    [failure] = result.json["failures"]
    assert (failure["plan"], failure["suite"]) == ("tiny", LOOKUP)
    assert {row["plan"] for row in result.json["rows"]} == {"full"}
    alone = cli(*command, "--no-full", "--plan", "tiny=--memory 20kB")
    assert alone.code != 0
    assert "no plan came to a result" in alone.err


def test_a_text_that_changed_is_refused(cli, chatty, text, here, tmp_path):
    given = ("--model", chatty, "--suite", LOOKUP, "--text", text, "--out", tmp_path / "o")
    assert cli("eval", "compare", *given).code == 0
    before = text.read_text()
    text.write_text(before.replace("nothing", "something"))
    result = cli("eval", "compare", *given, "--plan", "int8=--format int8")
    assert (result.code, result.out, len(here)) == (2, "", 1)
    assert "was made with other content of text; give a new folder, or the content that it had" in result.err
    text.write_text(before)
    assert cli("eval", "compare", *given, "--plan", "int8=--format int8").code == 0
    assert len(here) == 2


def test_a_data_file_that_changed_is_refused(cli, chatty, here, tmp_path):
    data = longbench(tmp_path)
    suite = f"longbench:data={data},datasets=trec,samples=1,length=250"
    given = ("--model", chatty, "--suite", suite, "--out", tmp_path / "o")
    assert cli("eval", "compare", *given).code == 0
    data.write_text(data.read_text().replace("City", "Town"))
    result = cli("eval", "compare", *given)
    assert (result.code, len(here)) == (2, 1)
    assert f"was made with other content of file {data};" in result.err


BAD = [
    ((), "Missing option '--suite'"),
    (("--suite", "magic"), f"suite: unknown method 'magic'; known: {', '.join(SUITES)}"),
    (("--suite", "lookup:colour=red"), "suite: lookup has no option 'colour'"),
    (("--suite", "lookup:length=long"), "suite: lookup:length should be int, got 'long'"),
    (("--suite", "lookup:abilities=magic"), "ability: unknown 'magic'"),
    (("--suite", "lookup", "--plan", "nameless"), "--plan"),
    (("--suite", "lookup", "--plan", "a=--format int3"), "int3"),
    (("--suite", "lookup", "--no-full"), "--no-full leaves no plan"),
    (("--suite", "lookup", "--against", "b"), "--against b: there is no such plan; plans: full"),
    (("--suite", "lookup", "--regime", "both"), "regime: unknown 'both'; known: agnostic, aware"),
    (("--suite", "needles", "--regime", "aware"), "--suite needles: it is always agnostic"),
    (("--suite", "lookup", "--samples", "0"), "samples: 0"),
    (("--suite", "lookup", "--batch", "0"), "batch: 0"),
    (("--suite", "lookup", "--seed", "-1"), "seed: -1"),
    (("--suite", "lookup", "--text", "-"), "--text -: every plan reads the text for itself"),
    (("--suite", "lookup", "--text", "/dev/null"), "it is empty"),
    (("--suite", "lookup", "--page", "48"), "choose one of 16, 32, 64, 128"),
]


@pytest.mark.parametrize(("args", "says"), BAD)
def test_bad_options_are_refused_before_anything_runs(cli, here, args, says):
    result = cli("eval", "compare", "--model", "/no/such/model", *args)
    assert (result.code, result.out, here) == (2, "", [])
    assert says in result.err
    assert result.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_refused(cli, chatty, here, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("eval", "compare", "--model", chatty, "--suite", LOOKUP, "--out", tmp_path / "file" / "o")
    assert (result.code, here) == (2, [])
    assert "give a folder that can be written" in result.err


def test_what_a_process_tells(monkeypatch, tmp_path):
    with pytest.raises(DoesNotFit, match="no room"):
        child.told('{"error": {"type": "DoesNotFit", "message": "no room", "exit_code": 3}}', 3)
    with pytest.raises(LongspanError, match="ended with 1 and told nothing"):
        child.told("", 1)
    dying, real = tmp_path / "python", sys.executable
    monkeypatch.setattr(sys, "executable", str(dying))
    for name, kind in (("SIGKILL", DoesNotFit), ("SIGINT", KeyboardInterrupt), ("SIGTERM", LongspanError)):
        # where tests are started in the background, SIGINT is ignored, and a shell could not change that
        heeded = "" if name == "SIGKILL" else f"signal.signal(signal.{name}, signal.SIG_DFL); "
        dying.write_text(f"#!{real}\nimport os, signal; {heeded}os.kill(os.getpid(), signal.{name})\n")
        os.chmod(dying, 0o755)
        with pytest.raises(kind):
            child.run(["eval", "lookup"])


def test_report_refuses_what_is_no_evaluation(cli, tmp_path):
    for args, says in (
        ((tmp_path / "none.json", "--out", tmp_path / "o"), "none.json: No such file"),
        ((tmp_path, "--out", tmp_path), "the evaluations are in it; give another folder"),
        ((tmp_path, "--out", tmp_path / "o"), "no .json files in this folder"),
        ((tmp_path, "--out", tmp_path / "o", "--trained", "0"), "trained: 0"),
    ):
        result = cli("eval", "report", *args)
        assert (result.code, result.out) == (2, "")
        assert says in result.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_help_imports_no_torch(verb):
    script = (
        f"import sys; from longspan.cli.main import call; call(['eval', '{verb}', '--help']);"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"
    assert max(map(len, done.stdout.splitlines())) <= 80
