"""Launch lines: they parse, their options are the engines' own, and what an engine lacks is said."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from longspan import spec
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.errors import UsageError
from longspan.plan.export import ENGINES, export, scaled
from longspan.plan.hardware import machine
from longspan.plan.scaling import advise
from longspan.plan.shapes import KNOWN, find
from longspan.plan.work import Work

# options and values as the engines' own argument parsers have them
VLLM = {
    "--max-model-len", "--max-num-seqs", "--tensor-parallel-size", "--kv-cache-dtype", "--enable-chunked-prefill",
    "--max-num-batched-tokens", "--hf-overrides", "--quantization",
}  # fmt: skip
SGLANG = {
    "--model-path", "--context-length", "--max-running-requests", "--tp-size", "--kv-cache-dtype",
    "--chunked-prefill-size", "--json-model-override-args", "--quantization",
}  # fmt: skip
LLAMA_CPP = {
    "-m", "-c", "-np", "-fa", "-ctk", "-ctv", "-b", "-ub", "-ngl", "-sm", "-ts", "--rope-scaling", "--rope-scale",
    "--yarn-orig-ctx",
}  # fmt: skip
OPTIONS = {"vllm": VLLM, "sglang": SGLANG, "llama.cpp": LLAMA_CPP}
DTYPES = {
    "vllm": {"fp8", "int8_per_token_head", "int4_per_token_head"},
    "sglang": {"fp8_e4m3", "fp4_mx_block16"},
    "llama.cpp": {"q8_0", "q4_0"},
}


def parsed(line: str) -> dict[str, str]:
    """Options of a command, with their values ("" for those that take none)."""
    words, found = shlex.split(line), {}
    for i, word in enumerate(words):
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit() and word != "-m":
            value = words[i + 1] if i + 1 < len(words) else ""
            found[word] = "" if value.startswith("--") else value
    return found


@pytest.mark.parametrize("engine", OPTIONS)
@pytest.mark.parametrize("format", [None, "int8", "int4", "fp8"])
@pytest.mark.parametrize("name", ["qwen3-8b", "gemma-3-27b", "llama-4-scout", "deepseek-v3", "gpt2"])
def test_lines_parse(engine: str, format: str | None, name: str):
    kept = None if format is None else spec.parse(format, FORMATS, "format")
    shape = find(name)
    for context in (1024, 2 * shape.trained):
        work = Work(context, new=16, format=kept, batch=3, ranks=2 if name != "gpt2" else 1, weights=8, chunk=4096)
        made = export(engine, shape, work, machine("h100x2"))
        assert "\n" not in made.text
        options = parsed(made.text)
        assert set(options) <= OPTIONS[engine]
        for key in ("--kv-cache-dtype", "-ctk", "-ctv"):
            assert (key in options) == (format is not None and key in OPTIONS[engine])
            assert options.get(key) is None or options[key] in DTYPES[engine]
        for key in ("--hf-overrides", "--json-model-override-args"):
            if key in options:
                override = json.loads(options[key])
                inner = override.get("text_config", override)
                assert inner["max_position_embeddings"] == context
        assert int(options.get("--max-num-batched-tokens", 3)) >= 3


def test_a_line_word_by_word():
    work = Work(131_072, ranks=2, batch=4, format=spec.parse("fp8", FORMATS, "format"), chunk=8192)
    made = export("vllm", find("qwen3-8b"), work)
    assert shlex.split(made.text)[:3] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    options = parsed(made.text)
    override = json.loads(options.pop("--hf-overrides"))
    assert options == {
        "--max-model-len": "131072",
        "--max-num-seqs": "4",
        "--tensor-parallel-size": "2",
        "--kv-cache-dtype": "fp8",
        "--enable-chunked-prefill": "",
        "--max-num-batched-tokens": "8192",
    }
    assert override["rope_parameters"] == {
        "rope_theta": 1e6,
        "rope_type": "yarn",
        "factor": 3.2,
        "original_max_position_embeddings": 40_960,
    }
    sglang = parsed(export("sglang", find("qwen3-8b"), work).text)
    assert json.loads(sglang.pop("--json-model-override-args")) == override
    assert sglang == {
        "--model-path": "Qwen/Qwen3-8B",
        "--context-length": "131072",
        "--max-running-requests": "4",
        "--tp-size": "2",
        "--kv-cache-dtype": "fp8_e4m3",
        "--chunked-prefill-size": "8192",
    }
    llama = parsed(export("llama.cpp", find("qwen3-8b"), work).text)
    assert llama == {
        "-c": "524288", "-np": "4", "-fa": "on", "-ctk": "q8_0", "-ctv": "q8_0", "-b": "8192", "-ub": "512",
        "-ngl": "999", "-sm": "tensor", "-ts": "1,1", "--rope-scaling": "yarn", "--rope-scale": "3.2",
        "--yarn-orig-ctx": "40960",
    }  # fmt: skip


def test_what_an_engine_lacks_is_said():
    work = Work(
        32_768,
        evict=spec.parse("h2o", POLICIES, "evict"),
        select=spec.parse("sketch", SELECTIONS, "select"),
        format=spec.parse("int8", FORMATS, "format"),
        weights=4,
    )
    for engine in ENGINES:
        notes = " ".join(export(engine, find("qwen3-8b"), work).notes)
        assert "no option for eviction (h2o)" in notes
        assert "no option for selection (sketch)" in notes
    offloaded = Work(32_768, offloaded=True)
    for engine in ENGINES:
        assert "no option for pages in a file" in " ".join(export(engine, find("qwen3-8b"), offloaded).notes)
    assert not export("vllm", find("qwen3-8b"), Work(32_768)).notes


def test_hf_prints_the_block():
    changed = json.loads(export("hf", find("gemma-3-27b"), Work(262_144)).text)
    block = changed["text_config"]["rope_parameters"]
    assert block["full_attention"] == {"rope_theta": 1e6, "rope_type": "linear", "factor": 16.0}
    assert block["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}
    own = json.loads(export("hf", find("llama-3.1-8b"), Work(131_072)).text)
    assert own["rope_parameters"]["rope_type"] == "llama3"
    given: dict[str, Any] = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    mine = json.loads(export("hf", find("llama-2-7b"), Work(16_384), rope=given).text)
    assert mine == {"max_position_embeddings": 16_384, "rope_parameters": given}


@pytest.mark.parametrize("name", KNOWN)
def test_blocks_are_what_transformers_and_our_own_rope_take(name: str):
    from longspan.rope.declared import declared

    shape = find(name)
    block = scaled(shape, 3 * shape.trained + 5)
    if block is None:
        assert not shape.theta or shape.rope["rope_type"] in ("longrope", "proportional")
        return
    original = int(block.get("original_max_position_embeddings", shape.trained))
    assert float(block["factor"]) * original >= 3 * shape.trained or block["rope_type"] != "yarn"
    if shape.family == "llama4_text":  # its low and high factors are one, which our llama3 has no ramp between
        return
    dim = next(layer.qk_dim for layer in shape.layers if layer.kind != "linear")
    method, geometry = declared(block, dim, 3 * shape.trained + 5)
    assert geometry.theta == shape.theta
    assert type(method).__name__.lower() == block["rope_type"]


def test_own_blocks_are_printed_as_transformers_stores_them():
    gemma = json.loads(export("hf", find("gemma-3-27b"), Work(131_072)).text)["text_config"]["rope_parameters"]
    assert gemma == {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert export("hf", find("gpt2"), Work(1024)).text == "{}"
    assert "has no rope block" in " ".join(export("hf", find("gpt2"), Work(1024)).notes)


def test_what_rotation_has_besides_is_exported():
    shape = find("qwen3.5-27b")
    override = json.loads(parsed(export("vllm", shape, Work(2 * shape.trained)).text)["--hf-overrides"])
    assert override["text_config"]["rope_parameters"]["partial_rotary_factor"] == 0.25
    turned = dataclasses.replace(shape, block={**shape.block, "mrope_section": [11, 11, 10]})
    block = scaled(turned, 2 * shape.trained)
    assert block is not None
    assert (block["rope_type"], block["mrope_section"]) == ("yarn", [11, 11, 10])


def test_beyond_what_engines_take_by_themselves():
    vllm = " ".join(export("vllm", find("gpt2"), Work(2048)).notes)
    assert "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1" in vllm
    llama = export("llama.cpp", find("qwen3-8b"), Work(131_072))
    assert any("--override-kv ARCH.context_length=int:131072" in note for note in llama.notes)
    assert not any("--override-kv" in note for note in export("llama.cpp", find("qwen3-8b"), Work(4096)).notes)
    many = parsed(export("vllm", find("qwen3-8b"), Work(4096, batch=4096, chunk=256)).text)
    assert many["--max-num-batched-tokens"] == "4096"


def test_a_model_of_a_folder_is_called_by_its_path(tmp_path: Path):
    folder = tmp_path / "llama-3.1-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KNOWN["llama-3.1-8b"].config))
    for path in (folder, folder / "config.json"):
        shape = find(str(path))
        assert shape.name == "llama-3.1-8b"
        assert shlex.split(export("vllm", shape, Work(4096)).text)[2] == str(folder.resolve())
        assert not advise(shape, 4096).evidence  # RULER's scores are of the published one
    assert shlex.split(export("vllm", find("llama-3.1-8b"), Work(4096)).text)[2] == KNOWN["llama-3.1-8b"].hub
    assert advise(find("llama-3.1-8b"), 4096).evidence


def test_what_is_not_known():
    with pytest.raises(UsageError, match=r"'ollama' is not known; known: vllm, sglang, llama\.cpp, hf"):
        export("ollama", find("qwen3-8b"), Work(4096))
    assert export("llamacpp", find("qwen3-8b"), Work(4096)).engine == "llama.cpp"


def test_paths_are_quoted():
    made = export("vllm", find("qwen3-8b"), Work(4096), model="/models/my model; rm -rf")
    assert shlex.split(made.text)[2] == "/models/my model; rm -rf"
