"""Each bad input gets its exit code and a message that says what, where and the way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from longspan.errors import StoreError
from longspan.rope import METHODS

RUN = ("run", "--prompt", "hello", "--model", "/no/such/model")  # a bad option is found before the model is missed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "temperature: -1.0"),
        (["--temperature", "nan"], "temperature: nan"),
        (["--temperature", "inf"], "temperature: inf"),
        (["--top-p", "2"], "top_p: 2.0"),
        (["--top-p", "0"], "top_p: 0.0"),
        (["--top-k", "-1"], "top_k: -1"),
        (["--min-p", "nan"], "min_p: nan"),
        (["--repetition-penalty", "0"], "repetition_penalty: 0.0"),
        (["--seed", str(2**70)], f"seed: {2**70} is too large"),
        (["--seed", "-1"], "seed: -1"),
        (["--max-new-tokens", "-1"], "max_new_tokens: -1"),
        (["--logprobs", "-1"], "logprobs: -1"),
        (["--stop", ""], "empty stop string"),
        (["--question", " "], "--question: it is empty"),
        (["--rope", "nope"], f"known: auto, checkpoint, {', '.join(METHODS)}"),
        (["--rope", "yarn:speed=3"], "its options: factor"),
        (["--rope", "yarn:factor=0.5"], "factor 0.5"),
        (["--rope", "yarn:factor=nan"], "factor nan"),
        (["--rope", "yarn:beta_fast=1,beta_slow=2"], "beta_slow 2 must be below beta_fast 1"),
        (["--rope", "auto:factor=2"], "auto takes no options"),
        (["--rope", "checkpoint:factor=2"], "checkpoint takes no options"),
        (["--memory", "plenty"], "write it as 800MB or 1.5GiB"),
        (["--memory", "0"], "at least one byte"),
        (["--memory", "-5MB"], "is no size"),
        (["--page", "48"], "choose one of 16, 32, 64, 128"),
        (["--chunk", "0"], "chunk: 0"),
        (["--prefill", "sparse:speed=2"], "its options: mass, density, block, stride, near, least"),
        (["--prefill", "sparse", "--select", "sketch:pages=8"], "leave out --prefill or --select"),
        (["--prefill", "sparse", "--chunk", "64"], "give 128 or more"),
        (["--backend", "gpu"], "known: torch, reference"),
        (["--dtype", "int7"], "known: auto, float32, bfloat16, float16"),
        (["--device", "tpu"], "known: auto, cpu, cuda"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--file", "/no/such/file"], "--file /no/such/file: there is no such file"),
        (["--file", "/"], "this is a directory"),
        (["--file", "-", "--file", "-"], "once only"),
        (["--seed", "many"], "Invalid value for '--seed'"),
        (["--max-new-tokens", "1e3"], "Invalid value for '--max-new-tokens'"),
        (["--temprature", "1"], "options: --model, --prompt, --file"),
    ],
)
def test_bad_options_are_refused_before_the_model_is_loaded(cli, options, message):
    result = cli(*RUN, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("longspan: error: ")
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["sing"], ["model"], ["run", "--json=3"], ["--sing"]])
def test_a_command_line_that_means_nothing(cli, command):
    result = cli(*command)
    assert (result.code, result.out) == (2, "")
    for verb in ("run", "chat", "demo", "doctor", "model") if command in ([], ["sing"]) else ():
        assert verb in result.err


@pytest.mark.parametrize("text", [[], ["--prompt", ""], ["--file", "EMPTY"], ["--prompt", "", "--file", "EMPTY"]])
def test_an_empty_text(cli, plain, tmp_path, text):
    (tmp_path / "empty").write_text("")
    result = cli("run", "--model", plain, *[str(tmp_path / "empty") if part == "EMPTY" else part for part in text])
    assert result.code == 2
    assert "the text is empty: give --prompt TEXT, or --file PATH" in result.err


def test_a_terminal_is_not_read(cli):
    result = cli("run", terminal=True)
    assert result.code == 2
    assert "give --prompt TEXT or --file PATH, or pipe a text" in result.err


def test_nul_bytes_are_no_text(cli, tmp_path):
    path = tmp_path / "binary"
    path.write_bytes(b"a\0b\0")
    result = cli("run", "--file", path)
    assert result.code == 2
    assert f"--file {path}: not text, 2 NUL bytes" in result.err
    assert "standard input: not text, 1 NUL byte;" in cli("run", stdin=b"\0").err


def test_a_file_that_may_not_be_read(cli, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    result = cli("run", "--file", tmp_path / "secret")
    assert result.code == 2
    assert "Permission denied" in result.err


ENDLESS = "{% for i in range(10**9) %}{% endfor %}"


def spoil(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no model at"),
        (lambda folder: spoil(folder, lambda c: c.update(model_type="bloom")), "ALiBi"),
        (lambda folder: spoil(folder, lambda c: c.update(model_type="sphinx")), "Supported: llama"),
        (lambda folder: spoil(folder, lambda c: c.update(auto_map={"AutoModel": "evil.Model"})), "auto_map"),
        (lambda folder: spoil(folder, lambda c: c.update(num_key_value_heads=0)), "num_key_value_heads"),
        (lambda folder: spoil(folder, lambda c: c.update(hidden_size=128)), "128"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickle"),
        (lambda folder: os.truncate(folder / "model.safetensors", 100_000), "short by"),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{% for i in range(10**9) %}{% endfor %}"),
            "template",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["run", "chat", "model"])
def test_a_model_that_cannot_be_loaded(cli, chatty, tmp_path, verb, spoiled, message):
    folder = shutil.copytree(chatty, tmp_path / "model")
    spoiled(folder)
    command = {"run": ["run", "--prompt", "x", "--model"], "chat": ["chat", "--model"], "model": ["model"]}[verb]
    result = cli(*command, folder)
    if verb == "model" and message == "template":  # it reads the shape only
        assert result.code == 0
        return
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("longspan: error: ")
    assert message in result.err
    assert "Traceback" not in result.err


ALL = ("--evict", "none", "--select", "all")  # nothing may be left out to make it fit


def test_a_text_that_does_not_fit_says_both_numbers(cli, plain):
    result = cli("run", "--model", plain, "--prompt", "x" * 1000, "--memory", "200kB", *ALL)
    assert (result.code, result.out) == (3, "")
    assert "1,000 tokens need 786,432 bytes" in result.err
    assert "holds 256 tokens" in result.err


def test_nan_in_a_layer_names_the_layer(cli, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"].fill_(float("nan"))
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    result = cli("run", "--model", folder, "--prompt", "hello")
    assert (result.code, result.out) == (1, "")
    assert "layer 1 gave NaN or Inf" in result.err


def failing(error):
    def fail(*args, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"),
    [
        (StoreError("it is locked"), 5, "StoreError", "it is locked"),
        (
            RuntimeError("a bug\nwith details"),
            1,
            "RuntimeError",
            "unexpected RuntimeError: a bug (set LONGSPAN_DEBUG=1",
        ),
        (KeyError(), 1, "KeyError", "unexpected KeyError (set"),
        (KeyboardInterrupt(), 130, "Interrupted", "interrupted"),
        (torch.OutOfMemoryError("none left"), 1, "OutOfMemoryError", "none left"),
    ],
)
def test_an_error_is_one_message_and_one_code(cli, monkeypatch, error, code, kind, message):
    monkeypatch.delenv("LONGSPAN_DEBUG", raising=False)
    monkeypatch.setattr("longspan.cli.options.load", failing(error))
    result = cli("run", "--prompt", "x")
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    as_json = cli("run", "--prompt", "x", "--json")
    assert as_json.code == code
    assert as_json.err == result.err
    assert set(as_json.json) == {"error"}
    assert as_json.json["error"]["type"] == kind
    assert message in as_json.json["error"]["message"]
    assert as_json.json["error"]["exit_code"] == code


def test_debug_shows_where(cli, monkeypatch):
    monkeypatch.setenv("LONGSPAN_DEBUG", "1")
    monkeypatch.setattr("longspan.cli.options.load", failing(RuntimeError("a bug")))
    result = cli("run", "--prompt", "x", "--json")
    assert "Traceback" in result.err
    assert result.json["error"]["message"].startswith("unexpected RuntimeError: a bug")


@pytest.mark.parametrize(
    "command", [["run", "--sing", "--json"], ["run", "--seed", "x", "--json"], ["model", "--json"]]
)
def test_a_bad_command_line_is_json_too(cli, command):
    result = cli(*command)
    assert result.code == 2
    assert result.json["error"]["type"] == "UsageError"
    assert result.json["error"]["exit_code"] == 2
    assert result.err.startswith("longspan: error: ")


def test_json_errors_are_one_object_whatever_was_done_before(cli, plain):
    result = cli("run", "--model", plain, "--prompt", "x" * 1000, "--memory", "200kB", *ALL, "--json")
    assert result.json["error"]["type"] == "DoesNotFit"
    assert result.code == result.json["error"]["exit_code"] == 3


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "longspan", "--help"], stdout=write, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write)
    assert done.stderr == b""


def test_unknown_weights_are_refused(cli):
    result = cli("run", "--prompt", "x", "--weights", "int3")
    assert result.code == 2
    assert "weights 'int3' is not known; known: stored, int8, int4" in result.err
