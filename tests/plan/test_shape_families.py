"""Parameters counted from a config alone, against the model that transformers builds from it (on no device)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from longspan.plan.shapes.config import from_config
from longspan.plan.shapes.families import FAMILIES

_BASE: dict[str, Any] = {
    "vocab_size": 250,
    "hidden_size": 96,
    "intermediate_size": 112,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": None,
}
_MLA = {
    "kv_lora_rank": 24,
    "q_lora_rank": 20,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 14,
    "num_key_value_heads": 6,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}
_LINEAR = {
    "head_dim": 20,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_conv_kernel_dim": 4,
}
_QWEN3_MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 36}
_QWEN_MOE = {**_QWEN3_MOE, "shared_expert_intermediate_size": 44}
_EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 2}

CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24, "tie_word_embeddings": True}),
    ("mistral", {"head_dim": 20}),
    ("ministral3", {"head_dim": 20}),
    ("mixtral", _EXPERTS),
    ("qwen2", {}),
    ("qwen2_moe", _QWEN_MOE),
    ("qwen2_moe", {**_QWEN_MOE, "decoder_sparse_step": 2, "mlp_only_layers": [1]}),
    ("qwen3", {"head_dim": 20}),
    ("qwen3_moe", {**_QWEN3_MOE, "head_dim": 20, "mlp_only_layers": [0]}),
    ("qwen3_next", {**_QWEN_MOE, **_LINEAR}),
    ("qwen3_5_text", _LINEAR),
    ("qwen3_5_moe_text", {**_QWEN_MOE, **_LINEAR}),
    ("gemma", {"head_dim": 20}),
    ("gemma2", {"head_dim": 20}),
    ("gemma3_text", {"head_dim": 20}),
    ("gemma4_text", {"head_dim": 20, "global_head_dim": 28, "hidden_size_per_layer_input": 0, "num_hidden_layers": 6}),
    (
        "gemma4_text",
        {
            "head_dim": 20,
            "global_head_dim": 28,
            "hidden_size_per_layer_input": 0,
            "num_hidden_layers": 6,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 36,
        },
    ),
    (
        "gemma4_text",
        {
            "head_dim": 20,
            "global_head_dim": 28,
            "hidden_size_per_layer_input": 10,
            "vocab_size_per_layer_input": 250,
            "num_hidden_layers": 12,
            "num_kv_shared_layers": 4,
            "use_double_wide_mlp": True,
        },
    ),
    ("phi3", {}),
    ("gpt_oss", {**_EXPERTS, "head_dim": 20}),
    ("gpt_neox", {"num_key_value_heads": 6}),
    ("deepseek_v2", _MLA),
    ("deepseek_v3", _MLA),
    ("deepseek_v3", {**_MLA, "q_lora_rank": None, "attention_bias": True}),
    ("llama4_text", {**_EXPERTS, "head_dim": 20, "intermediate_size_mlp": 130, "interleave_moe_layer_step": 2}),
    ("olmo2", {}),
    ("olmo3", {}),
    ("granite", {}),
    ("smollm3", {}),
    ("seed_oss", {"head_dim": 20}),
    ("cohere", {"use_qk_norm": True}),
    ("cohere", {}),
    ("cohere2", {}),
    ("exaone4", {}),
    ("glm", {"head_dim": 20, "attention_bias": True}),
    ("glm4", {"head_dim": 20, "attention_bias": True}),
    ("glm4_moe", {**_MLA, "head_dim": 20, "num_key_value_heads": 2, "attention_bias": True, "use_qk_norm": True}),
    ("minimax_m2", {**_EXPERTS, "head_dim": 20}),
    ("starcoder2", {}),
    ("gpt2", {}),
    ("opt", {"ffn_dim": 112, "word_embed_proj_dim": 96}),
    ("opt", {"ffn_dim": 112, "word_embed_proj_dim": 48, "do_layer_norm_before": False}),
    ("bloom", {}),
    ("falcon", {"bias": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("falcon", {"parallel_attn": False, "multi_query": False}),
]


_OLD = {"gpt2", "opt", "bloom", "falcon"}
"""Families whose configs know neither groups of heads nor, but by other names, the size of an MLP."""


def built(family: str, given: dict[str, Any]) -> tuple[Any, int]:
    """transformers' own config, and the parameters of its model."""
    base = {
        k: v for k, v in _BASE.items() if family not in _OLD or k not in ("num_key_value_heads", "intermediate_size")
    }
    config = transformers.AutoConfig.for_model(family, **copy.deepcopy({**base, **given}))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    held = {id(one): one.numel() for one in model.parameters()}
    # a router's correction is a buffer, and lies in the files all the same
    held |= {id(b): b.numel() for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
    return config, sum(held.values())


@pytest.mark.parametrize(("family", "given"), CONFIGS, ids=[f"{f}-{i}" for i, (f, _) in enumerate(CONFIGS)])
def test_parameters_are_those_of_the_model_itself(family: str, given: dict[str, Any]):
    config, parameters = built(family, given)
    shape = from_config({**config.to_dict(), **given}, family)
    assert shape.parameters == parameters
    assert len(shape.layers) == config.num_hidden_layers
    assert 0 < shape.active_parameters <= shape.parameters


def test_every_family_is_compared():
    assert {family for family, _ in CONFIGS} | {"kimi_k2"} == set(FAMILIES)  # kimi_k2 is deepseek_v3 by another name
