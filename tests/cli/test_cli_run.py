from __future__ import annotations

import math
from pathlib import Path

import pytest

from longspan import LLM

TRAINED = 256
TEXT = "The access code is 48213.\nThe keeper is Flora.\n"
QUESTIONS = ["What is the code?", "Who keeps it?", "What is the code again?"]
SHORT = ("--max-new-tokens", 6, "--ignore-eos")


def asking(*questions: str) -> list[str]:
    return [part for question in questions for part in ("--question", question)]


def test_a_text_is_continued_as_it_stands(cli, chatty):
    result = cli("run", "--model", chatty, "--prompt", TEXT, *SHORT)
    expected = LLM(chatty).generate(TEXT, max_new_tokens=6, ignore_eos=True)
    assert result.code == 0
    assert result.out == expected.text + "\n"
    assert result.err.startswith(f"{len(TEXT)} tokens read (")
    assert "6 written" in result.err
    assert result.err.count("\n") == 1


def test_each_question_is_answered_from_the_text_alone(cli, chatty):
    result = cli("run", "--model", chatty, "--prompt", TEXT, *asking(*QUESTIONS), *SHORT, "--json").json
    llm = LLM(chatty)
    for question, got in zip(QUESTIONS, result["results"], strict=True):
        alone = llm.chat(
            [{"role": "user", "content": f"{TEXT.rstrip()}\n\n{question}"}], max_new_tokens=6, ignore_eos=True
        )
        assert (got["question"], got["text"]) == (question, alone.text)
        assert got["tokens_in"] == alone.tokens_in
    turned = cli("run", "--model", chatty, "--prompt", TEXT, *asking(*QUESTIONS[::-1]), *SHORT, "--json").json
    assert [one["text"] for one in turned["results"]] == [one["text"] for one in result["results"]][::-1]


def test_the_text_is_read_once(cli, chatty):
    result = cli("run", "--model", chatty, "--prompt", TEXT, *asking(*QUESTIONS), *SHORT, "--json").json
    common = len(f"U: {TEXT.rstrip()}\n\n")
    assert result["tokens_in"] == common + sum(len(f"{question}\nA:") for question in QUESTIONS)
    assert result["tokens_out"] == 18
    assert result["prefill_tokens_per_second"] == pytest.approx(result["tokens_in"] / result["prefill_seconds"])


def test_without_a_template_questions_take_a_plain_form(cli, plain):
    result = cli("run", "--model", plain, "--prompt", TEXT, *asking(QUESTIONS[0]), *SHORT, "--json").json
    expected = LLM(plain).generate(
        f"{TEXT.rstrip()}\n\nQuestion: {QUESTIONS[0]}\nAnswer:", max_new_tokens=6, ignore_eos=True
    )
    assert result["results"][0]["text"] == expected.text


def test_people_see_each_question_with_its_answer(cli, chatty):
    result = cli("run", "--model", chatty, "--prompt", TEXT, *asking(*QUESTIONS[:2]), *SHORT)
    texts = cli("run", "--model", chatty, "--prompt", TEXT, *asking(*QUESTIONS[:2]), *SHORT, "--json").json["results"]
    answers = [one["text"].lstrip() for one in texts]
    assert result.out == f"Q: {QUESTIONS[0]}\nA: {answers[0]}\n\nQ: {QUESTIONS[1]}\nA: {answers[1]}\n"


