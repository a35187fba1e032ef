"""`longspan plan`: the page, the object, and what is refused."""

from __future__ import annotations

import re
import time

import pytest

PLAN = ("plan", "llama-3.1-8b")


@pytest.fixture(autouse=True)
def uncalibrated(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_fits(cli):
    result = cli(*PLAN, "--context", "128K", "--hardware", "h100")
    assert (result.code, result.err) == (0, "")
    assert "8.03B parameters; 32 layers" in result.out
    assert re.search(r"Fits: 34\.\d GB of 80\.0 GB a device; at most 47\d,\d+ tokens fit", result.out)
    assert "attention (compute)" in result.out
    assert "cache (bandwidth)" in result.out
    assert "128K" in result.out
    assert "RULER" in result.out
    assert "What would fit" not in result.out


def test_what_does_not_fit_says_what_would(cli):
    result = cli(*PLAN, "--context", "1M", "--hardware", "h100")
    assert result.code == 3
    assert "Does not fit: 154.8 GB of 80.0 GB" in result.out
    assert "--format int4: 58.2 GB of 80.0 GB" in result.out
    assert "--hardware h100x2" in result.out
    assert "--context 477888" in result.out
    assert result.err == "longspan: does not fit: 154.8 GB of 80.0 GB a device; nearest: --format int4\n"


def test_what_would_fit_fits(cli):
    nearest = cli(*PLAN, "--context", "1M", "--hardware", "h100", "--json").json["nearest"]
    assert {near["kind"] for near in nearest} == {"plan", "hardware", "context"}
    for near in nearest:
        words = near["words"].split()
        if near["kind"] == "hardware":
            result = cli(*PLAN, "--context", "1M", *words, "--json")
        elif near["kind"] == "context":
            result = cli(*PLAN, *words, "--hardware", "h100", "--json")
        else:
            result = cli(*PLAN, "--context", "1M", "--hardware", "h100", *words, "--json")
        assert result.code == 0, near
        assert result.json["memory"]["total"] == near["bytes"] <= near["limit"]


KEYS = {
    "schema_version",
    "model",
    "work",
    "machine",
    "limit",
    "fits",
    "max_context",
    "unbounded",
    "memory",
    "resident",
    "engines",
    "latency",
    "curve",
    "scaling",
    "losses",
    "loss_sources",
    "losses_elsewhere",
    "warnings",
    "options",
    "nearest",
    "task",
    "cost",
    "capacity",
    "export",
    "verdicts",
}


def test_the_object(cli):
    found = cli(
        *PLAN, "--context", "64K", "--hardware", "h100x2", "--task", "document-qa", "--price", "2.5", "--lengths",
        "4K:70,32K:30", "--rate", "1", "--ttft", "10", "--quality", "5", "--format", "int8", "--json",
    ).json  # fmt: skip
    assert set(found) == KEYS
    assert found["schema_version"] == 1
    assert found["fits"] is True
    assert found["model"]["kv_bytes_per_token"] == 131072
    assert found["work"]["ranks"] == found["machine"]["devices"] == 2
    assert sum(part["bytes"] for part in found["memory"]["parts"]) == found["memory"]["total"]
    for phase in ("prefill", "decode_first", "decode_last"):
        seconds = found["latency"][phase]["seconds"]
        assert 0 < seconds["low"] <= seconds["mid"] <= seconds["high"]
        assert found["latency"][phase]["binds"]
        assert all(term["formula"] for term in found["latency"][phase]["terms"])
    assert found["losses"]["int8"].startswith("+0.0 points")
    assert found["loss_sources"] == [
        "docs/measurements.md, 2026-11-24, What formats, evictions and selections cost in answers"
    ]
    assert [way["name"] for way in found["cost"]["ways"]] == ["cold", "cached", "rag", "hybrid"]
    assert found["cost"]["price"] == 5.0  # both devices
    assert all(way["dollars"] == pytest.approx(way["seconds"] / 3600 * 5) for way in found["cost"]["ways"])
    assert found["capacity"]["room"]["worst"] <= found["capacity"]["room"]["sure"]
    assert found["capacity"]["served"]["ttft_p95"] <= 10
    assert found["task"]["enough"]
    assert found["options"][0]["words"] == ""
    assert len(found["verdicts"]) == 7
    memory = [point["memory"] for point in found["curve"]]
    assert memory == sorted(memory)
    assert 65536 in [point["context"] for point in found["curve"]]


def test_every_question_has_its_place_on_the_page(cli):
    result = cli(
        *PLAN, "--context", "64K", "--hardware", "h100", "--task", "book", "--price", "2.5", "--lengths", "4K,32K",
        "--rate", "1", "--ttft", "10", "--quality", "5", "--explain",
    )  # fmt: skip
    assert result.code == 0
    for words in (
        "Task book: 107,067 to 268,667 tokens. 65,536 are too few",
        "Questions about 65,280 tokens",
        "hybrid",
        "$",
        "Texts at once",
        "1 requests a second",
        "Poisson",
        "Plans by expected loss",
        "as asked",
        "Formulas",
        "32 full layers × 8 KV heads",
        "What is often said",
        "prefill scales linearly",
        "vLLM applies dynamic NTK by itself",
    ):
        assert words in " ".join(result.out.split())


@pytest.mark.parametrize(
    "more",
    [
        ["--explain", "--price", "2", "--quality", "10", "--rate", "0.2", "--ttft", "30", "--task", "multi-document"],
        ["--hardware", "h100x8"],
        ["--compare", "qwen3-8b", "--compare", "--hardware h200 --format int4"],
    ],
)
def test_eighty_columns_and_no_colour_are_enough(cli, more):
    result = cli(*PLAN, "--context", "256K", "--hardware", "h100", *more)
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out


def test_a_rate_that_no_number_of_devices_serves(cli):
    result = cli(*PLAN, "--context", "128K", "--hardware", "h100", "--rate", "1", "--ttft", "0.1", "--json")
    assert result.code == 3
    assert "reading, and one step, take" in result.err
    assert result.json["capacity"]["served"] is None
    assert "reading, and one step, take" in result.json["capacity"]["problem"]


def test_plans_side_by_side(cli):
    result = cli(
        *PLAN, "--context", "128K", "--hardware", "h100", "--compare", "qwen3-8b", "--compare",
        "--hardware rtx-4090 --format int4",
    )  # fmt: skip
    assert result.code == 0
    assert "qwen3-8b" in result.out
    assert re.search(r"^fits +yes +yes +yes$", result.out, re.M)
    found = cli(*PLAN, "--context", "128K", "--hardware", "h100", "--compare", "--context 4M", "--json")
    plans = found.json["plans"]
    assert len(plans) == 2
    assert [plan["fits"] for plan in plans.values()] == [True, False]
    assert all(set(plan) == KEYS for plan in plans.values())
    assert found.code == 0


def test_the_exit_code_is_that_of_the_plan_asked_for(cli):
    assert cli(*PLAN, "--context", "1M", "--hardware", "h100", "--compare", "--context 4K").code == 3
    assert cli(*PLAN, "--context", "4K", "--hardware", "h100", "--compare", "--context 1M").code == 0


def test_plans_of_the_same_words_are_numbered(cli):
    same = ("--compare", "qwen3-8b", "--compare", "qwen3-8b", "--compare", "llama-3.1-8b")
    found = cli(*PLAN, "--context", "4K", "--hardware", "h100", *same, "--json").json["plans"]
    assert list(found) == ["llama-3.1-8b h100 4K", "qwen3-8b", "qwen3-8b (2)", "llama-3.1-8b"]


def test_a_token_beside_others_is_of_the_format(cli):
    words = ("--context", "128K", "--hardware", "h100", "--format", "int4", "--compare", "--format dense")
    row = re.search(r"^KV a token +(\S+) kB +(\S+) kB$", cli(*PLAN, *words).out, re.M)
    assert row is not None
    assert float(row[1]) < float(row[2]) / 3 < 131.1 / 3 + 0.1


def test_no_times_of_pages_in_a_file(cli):
    found = cli(*PLAN, "--context", "512K", "--hardware", "h100", "--offload", "--json").json
    assert found["latency"] is None
    assert all(point["decode_ms"] is None for point in found["curve"])
    assert any("pages in a file are not measured" in note for note in found["warnings"])
    for more in (["--price", "1"], ["--rate", "1", "--ttft", "9"]):
        result = cli(*PLAN, "--context", "512K", "--hardware", "h100", "--offload", *more)
        assert result.code == 2
        assert "leave out --offload" in result.err
    near = cli("plan", "llama-3.1-8b", "--context", "1M", "--hardware", "l40s", "--json").json["nearest"]
    filed = [one for one in near if "--offload" in one["words"]]
    assert filed
    assert all("how long pages in a file take was not measured" in one["note"] for one in filed)


def test_another_card_counts_with_its_own_memory(cli):
    words = ("--context", "1M", "--hardware", "h100")
    near = cli(*PLAN, *words, "--memory", "60GB", "--json").json["nearest"]
    cards = [one for one in near if one["kind"] == "hardware"]
    assert [one["words"] for one in cards] == ["--hardware h100x4", "--hardware b200"]
    assert "without --memory" in cards[1]["note"]
    assert cli(*PLAN, *words, "--memory", "60GB", "--hardware", "h100x4").code == 0
    assert cli(*PLAN, *words, "--hardware", "b200").code == 0


def test_what_was_given_as_0_is_given(cli):
    free = cli(*PLAN, "--context", "4K", "--hardware", "h100", "--price", "0", "--json").json["cost"]
    assert [way["dollars"] for way in free["ways"]] == [0.0] * 4
    still = cli(*PLAN, "--context", "4K", "--hardware", "h100", "--updates", "0", "--json").json["cost"]
    assert still["updates_a_day"] == 0
    beside = cli(*PLAN, "--context", "4K", "--hardware", "h100", "--compare", "qwen3-8b", "--price", "0")
    assert beside.code == 2
    assert "nothing is said of --price" in beside.err


def test_ways_are_counted_for_one_text(cli):
    found = cli(*PLAN, "--context", "128K", "--batch", "16", "--hardware", "h100", "--price", "1", "--json").json
    assert found["fits"] is False
    assert all(way["possible"] for way in found["cost"]["ways"])


def test_no_text_of_a_mix_fits(cli):
    result = cli(*PLAN, "--context", "4K", "--hardware", "h100", "--lengths", "1M")
    assert result.code == 3
    assert "the longest text of --lengths does not fit" in result.err


def test_a_long_plan_answers_soon(cli):
    begun = time.perf_counter()
    found = cli(*PLAN, "--context", "100M", "--hardware", "h100", "--json")
    assert found.code == 3
    large = cli(*PLAN, "--context", "40K", "--evict", "h2o:budget=1000000000", "--hardware", "h100", "--json")
    assert large.code == 0
    assert time.perf_counter() - begun < 20


def test_none_of_several_fits(cli):
    result = cli(*PLAN, "--context", "1M", "--hardware", "l4", "--compare", "--hardware t4")
    assert result.code == 3


def test_a_memory_in_place_of_the_hardwares(cli):
    found = cli(*PLAN, "--context", "4K", "--memory", "18GB", "--json")
    assert found.code == 0
    assert found.json["machine"] is None
    assert found.json["latency"] is None
    assert found.json["limit"] == 18 * 10**9
    less = cli(*PLAN, "--context", "128K", "--hardware", "h100", "--memory", "18GB", "--json")
    assert less.code == 3
    assert less.json["limit"] == 18 * 10**9
    assert less.json["latency"] is not None


def test_an_eviction_is_told_with_what_others_measured(cli):
    result = cli(*PLAN, "--context", "64K", "--hardware", "h100", "--evict", "snapkv:budget=32768")
    words = " ".join(result.out.split())
    assert "snapkv:budget=32768: -75.0 points (-82.4 to -64.8" in words
    assert "elsewhere: 67 of 95.4 with 50 % removed (RULER 4k" in words


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp", "hf"])
def test_a_launch_line(cli, engine):
    result = cli(
        "plan", "qwen3-8b", "--context", "128K", "--hardware", "h100x2", "--export", engine, "--format", "int8"
    )
    assert result.code == 0
    assert f"For {engine}" in result.out
    assert "yarn" in result.out
    found = cli("plan", "qwen3-8b", "--hardware", "h100", "--evict", "h2o", "--export", engine, "--json").json["export"]
    assert found["engine"] == engine
    assert any("no option for eviction" in note for note in found["notes"])


def test_a_picture(cli, tmp_path):
    path = tmp_path / "plan.png"
    result = cli(*PLAN, "--context", "128K", "--hardware", "h100", "--compare", "qwen3-8b", "--plot", path)
    assert result.code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(path.read_bytes()) > 10_000


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["plan"], 2, "name one, as in longspan plan llama-3.1-8b"),
        (["plan", "lama-3.1-8b"], 3, "did you mean llama-3.1-8b"),
        ([*PLAN, "--hardware", "h1000"], 2, "did you mean h100"),
        ([*PLAN, "--hardware", "h100x0"], 2, "devices"),
        ([*PLAN, "--hardware", "h100x5"], 2, "cannot be split over 5 devices"),
        ([*PLAN, "--context", "-4K"], 2, "give tokens, as in 4096, 128K or 1M"),
        ([*PLAN, "--context", "0"], 2, "give from 1 to"),
        ([*PLAN, "--context", "1e6"], 2, "give tokens"),
        ([*PLAN, "--new", "-1"], 2, "--new: -1; give 0 or more"),
        ([*PLAN, "--context", "128", "--new", "128"], 2, "which holds the prompt too"),
        ([*PLAN, "--batch", "0"], 2, "--batch: 0; give 1 or more"),
        ([*PLAN, "--chunk", "0"], 2, "--chunk: 0"),
        ([*PLAN, "--page", "63"], 2, "choose one of"),
        ([*PLAN, "--memory", "-1GB"], 2, "is no size"),
        ([*PLAN, "--memory", "0"], 2, "at least one byte"),
        ([*PLAN, "--format", "int3"], 2, "known: dense, int8, int4, fp8"),
        ([*PLAN, "--evict", "h2o:budget=16"], 2, "raise budget"),
        ([*PLAN, "--evict", "h2o", "--offload"], 2, "leave out --offload or --evict"),
        ([*PLAN, "--format", "int4", "--evict", "h2o:merge=true"], 2, "merging"),
        ([*PLAN, "--weights", "int3"], 2, "known: stored, fp8, int8, int4"),
        ([*PLAN, "--dtype", "int8"], 2, "known: auto, float32"),
        ([*PLAN, "--task", "poetry"], 2, "known: chat, code-completion"),
        ([*PLAN, "--quality", "-1", "--hardware", "h100"], 2, "0 to 100"),
        ([*PLAN, "--price", "-1", "--hardware", "h100"], 2, "price"),
        ([*PLAN, "--price", "nan", "--hardware", "h100"], 2, "price"),
        ([*PLAN, "--corpus", "0", "--hardware", "h100"], 2, "corpus"),
        ([*PLAN, "--price", "1", "--questions", "0", "--hardware", "h100"], 2, "questions"),
        ([*PLAN, "--price", "1", "--memory", "80GB"], 2, "no machine was named; give --hardware NAME"),
        ([*PLAN, "--rate", "1", "--hardware", "h100"], 2, "give --ttft too"),
        ([*PLAN, "--ttft", "1", "--hardware", "h100"], 2, "nothing else depends on it"),
        ([*PLAN, "--compare", "qwen3-8b", "--task", "book"], 2, "nothing is said of --task"),
        ([*PLAN, "--compare", "qwen3-8b", "--explain"], 2, "nothing is said of --explain"),
        ([*PLAN, "--updates", "-1", "--hardware", "h100"], 2, "updates"),
        ([*PLAN, "--rate", "0", "--ttft", "1", "--hardware", "h100"], 2, "above 0"),
        ([*PLAN, "--lengths", "4K:0", "--hardware", "h100"], 2, "4K:70"),
        ([*PLAN, "--export", "tgi"], 2, "known: vllm, sglang, llama.cpp, hf"),
        ([*PLAN, "--compare", ""], 2, "give a model, options or both"),
        ([*PLAN, "--compare", "--sing"], 2, "options: --context"),
        ([*PLAN, "--compare", "--batch x"], 2, "give a number"),
        ([*PLAN, "--compare", "--offload=false"], 2, "takes no value"),
        ([*PLAN, "--context", "300M"], 2, "give from 1 to 268,435,456"),
        (["plan", "~nosuchuser/x"], 3, "cannot be read"),
        ([*PLAN, "--ttft", "0", "--hardware", "h100"], 2, "nothing else depends on it"),
        ([*PLAN, "--compare", "--batch"], 2, "needs a value"),
        ([*PLAN, "--compare", '"'], 2, "No closing quotation"),
        ([*PLAN, "--plot", "x.gif"], 2, ".png"),
        ([*PLAN, "--plot", "/no/such/x.png"], 2, "in a folder that is there"),
    ],
)
def test_what_has_no_meaning_is_refused_with_a_sentence(cli, words, code, message):
    result = cli(*words)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("longspan: error: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    as_json = cli(*words, "--json")
    assert as_json.code == code
    assert as_json.json["error"]["exit_code"] == code
