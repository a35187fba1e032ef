"""Tiny random checkpoints of every supported family, written as transformers itself writes them.

Weights are drawn wide, norms are moved off their starting value, biases and sinks are not zero: attention is
far from uniform, so a wrong window, angle, scale or sink shows in the logits.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers.utils import logging

logging.disable_progress_bar()

WINDOW = 32
VOCAB = 256

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_MOE = {"num_experts_per_tok": 2, "num_local_experts": 4}
_THETA = {"rope_type": "default", "rope_theta": 10000.0}
_FULL, _SLIDING = "full_attention", "sliding_attention"

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "head_dim": 16},
    "mistral": {**_COMMON, "head_dim": 16, "sliding_window": WINDOW},
    "mixtral": {**_COMMON, **_MOE, "head_dim": 16},
    "qwen2": {
        **_COMMON,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "layer_types": [_FULL, _SLIDING, _FULL],
    },
    "qwen3": {**_COMMON, "head_dim": 16, "tie_word_embeddings": True},
    "qwen3_moe": {
        **_COMMON,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "mlp_only_layers": [1],
    },
    "gemma2": {
        **_COMMON,
        "head_dim": 16,
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "sliding_window": WINDOW,
    },
    "gemma3_text": {
        **_COMMON,
        "head_dim": 16,
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": 16,
        "sliding_window": WINDOW,
        "layer_types": [_SLIDING, _FULL, _SLIDING, _FULL],
        "rope_parameters": {
            _FULL: {"rope_type": "default", "rope_theta": 100000.0},
            _SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "phi3": {
        **_COMMON,
        "original_max_position_embeddings": 4096,
        "rope_parameters": {**_THETA, "partial_rotary_factor": 0.75},
    },
    "olmo2": {**_COMMON, "attention_bias": False},
    "granite": {
        **_COMMON,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 4.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
    },
    "smollm3": {
        **_COMMON,
        "num_hidden_layers": 4,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "no_rope_layers": [1, 0, 1, 0],
        "layer_types": [_FULL, _SLIDING, _SLIDING, _FULL],
    },
    "gpt_oss": {
        **_COMMON,
        **_MOE,
        "head_dim": 16,
        "num_hidden_layers": 4,
        "sliding_window": WINDOW,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    },
    "gpt_neox": {
        **{k: v for k, v in _COMMON.items() if k != "num_key_value_heads"},
        "hidden_size": 128,
        "initializer_range": 0.12,
        "rope_parameters": {**_THETA, "partial_rotary_factor": 0.25},
    },
}
"""model_type → config keywords; head_dim is 16 (gpt_neox: 32, of which 8 rotate)."""


def make(
    family: str,
    path: Path,
    *,
    rope: dict[str, Any] | None = None,
    seed: int = 0,
    max_shard_size: str = "1GB",
    **overrides: Any,
) -> transformers.PreTrainedConfig:
    """Write a checkpoint of `family` into the folder `path` and return its config, as it declares itself.

    rope: a flat `rope_parameters` block to declare (theta and the rotated part stay the family's unless named);
    gemma3_text takes it for its full-attention layers, or a block per layer type. overrides: config keywords.
    """
    keywords = copy.deepcopy({**FAMILIES[family], **overrides})
    if rope is not None:
        keywords["rope_parameters"] = _declare(keywords.get("rope_parameters") or _THETA, rope)
    config = transformers.AutoConfig.for_model(family, **keywords)
    model = weights(config, seed)
    model.save_pretrained(path, max_shard_size=max_shard_size)
    return config


def weights(config: transformers.PreTrainedConfig, seed: int = 0) -> transformers.PreTrainedModel:
    """A random float32 model of `config`, the same for the same seed."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 1 or "bias" in name:
                    parameter.add_(torch.randn_like(parameter) * (1.0 if "sinks" in name else 0.2))
    finally:
        torch.random.set_rng_state(state)
    return model.eval()


def tokenizer(path: Path, template: str | None = None) -> transformers.PreTrainedTokenizerBase:
    """Write a byte tokenizer into the folder `path`: VOCAB ids, one per byte, and no special token beyond them."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[])
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core)
    if template is not None:
        made.chat_template = template
    made.save_pretrained(path)
    return made


def _declare(base: dict[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
    if _FULL in base:
        per_type = rope if _FULL in rope or _SLIDING in rope else {_FULL: rope}
        return {kind: _declare(block, per_type[kind]) if kind in per_type else block for kind, block in base.items()}
    kept = {key: base[key] for key in ("rope_theta", "partial_rotary_factor") if key in base}
    return {**kept, **rope}
