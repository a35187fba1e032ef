"""Which model families run, what their layers are, and why others are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from longspan.errors import ModelError, UnsupportedModel
from longspan.model.shape import Layer

FULL, SLIDING = "full_attention", "sliding_attention"
ALL = "all"
"""The key in `Shape.ropes` where every layer rotates alike."""


def _full(config: Any) -> list[Layer]:
    return [Layer(None, ALL)] * config.num_hidden_layers


def _one_window(config: Any) -> list[Layer]:
    """`sliding_window`, when it is set, holds in every layer."""
    return [Layer(config.sliding_window, ALL)] * config.num_hidden_layers


def _by_type(config: Any) -> list[Layer]:
    """`layer_types` says which layers slide."""
    return [Layer(config.sliding_window if kind == SLIDING else None, ALL) for kind in config.layer_types]


def _by_type_two_ropes(config: Any) -> list[Layer]:
    """As `_by_type`, and each layer type has a rotation of its own."""
    return [Layer(config.sliding_window if kind == SLIDING else None, kind) for kind in config.layer_types]


def _by_type_some_nope(config: Any) -> list[Layer]:
    """As `_by_type`; layers whose `no_rope_layers` entry is 0 rotate nothing."""
    window = config.sliding_window if config.use_sliding_window else None
    return [
        Layer(window if kind == SLIDING else None, ALL if rotates else None)
        for kind, rotates in zip(config.layer_types, config.no_rope_layers, strict=True)
    ]


_LAYERS: dict[str, Callable[[Any], list[Layer]]] = {
    "llama": _full,
    "mistral": _one_window,
    "mixtral": _one_window,
    "qwen2": _by_type,
    "qwen3": _by_type,
    "qwen3_moe": _one_window,
    "gemma2": _by_type,
    "gemma3_text": _by_type_two_ropes,
    "phi3": _one_window,
    "olmo2": _full,
    "granite": _full,
    "smollm3": _by_type_some_nope,
    "gpt_oss": _by_type,
    "gpt_neox": _full,
}

SUPPORTED = tuple(_LAYERS)
TWO_ROPES = frozenset({"gemma3_text"})
"""Families whose layer types rotate differently: `rope_parameters` is a block per layer type."""
PARTIAL = frozenset({"phi3", "gpt_neox"})
"""Families that may rotate only the first channels of a head."""

_REASONS = {
    "multi-head latent attention (MLA) keeps no keys and values per head": (
        "deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 kimi_k2 kimi_k25 longcat_flash minicpm3 glm4_moe_lite "
        "glm_moe_dsa youtu mistral4"
    ),
    "ALiBi biases attention by distance instead of rotating": "bloom mpt",
    "its positions are learned vectors, which end at the trained length": (
        "gpt2 gpt_neo gpt_bigcode opt openai-gpt ctrl biogpt xglm gpt_sw3 bert roberta distilbert"
    ),
    "its linear-attention, convolution or state-space layers keep a state, not keys and values": (
        "mamba mamba2 falcon_mamba jamba bamba zamba zamba2 nemotron_h falcon_h1 granitemoehybrid rwkv xlstm "
        "recurrent_gemma qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text olmo_hybrid kimi_linear "
        "bailing_hybrid minimax lfm2 lfm2_moe lfm3"
    ),
    "it is an encoder-decoder": (
        "t5 mt5 umt5 t5gemma t5gemma2 bart mbart pegasus led longt5 m2m_100 marian whisper encoder_decoder "
        "switch_transformers plbart"
    ),
    "it rotates neighbouring channels or keeps its rotation elsewhere, and waits for its parity test": (
        "llama4 llama4_text glm glm4 cohere cohere2 cohere2_moe gptj codegen ernie4_5 ernie4_5_moe"
    ),
}
_REFUSED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
_TEXT_MODEL = {"gemma3": "gemma3_text", "qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "mistral3": "mistral"}


def refuse_unsupported(raw: Mapping[str, Any]) -> str:
    """The family that a config.json names, when it runs. Raises UnsupportedModel naming the reason otherwise."""
    family = raw.get("model_type")
    if not isinstance(family, str) or not family:
        raise ModelError("config.json lacks model_type")
    if raw.get("alibi"):
        raise _unsupported(family, "ALiBi biases attention by distance instead of rotating")
    if raw.get("is_encoder_decoder") or raw.get("add_cross_attention"):
        raise _unsupported(family, "it is an encoder-decoder")
    if family in _LAYERS:
        _refuse_features(family, raw)
        return family
    if family in _TEXT_MODEL:
        text = _TEXT_MODEL[family]
        raise _unsupported(family, f"it wraps vision around a text model; only the text model runs, as {text}")
    if raw.get("vision_config") or raw.get("audio_config") or raw.get("text_config"):
        raise _unsupported(family, "it wraps other senses around a text model; only text models run")
    raise _unsupported(family, _REFUSED.get(family, "no parity test covers it yet"))


def _refuse_features(family: str, raw: Mapping[str, Any]) -> None:
    """Refuse what a known family can ask for and the engine would get wrong."""
    if raw.get("use_bidirectional_attention") or raw.get("is_causal") is False:
        raise _unsupported(family, "this checkpoint attends in both directions; only causal attention runs")
    if raw.get("attention_chunk_size") is not None:
        raise _unsupported(family, "this checkpoint attends in chunks (attention_chunk_size)")
    if raw.get("per_layer_config"):
        raise _unsupported(family, "this checkpoint gives its layers different shapes (per_layer_config)")
    kinds = raw.get("layer_types")
    if isinstance(kinds, list):
        other = next((kind for kind in kinds if kind not in (FULL, SLIDING)), None)
        if other is not None:
            raise _unsupported(family, f"this checkpoint has layers of type {str(other)[:40]!r}")


def _unsupported(family: str, reason: str) -> UnsupportedModel:
    return UnsupportedModel(f"{family[:60]} is not supported: {reason}. Supported: {', '.join(SUPPORTED)}")


def layers(config: Any) -> tuple[Layer, ...]:
    """Each layer's window and rotation, as the family's own modeling code takes them from its config.

    Raises ModelError when the config contradicts itself.
    """
    family = config.model_type
    for name in ("layer_types", "no_rope_layers"):
        given = getattr(config, name, None)
        if given is not None and len(given) != config.num_hidden_layers:
            raise ModelError(f"config: {name} has {len(given)} entries for {config.num_hidden_layers} layers")
    made = tuple(_LAYERS[family](config))
    slides = _LAYERS[family] not in (_full, _one_window)
    for i, layer in enumerate(made):
        if slides and config.layer_types[i] == SLIDING and layer.window is None:
            raise ModelError(f"config: layer {i} slides, but sliding_window is not set or not used")
        if layer.window is not None and layer.window < 1:
            raise ModelError(f"config: sliding_window {layer.window} should be at least 1 token")
    return made
