"""The table of bad inputs, rows 1 to 8: what each gets, before anything is allocated or imported."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import safetensors.torch

from longspan.errors import LongspanError, ModelError
from longspan.model import inspect, load

pytestmark = pytest.mark.usefixtures("no_weights")


def refused(folder: Path, message: str) -> None:
    for attempt in (inspect, load):
        with pytest.raises(ModelError, match=message) as caught:
            attempt(folder)
        assert caught.value.exit_code == 3
        assert isinstance(caught.value, LongspanError)
        assert "Traceback" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_truncated_file(llama: Path) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(llama, r"model\.safetensors is short by 1,000 bytes")


def test_a_header_of_absurd_length(llama: Path) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes((2**63).to_bytes(8, "little") + weights.read_bytes()[8:])
    refused(llama, "claims a header of 9,223,372,036,854,775,808 bytes")


def test_overlapping_offsets(llama: Path) -> None:
    weights = llama / "model.safetensors"
    whole = weights.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    names = sorted((name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    header[names[1]]["data_offsets"] = [place - 4 for place in header[names[1]]["data_offsets"]]
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    refused(llama, f"{names[1]} overlaps {names[0]}")


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 128}, r"has shape \[256, 64\], but config.json asks for \[256, 128\]"),
    ({"num_key_value_heads": 4}, r"k_proj\.weight has shape \[32, 64\], but config.json asks for \[64, 64\]"),
    ({"num_attention_heads": 8}, r"has shape \[64, 64\], but config.json asks for \[128, 64\]"),
    ({"intermediate_size": 1 << 20}, r"has shape \[96, 64\], but config.json asks for \[1048576, 64\]"),
    ({"vocab_size": 1 << 24}, r"embed_tokens\.weight has shape \[256, 64\], but config.json asks for \[16777216, 64\]"),
    ({"num_hidden_layers": 4}, r"the files lack model\.layers\.3\."),
    ({"num_hidden_layers": 2}, r"model\.layers\.2\..* has no place in config\.json's model"),
    ({"attention_bias": True}, r"the files lack model\.layers\.0\.self_attn\.q_proj\.bias \[64\]"),
    ({"head_dim": 32}, r"has shape \[64, 64\], but config.json asks for \[128, 64\]"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_a_config_that_contradicts_the_tensors(
    llama: Path, edit: Callable[..., None], changes: dict[str, Any], message: str
) -> None:
    edit(llama / "config.json", **changes)
    refused(llama, message)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_an_expert_of_another_shape(families: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    folder = Path(shutil.copytree(families(family), tmp_path / family))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if "experts" in name and tensors[name].dim() > 1)
    held = list(tensors[name].shape)
    tensors[name] = tensors[name][..., :-1].contiguous()
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    refused(folder, f"{name} has shape .*, but config.json asks for {held}".replace("[", r"\[").replace("]", r"\]"))


def test_an_expert_that_is_missing(families: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(families("mixtral"), tmp_path / "mixtral"))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    refused(folder, r"the files lack model\.layers\.1\.mlp\.experts\.2\.w3\.weight \[96, 64\]")


def test_a_tensor_of_integers(llama: Path) -> None:
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].char()
    safetensors.torch.save_file(tensors, llama / "model.safetensors")
    refused(llama, "model.norm.weight is I8; quantized weights are not supported yet")


SIZES: list[tuple[dict[str, Any], str]] = [
    ({"num_key_value_heads": 0}, "num_key_value_heads is 0; expected a whole number from 1"),
    ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads"),
    ({"num_key_value_heads": 8}, "4 attention heads cannot share 8 key-value heads"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected"),
    ({"num_hidden_layers": 5000}, "5,000 layers, but the files hold 30 tensors"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"num_hidden_layers": 3.0}, r"num_hidden_layers is 3\.0"),
    ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    ({"num_hidden_layers": "3"}, "num_hidden_layers is 3; expected a whole number"),
    ({"num_hidden_layers": None}, "num_hidden_layers is None"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ({"num_attention_heads": -4}, "num_attention_heads is -4"),
    ({"head_dim": 0}, "head_dim is 0"),
    ({"hidden_size": 2**62}, "hidden_size is"),
    ({"vocab_size": 0}, "vocab_size is 0"),
    ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
    ({"rms_norm_eps": "small"}, "transformers refuses it"),
    ({"hidden_act": "os.system"}, "no model can be built from it"),
    ({"pad_token_id": 10**6}, "no model can be built from it"),
    ({"eos_token_id": "two"}, "transformers refuses it|eos_token_id"),
    ({"model_type": ...}, "lacks model_type"),
    ({"model_type": ["llama"]}, "lacks model_type"),
]


@pytest.mark.parametrize(("changes", "message"), SIZES)
def test_sizes_that_make_no_sense(
    llama: Path, edit: Callable[..., None], changes: dict[str, Any], message: str
) -> None:
    edit(llama / "config.json", **changes)
    refused(llama, message)


ROPES: list[tuple[Any, str]] = [
    ({"rope_type": "linear", "factor": -2.0, "rope_theta": 1e4}, "factor -2"),
    ({"rope_type": "linear", "factor": 0, "rope_theta": 1e4}, "factor 0"),
    ({"rope_type": "linear", "rope_theta": 1e4}, "factor"),
    ({"rope_type": "yarn", "factor": "four", "rope_theta": 1e4}, "factor should be a finite number"),
    ({"rope_type": "default", "rope_theta": 0}, "rope_theta 0 should be above 1"),
    ({"rope_type": "default", "rope_theta": -1e4}, "rope_theta -10000"),
    ({"rope_type": "default", "rope_theta": None}, "rope_theta should be a finite number"),
    ({"rope_type": "magic", "rope_theta": 1e4}, "rope type 'magic' is not supported"),
    ({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}, "llama rotates whole heads"),
    ({"full_attention": {"rope_type": "default", "rope_theta": 1e4}}, "one flat rope block"),
    (
        {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "rope_theta": 1e4},
        "longrope|short_factor",
    ),
    ("linear", "rope_parameters should be an object"),
    ([1], "rope_parameters should be an object"),
]


@pytest.mark.parametrize(("rope", "message"), ROPES)
def test_ropes_that_make_no_sense(llama: Path, edit: Callable[..., None], rope: Any, message: str) -> None:
    edit(llama / "config.json", rope_parameters=rope)
    refused(llama, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is not a number that JSON has"),
        ("-Infinity", "-Infinity is not a number"),
        ("1e999", "the number 1e999 is too large"),
        ("9" * 5000, "is too large"),
    ],
)
def test_numbers_that_json_does_not_have(llama: Path, text: str, message: str) -> None:
    config = (llama / "config.json").read_text()
    assert '"rope_theta": 10000.0' in config
    (llama / "config.json").write_text(config.replace('"rope_theta": 10000.0', f'"rope_theta": {text}'))
    refused(llama, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "should hold a JSON object"),
        ('{"model_type": "llama", "model_type": "gpt2"}', "'model_type' is given twice"),
        ('{"a":' * 200_000, "nested too deeply"),
        ('{"a": "' + "x" * (17 << 20) + '"}', "more than 16,777,216 makes no sense"),
    ],
)
def test_a_config_that_is_not_one(llama: Path, text: str, message: str) -> None:
    (llama / "config.json").write_text(text)
    refused(llama, message)


def test_a_config_that_is_not_text(llama: Path) -> None:
    (llama / "config.json").write_bytes(b"\xff\xfe\x00")
    refused(llama, "not UTF-8 text")


def test_no_config(llama: Path) -> None:
    (llama / "config.json").unlink()
    refused(llama, r"config\.json is missing")


def test_pickles_only(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    refused(llama, "refusing pickle: pytorch_model.bin")


CODE = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.EvilConfig"}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"auto_map": CODE}, "auto_map"),
        ("config.json", {"text_config": {"deep": [{"auto_map": CODE}]}}, "auto_map"),
        ("config.json", {"model_type": "evil", "auto_map": CODE}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling_evil.T", None]}}, "auto_map"),
        ("config.json", {"_attn_implementation_internal": "evil/kernel"}, "_attn_implementation_internal"),
        ("config.json", {"_attn_implementation": "evil/kernel"}, "_attn_implementation"),
        (
            "config.json",
            {"x": [{"_experts_implementation_internal": "evil/kernel"}]},
            "_experts_implementation_internal",
        ),
    ],
)
def test_code_that_comes_with_a_checkpoint(
    llama: Path, edit: Callable[..., None], tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    (llama / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    edit(llama / file, **changes)
    refused(llama, f"refusing {file}: .*{message}.*nothing was imported")
    assert not (tmp_path / "ran").exists()
    assert not any("modeling_evil" in name for name in sys.modules)


def test_an_adapter_is_not_a_model(llama: Path) -> None:
    (llama / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    refused(llama, "holds an adapter")


def test_no_such_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "nowhere", "no model at .*nowhere.*; give a folder")
    refused(tmp_path / "..", r"config\.json is missing")
    (tmp_path / "model.gguf").write_text("GGUF")
    refused(tmp_path / "model.gguf", "is a file; give the folder")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("LocalEntryNotFoundError", "cannot be reached.*copy the model's folder"),
        ("OfflineModeIsEnabled", "cannot be reached.*copy the model's folder"),
        ("OSError", r"the download failed \(OSError\)"),
    ],
)
def test_a_hub_id_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, error: str, message: str) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def fetch(name: str, **keywords: Any) -> str:
        asked.update(keywords, name=name)
        raise getattr(huggingface_hub.errors, error, OSError)("no route to host\n/home/someone/.cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    refused(Path("org/name"), "no model at")
    for attempt in (inspect, load):
        with pytest.raises(ModelError, match=message) as caught:
            attempt("org/name")
        assert "someone" not in str(caught.value)
    assert asked["name"] == "org/name"
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["allow_patterns"])


def test_a_hub_id_is_fetched_into_a_folder(families: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(families("llama")))
    assert inspect("org/name").family == "llama"
    for odd in ("org/../name", "a/b/c", "org/na--me", "https://x/y", "org/na\0me"):
        with pytest.raises(ModelError, match=r"no model at|cannot be read"):
            inspect(odd)


def test_a_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    checkpoints.make("llama", tmp_path, vocab_size=100)
    checkpoints.tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"the tokenizer has ids up to 255 .* but the embedding has 100 rows"):
        load(tmp_path)


def test_special_tokens_beyond_the_embedding_are_let_through(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longspan.model import config, tokenizer

    made = checkpoints.tokenizer(llama)
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    made.save_pretrained(llama)
    built = config.build(config.read(llama))
    loaded = tokenizer.load(llama, built, 256)
    assert loaded is not None
    assert len(loaded) == 257
    made.add_tokens(["word"])
    made.save_pretrained(llama)
    with pytest.raises(ModelError, match=r"ids up to 257 \('word'\)"):
        tokenizer.load(llama, built, 256)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "Nope"}}', "\0\0"])
def test_a_damaged_tokenizer(llama: Path, content: str) -> None:
    checkpoints.tokenizer(llama)
    (llama / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"the tokenizer in .* cannot be loaded"):
        load(llama)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "did not end within"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ 'x' * 10**10 }}", "more text than its messages can need"),
        ("{% if", "does not parse"),
    ],
)
def test_a_hostile_template(llama: Path, monkeypatch: pytest.MonkeyPatch, template: str, message: str) -> None:
    checkpoints.tokenizer(llama, template)
    with pytest.raises(ModelError, match=message) as caught:
        load(llama)
    assert caught.value.exit_code == 3
