"""The built-in models: parameters as published, and the cache of a token, recomputed from their configs."""

from __future__ import annotations

import pytest

from longspan.errors import ModelError
from longspan.plan import caches
from longspan.plan.shapes import KNOWN, find, from_config
from longspan.plan.shapes.known.entry import READ, RECALLED

KIB, GIB = 1 << 10, 1 << 30

# layers, hidden, query heads, stored heads, head dim, reach, KiB of each token in bfloat16, GiB that do not grow
TABLE = {
    "llama-2-7b": (32, 4096, 32, 32, 128, 4096, 512, 0),
    "llama-2-13b": (40, 5120, 40, 40, 128, 4096, 800, 0),
    "llama-2-70b": (80, 8192, 64, 8, 128, 4096, 320, 0),
    "llama-3.1-8b": (32, 4096, 32, 8, 128, 131_072, 128, 0),
    "llama-3.1-70b": (80, 8192, 64, 8, 128, 131_072, 320, 0),
    "llama-3.1-405b": (126, 16_384, 128, 8, 128, 131_072, 504, 0),
    "mistral-7b-v0.1": (32, 4096, 32, 8, 128, 32_768, 0, 0.5),
    "mistral-7b-v0.3": (32, 4096, 32, 8, 128, 32_768, 128, 0),
    "mixtral-8x7b": (32, 4096, 32, 8, 128, 32_768, 128, 0),
    "qwen2.5-7b": (28, 3584, 28, 4, 128, 131_072, 56, 0),
    "qwen2.5-72b": (80, 8192, 64, 8, 128, 131_072, 320, 0),
    "qwen3-8b": (36, 4096, 32, 8, 128, 40_960, 144, 0),
    "qwen3-32b": (64, 5120, 64, 8, 128, 40_960, 256, 0),
    "qwen3-30b-a3b": (48, 2048, 32, 4, 128, 40_960, 96, 0),
    "gemma-2-9b": (42, 3584, 16, 8, 256, 8192, 168, 0.65625),
    "gemma-3-27b": (62, 5376, 32, 16, 128, 131_072, 80, 0.40625),
    "phi-3-mini-128k": (32, 3072, 32, 32, 96, 131_072, 384, 0),
    "deepseek-v2": (60, 5120, 128, 0, 192, 163_840, 67.5, 0),
    "deepseek-v3": (61, 7168, 128, 0, 192, 163_840, 68.625, 0),
    "gpt-oss-20b": (24, 2880, 64, 8, 64, 131_072, 24, 12 * 128 * 2048 / GIB),
    "llama-4-scout": (48, 5120, 40, 8, 128, 10_485_760, 48, 1.125),
}


def test_there_are_enough():
    assert len(KNOWN) >= 25
    assert all(known.source in (READ, RECALLED) for known in KNOWN.values())


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_as_published(name: str):
    known, shape = KNOWN[name], find(name)
    assert shape.parameters == pytest.approx(known.parameters, rel=0.005)
    if known.active is not None:
        assert shape.active_parameters == pytest.approx(known.active, rel=0.01)
    assert known.hub in shape.source
    assert not [note for note in shape.notes if "not given" in note]


@pytest.mark.parametrize("name", TABLE)
def test_shape_and_cache_are_those_of_the_table(name: str):
    shape = find(name)
    layers, hidden, heads, stored, dim, reach, token, constant = TABLE[name]
    first = shape.layers[0]
    assert (len(shape.layers), shape.hidden, first.heads, first.kv_heads) == (layers, hidden, heads, stored)
    assert (first.qk_dim, shape.trained) == (dim, reach)
    assert caches.per_token(shape) / KIB == token
    assert caches.constant(shape) / GIB == constant


def test_layouts_are_those_of_the_table():
    kinds = {name: [layer.kind for layer in find(name).layers] for name in TABLE}
    assert kinds["gemma-2-9b"] == ["sliding", "full"] * 21
    assert (kinds["gemma-3-27b"].count("sliding"), kinds["gemma-3-27b"].count("full")) == (52, 10)
    assert (kinds["llama-4-scout"].count("chunked"), kinds["llama-4-scout"].count("full")) == (36, 12)
    assert {layer.window for layer in find("llama-4-scout").layers} == {8192, None}
    assert kinds["gpt-oss-20b"] == ["sliding", "full"] * 12


def test_windows_are_not_counted_in_full():
    shape = find("gemma-4-31b")
    assert sum(layer.token_numbers for layer in shape.layers) * 2 / KIB == 880  # as calculators do
    assert caches.per_token(find("gemma-4-31b")) / KIB == 80


def test_qwen3_5_has_states():
    shape = find("qwen3.5-27b")
    assert [layer.kind for layer in shape.layers] == ["linear", "linear", "linear", "full"] * 16
    assert caches.per_token(shape) / KIB == 64
    # 48 value heads of 128 × 128 numbers, and three inputs of a convolution over 2 · 16 · 128 + 48 · 128 channels
    assert shape.layers[0].state == 48 * 128 * 128 + 3 * (2 * 16 * 128 + 48 * 128)
    assert caches.constant(shape) == 48 * 4 * shape.layers[0].state


def test_names_are_found_as_people_write_them():
    assert find("Llama-3.1-8B") == find("meta-llama/llama-3.1-8b") == find("llama-3.1-8b")
    with pytest.raises(ModelError, match=r"did you mean llama-3\.1-8b"):
        find("llama-3.1-8")
    with pytest.raises(ModelError, match="no model 'nothing at all': Known: llama-2-7b"):
        find("nothing at all")


def test_a_wrapped_config_gives_the_text_model():
    shape = find("gemma-3-27b")
    assert shape.nested == "text_config"
    assert any("text model alone" in note for note in shape.notes)
    flat = from_config(KNOWN["gemma-3-27b"].config["text_config"], "flat")
    assert flat.nested == ""
    assert flat.parameters == shape.parameters
