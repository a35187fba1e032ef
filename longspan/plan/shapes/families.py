"""Families of models: how the parameters of a layer follow from a config. One line of the table for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from longspan.plan.shapes import mixtures, windows
from longspan.plan.shapes.fields import Fields


@dataclass(frozen=True)
class Family:
    """What a family's own modeling code does alike in all its layers.

    kinds: which layers slide, chunk or keep a state. experts: its mixture; None: every MLP is dense. latent: attention
    keeps one vector for all heads (MLA). qkv_bias, out_bias, mlp_bias: whether these matrices have a bias, or the field
    that says so. norms: vectors of the hidden size in a layer. centered: norms have a bias too. qk_norm: of queries and
    keys, one for all heads ("head"), one number for every channel of every head ("all"), none (""), or as the field
    `use_qk_norm` says. gated: the MLP's first matrix comes with a gate. gate: queries come with a gate of their size.
    sinks: one learned logit for each query head. dense: the field with the size of a dense MLP.
    """

    kinds: Callable[[Fields, int], windows.Kinds] = windows.full
    experts: mixtures.Choice | None = None
    latent: bool = False
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    norms: int = 2
    centered: bool = False
    qk_norm: Literal["", "head", "all", "head if use_qk_norm", "all if use_qk_norm"] = ""
    gated: bool = True
    gate: bool = False
    sinks: bool = False
    dense: str = "intermediate_size"

    def has(self, f: Fields, what: bool | str) -> bool:
        """Whether the config has a bias, which it says itself where `what` is a field."""
        return f.flag(what) if isinstance(what, str) else what


_BIAS = "attention_bias"
_LLAMA = Family(qkv_bias=_BIAS, out_bias=_BIAS, mlp_bias="mlp_bias")
_QWEN3 = Family(windows.late, qkv_bias=_BIAS, out_bias=_BIAS, qk_norm="head")
_DEEPSEEK = Family(experts=mixtures.after_dense, latent=True, qkv_bias=_BIAS, out_bias=_BIAS)
_OLMO2 = Family(qkv_bias=_BIAS, out_bias=_BIAS, qk_norm="all")
_GEMMA2 = Family(windows.pattern(2), qkv_bias=_BIAS, out_bias=_BIAS, norms=4)
_GEMMA3 = Family(windows.pattern(6), qkv_bias=_BIAS, out_bias=_BIAS, norms=4, qk_norm="head")
_QWEN_LINEAR = Family(windows.states, qkv_bias=_BIAS, out_bias=_BIAS, qk_norm="head", gate=True)
_QWEN_LINEAR_MOE = Family(windows.states, mixtures.shared, qkv_bias=_BIAS, out_bias=_BIAS, qk_norm="head", gate=True)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": Family(windows.every),
    "ministral3": Family(windows.every),
    "mixtral": Family(windows.every, mixtures.all_layers),
    "qwen2": Family(windows.late, qkv_bias=True),
    "qwen2_moe": Family(windows.late, mixtures.shared, qkv_bias=True),
    "qwen3": _QWEN3,
    "qwen3_moe": Family(windows.late, mixtures.sparse, qkv_bias=_BIAS, out_bias=_BIAS, qk_norm="head"),
    "qwen3_next": _QWEN_LINEAR_MOE,
    "qwen3_5_text": _QWEN_LINEAR,
    "qwen3_5_moe_text": _QWEN_LINEAR_MOE,
    "gemma": Family(qkv_bias=_BIAS, out_bias=_BIAS),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma4_text": Family(windows.pattern(6), mixtures.beside_dense, qkv_bias=_BIAS, out_bias=_BIAS, norms=4),
    "phi3": Family(windows.every),
    "gpt_oss": Family(windows.pattern(2), mixtures.biased, qkv_bias=_BIAS, out_bias=_BIAS, sinks=True),
    "gpt_neox": Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias=True, centered=True, gated=False),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "llama4_text": Family(
        windows.chunked, mixtures.interleaved, qkv_bias=_BIAS, out_bias=_BIAS, dense="intermediate_size_mlp"
    ),
    "olmo2": _OLMO2,
    "olmo3": Family(windows.pattern(4), qkv_bias=_BIAS, out_bias=_BIAS, qk_norm="all"),
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    "seed_oss": Family(qkv_bias=_BIAS, out_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "cohere": Family(qkv_bias=_BIAS, out_bias=_BIAS, norms=1, qk_norm="all if use_qk_norm"),
    "cohere2": Family(windows.pattern(4), qkv_bias=_BIAS, out_bias=_BIAS, norms=1),
    "exaone4": Family(windows.pattern(4), qk_norm="head"),
    "glm": Family(qkv_bias=_BIAS),
    "glm4": Family(qkv_bias=_BIAS, norms=4),
    "glm4_moe": Family(experts=mixtures.after_dense, qkv_bias=_BIAS, qk_norm="head if use_qk_norm"),
    "minimax_m2": Family(experts=mixtures.corrected, qk_norm="all"),
    "starcoder2": Family(
        windows.every, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", centered=True, gated=False
    ),
    "gpt2": Family(qkv_bias=True, out_bias=True, mlp_bias=True, centered=True, gated=False),
    "opt": Family(qkv_bias=True, out_bias=True, mlp_bias=True, centered=True, gated=False),
    "bloom": Family(qkv_bias=True, out_bias=True, mlp_bias=True, centered=True, gated=False),
    "falcon": Family(qkv_bias="bias", out_bias="bias", mlp_bias="bias", centered=True, gated=False),
}

PARTS = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_text",
    "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "mistral3": "mistral",
    "kimi_k25": "kimi_k2",
    "llava": "llama",
    "smolvlm": "llama",
}
"""The text model inside a model with other senses, by the name of either, where it is one of the families."""

REFUSED = {
    "its layers mix attention with state-space or convolution layers of a form that is not counted here": (
        "mamba mamba2 falcon_mamba jamba bamba zamba zamba2 nemotron_h falcon_h1 granitemoehybrid rwkv xlstm "
        "recurrent_gemma olmo_hybrid kimi_linear bailing_hybrid minimax lfm2 lfm2_moe lfm3"
    ),
    "it is an encoder-decoder or an encoder": (
        "t5 mt5 umt5 t5gemma bart mbart pegasus led longt5 m2m_100 marian whisper bert roberta distilbert modernbert"
    ),
    "it selects tokens by an index of its own, which is not counted here": "deepseek_v32 deepseek_v4 glm_moe_dsa",
    "its layers share caches and have embeddings of their own": "gemma3n",
    "some of its layers attend to images": "mllama",
}
"""Families that are known and not counted, by the reason."""

LAYERED: dict[str, float] = {"gemma3_text": 10_000.0, "gemma4_text": 10_000.0, "olmo3": 0.0}
"""Families with a rope block for each kind of layer: theta of those with a window, 0 where it is the others' too."""