def test_json_says_everything(cli, chatty):
    result = cli("run", "--model", chatty, "--prompt", TEXT, *SHORT, "--json", "--logprobs", 2, "--dtype", "bfloat16")
    assert result.code == 0
    report = result.json
    assert set(report) == {
        "model",
        "prefill",
        "prefill_used",
        "prefill_density",
        "why_no_program",
        "format",
        "evict",
        "select",
        "place",
        "offload",
        "plan_why",
        "disk_bytes",
        "dtype",
        "weights",
        "device",
        "results",
        "tokens_in",
        "tokens_out",
        "prefill_seconds",
        "prefill_tokens_per_second",
        "decode_ms_per_token",
        "kv_bytes_peak",
        "rss_peak_bytes",
        "rope",
        "warnings",
    }
    assert (report["model"], report["dtype"], report["device"]) == (str(chatty), "bfloat16", "cpu")
    assert (report["rope"], report["warnings"]) == ("default", [])
    # 53 tokens fill one page of each lane: 3 layers, 2 KV heads, 64 slots, 16 channels, 2 bytes, keys and values
    assert report["kv_bytes_peak"] == 3 * 2 * 64 * 16 * 2 * 2
    assert report["rss_peak_bytes"] > 1 << 26
    (one,) = report["results"]
    assert set(one) == {
        "question",
        "text",
        "finish_reason",
        "tokens_in",
        "tokens_out",
        "prefill_seconds",
        "decode_ms_per_token",
        "rope",
        "logprobs",
    }
    assert one["question"] is None
    assert (one["finish_reason"], one["tokens_in"], one["tokens_out"]) == ("length", len(TEXT), 6)
    assert len(one["logprobs"]) == 6
    for token in one["logprobs"]:
        assert 0 >= token["logprob"] == token["top"][0]["logprob"] >= token["top"][1]["logprob"]
        assert len(token["top"]) == 2
        assert isinstance(token["token"], str)


def test_a_single_token_has_no_time_per_token(cli, chatty):
    report = cli("run", "--model", chatty, "--prompt", TEXT, "--max-new-tokens", 1, "--json").json
    assert report["decode_ms_per_token"] is None
    assert report["results"][0]["decode_ms_per_token"] is None
    assert "logprobs" not in report["results"][0]


@pytest.mark.parametrize("questions", [[], ["Why?"]])
def test_zero_new_tokens_only_reads(cli, chatty, questions):
    report = cli("run", "--model", chatty, "--prompt", TEXT, *asking(*questions), "--max-new-tokens", 0, "--json").json
    assert report["results"][0]["text"] == ""
    assert report["tokens_out"] == 0
    assert report["tokens_in"] >= len(TEXT)


def test_a_billion_new_tokens_end_with_the_memory(cli, chatty):
    # one page of 64 tokens for each of 6 lanes, 8,192 bytes each in float32: 2 rounds of them
    result = cli(
        *("run", "--model", chatty, "--prompt", TEXT, "--max-new-tokens", 10**9, "--ignore-eos"),
        *("--memory", 2 * 6 * 8192, "--evict", "none", "--select", "all", "--json"),
    )
    assert result.code == 0
    report = result.json
    assert report["results"][0]["finish_reason"] == "memory"
    assert report["kv_bytes_peak"] == 2 * 6 * 8192
    assert report["results"][0]["tokens_in"] + report["tokens_out"] in (128, 129)
    assert "cut off" in report["warnings"][0]
    assert "longspan: warning:" in result.err


def test_the_same_seed_draws_the_same_text(cli, chatty):
    drawn = ("run", "--model", chatty, "--prompt", TEXT, *SHORT, "--temperature", 1, "--seed")
    first, again, other = (cli(*drawn, seed).out for seed in (2**63 - 1, 2**63 - 1, 5))
    assert first == again != other


def test_a_text_ends_before_a_stop_string(cli, plain):
    command = ("run", "--model", plain, "--prompt", "k", "--max-new-tokens", 12, "--ignore-eos", "--json")
    whole = cli(*command).json
    text = whole["results"][0]["text"]
    stop = next(letter for letter in text[2:] if letter.isascii() and letter.isprintable())
    result = cli(
        "run", "--model", plain, "--prompt", "k", "--max-new-tokens", 12, "--ignore-eos", "--stop", stop, "--json"
    )
    assert result.json["results"][0]["text"] == text.split(stop)[0]
    assert result.json["results"][0]["finish_reason"] == "stop"


def test_prompt_files_and_stdin_are_joined_by_an_empty_line(cli, plain, tmp_path):
    (tmp_path / "a").write_text("\ufeffone\n", encoding="utf-8")
    (tmp_path / "b").write_text("")
    options = ("--model", plain, "--max-new-tokens", 0, "--json")
    report = cli(
        *("run", *options, "--prompt", "zero", "--file", tmp_path / "a", "--file", tmp_path / "b", "--file", "-"),
        stdin=b"two",
    ).json
    assert report["tokens_in"] == len("zero\n\none\n\ntwo")
    assert cli("run", *options, stdin=b"only this").json["tokens_in"] == len("only this")


