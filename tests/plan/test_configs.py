"""config.json of any kind, or of none: what is missing, lies or is unknown is said in a sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from longspan.errors import ModelError, UnsupportedModel
from longspan.plan.shapes import KNOWN, find, from_config, gemma4
from longspan.plan.shapes.defaults import DEFAULTS, TURNS
from longspan.plan.shapes.families import FAMILIES
from longspan.plan.work import LONGEST

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 4096,
}


def shape(**changes: Any):
    config = {**LLAMA, **changes}
    return from_config({key: value for key, value in config.items() if value != "gone"}, "mine")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "gone"}, "mine: config lacks hidden_size, which a llama needs"),
        ({"vocab_size": "gone"}, "lacks vocab_size"),
        ({"model_type": "gone"}, "lacks model_type"),
        ({"model_type": 7}, "lacks model_type"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected a whole number from 1 to 10,000"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"num_attention_heads": 4.0}, "num_attention_heads is 4.0"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads evenly"),
        ({"num_attention_heads": 6, "num_key_value_heads": 6}, "hidden_size 64 is not a multiple of 6 attention heads"),
        ({"rope_theta": float("nan")}, "rope_theta is nan; expected a number above 0"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": -2}}, "factor is -2"),
        ({"rope_scaling": "yarn"}, "rope_scaling should be an object"),
        ({"rope_scaling": {"rope_type": 3}}, "rope type 3 should be a name"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes'; expected true or false"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 3 layers"),
        ({"layer_types": ["full_attention", "odd", "odd"]}, "layer 1 is of type 'odd'"),
        ({"layer_types": ["sliding_attention"] * 3}, "config lacks sliding_window"),
        ({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 5}, "5 experts of 4"),
        ({"model_type": "llama", "text_config": "none"}, "text_config should be a JSON object"),
        ({"model_type": "gemma3", "text_config": {}}, "lacks num_hidden_layers"),
    ],
)
def test_what_is_missing_or_lies_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ModelError, match=said):
        shape(**changes)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("mamba2", "mamba2 cannot be counted: its layers mix attention with state-space"),
        ("whisper", "it is an encoder-decoder"),
        ("invented", "no formula for its parameters is known here. Known: llama, mistral"),
        ("deepseek_v32", "it selects tokens by an index of its own"),
    ],
)
def test_unknown_families_are_refused_by_name(family: str, said: str):
    with pytest.raises(UnsupportedModel, match=said):
        shape(model_type=family)


def test_defaults_are_said():
    plain = shape(num_key_value_heads="gone")
    assert plain.layers[0].kv_heads == 4
    assert plain.notes == ("num_key_value_heads is not given: 4, as many as query heads",)
    sliding = shape(model_type="mistral")
    assert sliding.layers[0].window == 4096
    assert sliding.notes == ("sliding_window is not given: 4,096, as mistral has it",)
    assert shape(model_type="mistral", sliding_window=None).layers[0].window is None


def test_defaults_are_those_of_the_families_themselves():
    import transformers

    for family, given in DEFAULTS.items():
        assert family in FAMILIES
        fields = transformers.CONFIG_MAPPING[family].__dataclass_fields__
        for key, value in given.items():
            if key == "global_head_dim":  # taken out of the keywords of gemma4, where 512 is written
                continue
            assert fields[key].default == value, (family, key)


def test_rope_and_lengths():
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    scaled = shape(rope_scaling=yarn, rope_theta=5e5)
    assert (scaled.trained, scaled.original, scaled.theta) == (16_384, 4096, 5e5)
    assert scaled.rope == scaled.block
    assert scaled.rope == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "rope_theta": 5e5
    }  # fmt: skip
    plain = shape(rope_parameters={"rope_type": "default", "rope_theta": 7e4})
    assert (plain.rope, plain.theta) == ({}, 7e4)
    layered = shape(
        model_type="gemma3_text",
        head_dim=16,
        sliding_window=32,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    assert (layered.theta, layered.rope["factor"]) == (1e6, 8.0)


def test_rope_scaling_wins_as_in_transformers():
    linear = {"rope_type": "linear", "factor": 2.0}
    assert shape(rope_scaling=linear, rope_parameters={"rope_type": "default"}).rope["rope_type"] == "linear"
    assert shape(rope_scaling=linear, rope_parameters={}).rope["rope_type"] == "linear"
    assert shape(rope_scaling={}, rope_parameters=linear).rope["rope_type"] == "linear"
    layered = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}
    gemma = shape(
        model_type="gemma3_text", head_dim=16, sliding_window=32, rope_parameters=layered, rope_scaling=linear
    )
    assert gemma.block["full_attention"] == {**linear, "rope_theta": 1e6}
    assert gemma.block["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize("name", KNOWN)
def test_rope_blocks_are_those_of_transformers(name: str):
    import transformers

    if name in ("kimi-k2", "phi-3-mini-128k"):  # not known there; lists of factors that are not kept here
        return
    found, config = find(name), KNOWN[name].config
    text = {key: value for key, value in config.get("text_config", config).items() if key != "model_type"}
    theirs = getattr(transformers.CONFIG_MAPPING[found.family](**copy.deepcopy(text)), "rope_parameters", None)
    assert found.block == (theirs or {})


def test_defaults_of_the_rotated_part():
    import transformers

    for family in FAMILIES:
        if family in transformers.CONFIG_MAPPING:
            rope = getattr(transformers.CONFIG_MAPPING[family](), "rope_parameters", None) or {}
            if "full_attention" not in rope:
                assert rope.get("partial_rotary_factor") == TURNS.get(family), family
    assert transformers.CONFIG_MAPPING["gemma4_text"]().rope_parameters == gemma4.ROPE
    assert shape(model_type="gemma4_text", head_dim=16).block == gemma4.ROPE


def test_what_rotation_has_besides_is_kept():
    mrope = shape(model_type="qwen2", rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]})
    assert mrope.rope == {}
    assert mrope.block == {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    assert shape(partial_rotary_factor=0.75).block["partial_rotary_factor"] == 0.75


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 10**400},
        {"rope_scaling": {"rope_type": "yarn", "factor": 1e308}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 1e30}},
        {"rope_scaling": {"rope_type": "linear", "factor": 10**400}},
    ],
)
def test_numbers_beyond_any_sense(changes: dict[str, Any]):
    with pytest.raises(ModelError, match="expected a number above 0, at most"):
        shape(**changes)


def test_lengths_beyond_any_sense_are_counted_as_the_longest():
    far = shape(max_position_embeddings=1 << 40)
    assert far.trained == LONGEST
    assert any("are claimed, counted as 268,435,456" in note for note in far.notes)
    assert shape(rope_scaling={"rope_type": "yarn", "factor": 1e6}).trained == LONGEST


def test_bytes_of_a_number():
    assert shape(torch_dtype="float32").element == 4
    assert shape(dtype="bfloat16").element == 2
    quantized = shape(quantization_config={"quant_method": "mxfp4"})
    assert any("published with weights in mxfp4" in note for note in quantized.notes)


def test_a_folder_a_file_and_neither(tmp_path: Path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        find(str(folder))
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert find(str(folder)).name == "my-model"
    assert find(str(folder / "config.json")).parameters == find(str(folder)).parameters
    for text, said in (("{", "is not valid JSON"), ("[]", "should hold a JSON object"), ("[" * 10**5, "too deeply")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelError, match=said):
            find(str(folder))


def test_hub_ids_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub import errors

    def offline(*_: object, **__: object) -> str:
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ModelError, match=r"the hub cannot be reached.*did you mean qwen3-8b"):
        find("someone/qwen3-8b-tuned")


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tmp_path / file))
    assert find("someone/tuned").source == "config.json of someone/tuned on the hub"
