"""`doctor`, `model`, `--version` and `--help`."""

from __future__ import annotations

import subprocess
import sys

import checkpoints
import pytest

from longspan import __version__
from longspan.cli import say
from longspan.cli.model import describe
from longspan.kernels import BACKENDS, cpu
from longspan.plan.here import processor
from longspan.rope import METHODS, LongRope, Yarn


def test_version(cli):
    assert cli("--version").out == f"longspan {__version__}\n"


@pytest.mark.parametrize("verb", ["run", "chat", "demo", "doctor", "model"])
def test_help(cli, verb):
    result = cli(verb, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: longspan {verb} ")
    assert max(map(len, result.out.splitlines())) <= 80
    for method in METHODS if verb in ("run", "chat") else ():
        assert method in result.out


def test_help_imports_no_torch():
    script = (
        "import sys; from longspan.cli.main import call; call(['run', '--help']);"
        "print([name for name in ('torch', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_doctor_says_what_is_here(cli, chatty, monkeypatch):
    monkeypatch.setattr("longspan.engine.llm.EMBEDDED", chatty)
    result = cli("doctor", "--json")
    assert result.code == 0
    report = result.json
    assert report["longspan"] == __version__
    assert report["memory"]["total_bytes"] >= report["memory"]["available_bytes"] > 0
    assert report["backends"] == list(BACKENDS)
    kernels = report["compiled_kernels"]
    assert kernels["available"] == cpu.levels()
    assert kernels["present"] == ("cpu" in BACKENDS) == bool(kernels["available"])
    assert kernels["instruction_set"] in (kernels["available"] or [None])
    assert kernels["in_bytes"] <= (kernels["instruction_set"] == "x86-64-v4-bf16")
    assert set(kernels["widened"]) <= {"bfloat16", "float16"}
    assert report["embedded_model"]["loads"] is report["ok"] is True
    assert isinstance(report["cpu"]["features"], list)
    human = cli("doctor")
    assert human.code == 0
    for word in ("torch", "CPU features", "threads", "backends", "compiled kernels", "loads; llama"):
        assert word in human.out


def test_doctor_fails_when_the_embedded_model_does(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("longspan.engine.llm.EMBEDDED", tmp_path)
    result = cli("doctor")
    assert result.code == 1
    assert "missing" in result.out
    assert cli("run", "--prompt", "x").code == 3
    (tmp_path / "config.json").write_text("{")
    result = cli("doctor", "--json")
    assert result.code == 1
    assert result.json["embedded_model"]["present"] is True
    assert result.json["ok"] is False


def test_the_cpu_is_read_from_linux_and_guessed_elsewhere(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor : 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 amx_tile avx512f\n\nmodel name\t: Other\n"
    )
    assert processor(path) == ("Fast 9000", ["avx2", "avx512f", "amx_tile"])
    path.write_text("Features\t: fp asimd sve\n")
    assert processor(path)[1] == ["asimd", "sve"]
    name, features = processor(tmp_path / "missing")
    assert name
    assert features == []


def test_model_counts_the_cache(cli, chatty):
    result = cli("model", chatty, "--json")
    assert result.code == 0
    report = result.json
    assert report["supported"] is True
    assert report["family"] == "llama"
    assert (report["layers"], report["full_layers"], report["sliding_layers"]) == (3, 3, 0)
    assert (report["heads"], report["kv_heads"], report["head_dim"]) == (4, 2, 16)
    assert report["rope"] == {"all": {"method": "default", "theta": 10000.0, "channels": 16, "original_tokens": 256}}
    assert report["trained_tokens"] == 256
    per_token = 2 * 3 * 2 * 16 * 4
    assert (report["dtype"], report["kv_bytes_per_token"]) == ("float32", per_token)
    assert report["kv_bytes"] == {str(n): n * per_token for n in (4096, 32768, 131072)}
    halved = cli("model", chatty, "--json", "--dtype", "bfloat16").json
    assert halved["kv_bytes_per_token"] == per_token // 2
    human = cli("model", chatty).out
    for words in ("3: 3 full", "4 query, 2 KV", "768 bytes in float32", "KV for 128K", "100.7 MB"):
        assert words in human


def test_model_bounds_windows_and_tells_ropes_apart(cli, tmp_path):
    checkpoints.make("gemma3_text", tmp_path)
    report = cli("model", tmp_path, "--json").json
    assert (report["full_layers"], report["sliding_layers"], report["sliding_windows"]) == (2, 2, [32])
    assert {kind: rope["theta"] for kind, rope in report["rope"].items()} == {
        "full_attention": 100000.0,
        "sliding_attention": 10000.0,
    }
    grows = [report["kv_bytes"][str(n)] for n in (4096, 32768, 131072)]
    assert grows[2] - grows[1] == (131072 - 32768) * report["kv_bytes_per_token"] // 2
    human = cli("model", tmp_path).out
    assert "2 full, 2 sliding (window 32)" in human
    assert "rope (full attention)" in human


def test_model_reads_no_weights(cli, chatty, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    assert cli("model", chatty).code == 0


def test_lists_of_factors_are_counted():
    assert describe(Yarn(factor=4.0)) == "yarn:factor=4"
    method = LongRope(short_factor=(1.0,) * 8, long_factor=(2.0,) * 8, factor=4.0)
    assert describe(method) == "longrope:short_factor=(8 factors),long_factor=(8 factors),factor=4"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (98304, "98.3 kB"), (999_999, "1.0 MB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes(count, text):
    assert say.size(count) == text
