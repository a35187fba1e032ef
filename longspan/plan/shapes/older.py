"""Families from before field names were agreed on: their configs in today's words, and what they alone have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longspan.plan.shapes.fields import Fields

_GPT2 = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
_NAMES: dict[str, Mapping[str, str]] = {
    "gpt2": _GPT2,
    "opt": {"ffn_dim": "intermediate_size"},
    "bloom": {**_GPT2, "n_embed": "hidden_size", "seq_length": "max_position_embeddings"},
    "falcon": {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "ffn_hidden_size": "intermediate_size",
        "n_head_kv": "num_kv_heads",
    },
    "deepseek_v3": {"num_local_experts": "n_routed_experts"},
}
LEARNED = frozenset({"gpt2", "opt"})
"""Families whose positions are learned vectors."""
UNROTATED = LEARNED | {"bloom"}


def modern(raw: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The config with today's names beside the old ones, and what these families leave unsaid."""
    out = dict(raw)
    for old, new in _NAMES.get(family, {}).items():
        if out.get(new) is None and raw.get(old) is not None:
            out[new] = raw[old]
    width = out.get("hidden_size")
    if family in ("gpt2", "bloom", "falcon") and out.get("intermediate_size") is None and isinstance(width, int):
        out["intermediate_size"] = 4 * width
    if family in ("gpt2", "opt", "bloom") and out.get("num_key_value_heads") is None:
        out["num_key_value_heads"] = out.get("num_attention_heads")
    if family == "falcon":
        if not raw.get("new_decoder_architecture"):
            out["num_kv_heads"] = 1 if raw.get("multi_query", True) else out.get("num_attention_heads")
        out.setdefault("num_key_value_heads", out.get("num_kv_heads"))
    return out


def norms(f: Fields) -> int:
    """Vectors of the hidden size in a layer of Falcon, each with a bias."""
    if not f.flag("parallel_attn", True):
        return 2
    given = f.optional("num_ln_in_parallel_attn")
    return given if given is not None else 2 if f.flag("new_decoder_architecture") else 1


def positions(f: Fields) -> int:
    """Parameters of learned positions."""
    if f.family not in LEARNED:
        return 0
    return (f.size("max_position_embeddings") + (2 if f.family == "opt" else 0)) * f.size("hidden_size")
