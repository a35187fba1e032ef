from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import safetensors.torch
import torch
import transformers

from longspan.errors import DoesNotFit, ModelError, UsageError
from longspan.model import Loaded, inspect, load
from longspan.rope import Dynamic, Linear, Llama3, LongRope, Yarn

MODULE = sys.modules["longspan.model.load"]
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize("family", sorted(checkpoints.FAMILIES))
def test_weights_are_those_that_transformers_loads(families: Callable[[str], Path], family: str) -> None:
    loaded = load(families(family))
    own = transformers.AutoModelForCausalLM.from_pretrained(families(family))
    assert isinstance(loaded, Loaded)
    for (name, ours), (_, theirs) in zip(loaded.model.named_parameters(), own.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert not ours.requires_grad
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == "longspan"
    assert loaded.tokenizer is None
    assert loaded.path == families(family)


def test_shards_load_as_one_file_does(families: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoints.make("llama", tmp_path, max_shard_size="100KB")
    one, many = load(families("llama")).model, load(tmp_path).model
    for (name, left), (_, right) in zip(one.named_parameters(), many.named_parameters(), strict=True):
        assert torch.equal(left, right), name


def test_fused_experts_load_too(families: Callable[[str], Path], tmp_path: Path) -> None:
    model = checkpoints.weights(transformers.AutoConfig.from_pretrained(families("mixtral")))
    model.save_pretrained(tmp_path, save_original_format=False)
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert "model.layers.0.mlp.experts.gate_up_proj" in stored
    assert inspect(tmp_path).parameters == inspect(families("mixtral")).parameters
    assert torch.equal(load(tmp_path).model.lm_head.weight, model.lm_head.weight)


def test_a_stored_copy_of_a_tied_head_counts_once(families: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoints.make("qwen3", tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert inspect(tmp_path).parameters == inspect(families("qwen3")).parameters
    load(tmp_path)


def test_buffers_of_older_checkpoints_are_ignored(llama: Path, families: Callable[[str], Path]) -> None:
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    safetensors.torch.save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    assert inspect(llama).parameters == inspect(families("llama")).parameters
    load(llama)


def test_dtype_is_the_checkpoints_own_or_the_one_asked_for(llama: Path, edit: Callable[..., None]) -> None:
    assert load(llama).dtype is torch.float32
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        loaded = load(llama, dtype=name)
        assert loaded.dtype is dtype
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}
    edit(llama / "config.json", dtype=..., torch_dtype="bfloat16")
    assert load(llama).dtype is torch.bfloat16
    edit(llama / "config.json", torch_dtype=...)
    assert load(llama).dtype is torch.float32


@pytest.mark.parametrize("dtype", ["int8", "float64", "", "load"])
def test_other_dtypes_are_refused(llama: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match="known: auto, float32, bfloat16, float16") as caught:
        load(llama, dtype=dtype)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:", "cuda:-1", "cpu:0", "cuda:999", ""])
def test_other_devices_are_refused(llama: Path, device: str) -> None:
    with pytest.raises(UsageError, match=r"device '.*(known: auto, cpu, cuda|use cpu or auto)"):
        load(llama, device=device)


def test_weights_that_do_not_fit_are_not_loaded(llama: Path, monkeypatch: pytest.MonkeyPatch, no_weights: None) -> None:
    needed = inspect(llama).parameters * 4
    monkeypatch.setattr(MODULE, "_free", lambda device: needed - 1)
    with pytest.raises(DoesNotFit, match=f"need {needed:,} bytes on cpu, and {needed - 1:,} are free") as caught:
        load(llama)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_while_loading(llama: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(DoesNotFit, match="the weights need 501,504 bytes"):
        load(llama)


def test_what_transformers_leaves_out_is_an_error(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = transformers.AutoModelForCausalLM.from_pretrained

    def partly(*args: Any, **keywords: Any) -> Any:
        model, info = real(*args, **keywords)
        return model, {**info, "missing_keys": {"model.norm.weight"}}

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", partly)
    with pytest.raises(ModelError, match=r"left missing keys: model\.norm\.weight"):
        load(llama)


def test_ends_of_text(llama: Path, edit: Callable[..., None]) -> None:
    edit(llama / "generation_config.json", eos_token_id=[5, 6, 5, 900, -1])
    assert inspect(llama).eos == (5, 6)
    edit(llama / "generation_config.json", eos_token_id=...)
    assert inspect(llama).eos == (2,)
    edit(llama / "config.json", eos_token_id=None)
    assert inspect(llama).eos == ()
    edit(llama / "generation_config.json", eos_token_id="stop")
    with pytest.raises(ModelError, match="eos_token_id should be an id or a list of ids"):
        inspect(llama)


def test_kv_bytes_per_token(families: Callable[[str], Path]) -> None:
    assert inspect(families("llama")).layout(2, 64).token_bytes == 2 * 3 * 2 * 16 * 2


# what a checkpoint declares of its rotation


def test_declared_ropes_are_kept_and_taken_out_of_the_model(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], type, int]] = [
        ("llama", {"rope_type": "linear", "factor": 4.0}, Linear, 4096),
        ("llama", {"rope_type": "dynamic", "factor": 2.0}, Dynamic, 4096),
        ("qwen2", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, Yarn, 1024),
        (
            "llama",
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512,
            },
            Llama3,
            512,
        ),
    ]
    for i, (family, rope, method, original) in enumerate(cases):
        checkpoints.make(family, tmp_path / str(i), rope=rope)
        loaded = load(tmp_path / str(i))
        assert isinstance(loaded.shape.ropes["all"][0], method)
        assert loaded.shape.original == original
        assert loaded.shape.trained == 4096
        assert loaded.model.config.rope_parameters == DEFAULT


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_phi3_keeps_its_original_length_beside_the_rope(
    families: Callable[[str], Path], edit: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    checkpoints.make("phi3", tmp_path)
    edit(
        tmp_path / "config.json",
        rope_parameters=...,
        rope_theta=10000.0,
        partial_rotary_factor=0.75,
        original_max_position_embeddings=1024,
        rope_scaling={"type": kind, "short_factor": [1.0] * 6, "long_factor": [2.0] * 6},
    )
    loaded = load(tmp_path)
    rope, geometry = loaded.shape.ropes["all"]
    assert rope == LongRope(short_factor=(1.0,) * 6, long_factor=(2.0,) * 6, original=1024)
    assert geometry.dim == 12
    assert (loaded.shape.original, loaded.shape.trained) == (1024, 4096)
    assert loaded.model.config.rope_parameters == {**DEFAULT, "partial_rotary_factor": 0.75}


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_older_keys_of_the_rope_are_read(llama: Path, edit: Callable[..., None], key: str) -> None:
    edit(
        llama / "config.json",
        rope_parameters=...,
        rope_theta=500000.0,
        rope_scaling={key: "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    )
    rope, geometry = inspect(llama).ropes["all"]
    assert rope == Yarn(factor=4.0, original=1024)
    assert geometry.theta == 500000.0


def test_older_keys_of_gpt_neox_are_read(tmp_path: Path, edit: Callable[..., None]) -> None:
    checkpoints.make("gpt_neox", tmp_path)
    edit(tmp_path / "config.json", rope_parameters=..., rotary_pct=0.5, rotary_emb_base=20000)
    geometry = inspect(tmp_path).ropes["all"][1]
    assert (geometry.dim, geometry.theta) == (16, 20000.0)


def test_gemma3_declares_a_rope_per_layer_type(tmp_path: Path, edit: Callable[..., None]) -> None:
    checkpoints.make("gemma3_text", tmp_path, rope={"rope_type": "linear", "factor": 8.0})
    loaded = load(tmp_path)
    assert loaded.shape.ropes["full_attention"][0] == Linear(factor=8.0)
    assert loaded.shape.ropes["sliding_attention"][1].theta == 10000.0
    assert {block["rope_type"] for block in loaded.model.config.rope_parameters.values()} == {"default"}

    edit(
        tmp_path / "config.json",
        rope_parameters=...,
        rope_theta=1000000.0,
        rope_local_base_freq=5000.0,
        rope_scaling={"rope_type": "linear", "factor": 2.0},
    )
    ropes = inspect(tmp_path).ropes
    assert ropes["full_attention"] == (Linear(factor=2.0), ropes["full_attention"][1])
    assert (ropes["full_attention"][1].theta, ropes["sliding_attention"][1].theta) == (1000000.0, 5000.0)

    edit(tmp_path / "config.json", rope_scaling=..., rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    with pytest.raises(ModelError, match="a rope block per layer type"):
        inspect(tmp_path)


def test_gpt_oss_without_a_rope_is_yarn(
    families: Callable[[str], Path], tmp_path: Path, edit: Callable[..., None]
) -> None:
    checkpoints.make("gpt_oss", tmp_path, max_position_embeddings=131072)
    edit(tmp_path / "config.json", rope_parameters=...)
    rope, geometry = inspect(tmp_path).ropes["all"]
    assert rope == Yarn(factor=32.0, original=4096, beta_fast=32.0, beta_slow=1.0, truncate=False)
    assert geometry.theta == 150000.0


# from the outside


def test_nulls_leave_the_families_own_defaults(tmp_path: Path, edit: Callable[..., None]) -> None:
    checkpoints.make("qwen2", tmp_path)
    edit(tmp_path / "config.json", head_dim=None, rope_scaling=None, num_key_value_heads=2)
    assert load(tmp_path).shape.head_dim == 16


def test_loading_says_nothing_and_is_quick(llama: Path) -> None:
    checkpoints.tokenizer(llama, "{{ messages[0].content }}")
    folder = llama
    program = f"""
import time
import longspan.model
begin = time.monotonic()
loaded = longspan.model.load({str(folder)!r})
print(time.monotonic() - begin, type(loaded.model).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    seconds, name = done.stdout.split()
    assert name == "LlamaForCausalLM"
    assert float(seconds) < 20  # the first load imports the family's modules; see below for the load itself

    begin = time.monotonic()
    load(folder)
    assert time.monotonic() - begin < 2


def test_inspecting_reads_no_weights(families: Callable[[str], Path], no_weights: None) -> None:
    assert inspect(families("qwen3_moe")).family == "qwen3_moe"


@pytest.mark.parametrize("family", sorted(checkpoints.FAMILIES))
def test_the_tokenizer_comes_along(families: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    folder = Path(shutil.copytree(families(family), tmp_path / family))
    checkpoints.tokenizer(folder, "{{ messages[0].content }}")
    loaded = load(folder)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("héllo ⟨x⟩")) == "héllo ⟨x⟩"


@pytest.mark.parametrize("family", sorted(checkpoints.FAMILIES))
def test_text_is_cut_as_the_checkpoints_own_file_says(
    families: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    """A tokenizer of no family, which takes digits in pairs, as no family's own class does."""
    folder = Path(shutil.copytree(families(family), tmp_path / family))
    checkpoints.tokenizer(folder)
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = [letter for letter in told["model"]["vocab"] if letter not in "YZ"]
    told["model"]["vocab"] = {token: i for i, token in enumerate([*vocabulary, "48", "21"])}
    told["model"]["merges"] = [["4", "8"], ["2", "1"], ["48", "21"]]
    told["model"]["vocab"]["4821"] = told["model"]["vocab"].pop("X")
    pairs = {"type": "Split", "pattern": {"Regex": "[0-9]{1,2}"}, "behavior": "Isolated", "invert": False}
    told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pairs, told["pre_tokenizer"]]}
    path.write_text(json.dumps(told), encoding="utf-8")
    tokenizer = load(folder).tokenizer
    assert tokenizer is not None
    assert tokenizer.tokenize("48213") == ["48", "21", "3"]