def test_white_space_is_a_text(cli, plain):
    assert cli("run", "--model", plain, "--prompt", " ", *SHORT).code == 0
    assert cli("run", "--model", plain, "--prompt", " \n", "--question", "Why?", *SHORT).code == 0


def test_what_is_not_utf8_is_replaced_and_counted(cli, plain, tmp_path):
    path = tmp_path / "latin"
    path.write_bytes(b"caf\xe9 na\xefve \xef\xbf\xbd")
    result = cli("run", "--model", plain, "--file", path, "--max-new-tokens", 0, "--json")
    assert result.code == 0
    assert result.json["warnings"] == [f"--file {path}: 2 bytes or sequences are not valid UTF-8 and became \ufffd"]
    result = cli("run", "--model", plain, "--prompt", "caf\udce9", "--max-new-tokens", 0)
    assert result.code == 0
    assert "longspan: warning: --prompt: 1 byte or sequence is not valid UTF-8" in result.err


def test_a_text_beyond_the_trained_length_is_scaled(cli, plain):
    long = "long text " * (TRAINED // 5)
    command = ("run", "--model", plain, "--prompt", long, "--max-new-tokens", 2, "--json")
    report = cli(*command).json
    assert report["rope"].startswith("yarn:factor=2.")
    assert report["warnings"] == []
    report = cli(
        "run", "--model", plain, "--prompt", long, "--max-new-tokens", 2, "--rope", "linear:factor=4", "--json"
    ).json
    assert report["rope"] == "linear:factor=4"


def test_without_scaling_the_user_is_warned_once(cli, plain):
    long = "long text " * (TRAINED // 5)
    result = cli(
        "run", "--model", plain, "--prompt", long, *asking(*QUESTIONS), *SHORT, "--rope", "checkpoint", "--json"
    )
    assert result.code == 0
    (warning,) = result.json["warnings"]
    assert f"more than the {TRAINED}" in warning
    assert result.err == f"longspan: warning: {warning}\n"


def test_every_figure_is_finite_or_null(cli, chatty):
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, float) else []

    report = cli(
        "run", "--model", chatty, "--prompt", TEXT, *asking(*QUESTIONS), *SHORT, "--json", "--logprobs", 1
    ).json
    assert all(math.isfinite(number) for number in numbers(report))


def test_backends_agree(cli, chatty):
    texts = {
        cli("run", "--model", chatty, "--prompt", TEXT, *SHORT, "--backend", name, "--page", page, "--chunk", chunk).out
        for name, page, chunk in (("torch", 64, 1024), ("reference", 16, 7))
    }
    assert len(texts) == 1


def test_the_embedded_model_is_the_default(cli, chatty, monkeypatch):
    monkeypatch.setattr("longspan.engine.llm.EMBEDDED", Path(chatty))
    report = cli("run", "--prompt", TEXT, "--max-new-tokens", 1, "--json").json
    assert report["model"] == "embedded"


def test_what_was_foretold_stands_beside_what_was_measured(cli, chatty):
    result = cli("run", "--model", chatty, "--prompt", TEXT * 20, "--format", "int8", *SHORT, "--json").json
    assert result["predicted"]["kv_bytes"] == result["kv_bytes_peak"]
    assert result["predicted"]["kv_bytes_exact"] is True
    several = cli("run", "--model", chatty, "--prompt", TEXT * 20, *asking(*QUESTIONS), *SHORT, "--json").json
    assert several["predicted"]["kv_bytes"] >= several["kv_bytes_peak"]
    assert several["predicted"]["kv_bytes_exact"] is False


def test_a_context_is_planned_for(cli, chatty):
    result = cli(
        "run", "--model", chatty, "--prompt", TEXT, "--context", "2K", "--memory", "600KB", *SHORT, "--json"
    ).json
    assert result["plan_why"] is not None
    assert result["format"] != "dense"
    result = cli("run", "--model", chatty, "--prompt", TEXT * 3, "--context", "100", *SHORT)
    assert result.code == 3
    assert "100 tokens are planned for, the text with its question has about" in result.err
    assert cli("run", "--model", chatty, "--prompt", TEXT, "--context", "12x", *SHORT).code == 2
    result = cli("run", "--model", chatty, "--resume", "kept", "--context", "1K")
    assert result.code == 2
    assert "leave out --context" in result.err
