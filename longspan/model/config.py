"""config.json: refused or checked before transformers builds anything from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers

from longspan.errors import ModelError, UnsupportedModel
from longspan.model.families import refuse_unsupported
from longspan.model.files import read_json
from longspan.model.quiet import quiet, reason

CONFIG = "config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_GENERATION_CONFIG = "generation_config.json"

_CODE = "auto_map"
_KERNELS = {
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
}
_QUANTIZED = ("quantization_config", "compression_config")

# What a size may be before anything is built from it. The limits are far above any model there is.
_LIMITS: dict[str, tuple[int, int]] = {
    "vocab_size": (1, 1 << 24),
    "hidden_size": (1, 1 << 20),
    "intermediate_size": (1, 1 << 24),
    "moe_intermediate_size": (1, 1 << 24),
    "num_hidden_layers": (1, 10_000),
    "num_attention_heads": (1, 1 << 14),
    "num_key_value_heads": (1, 1 << 14),
    "head_dim": (2, 1 << 14),
    "num_experts": (1, 1 << 14),
    "num_local_experts": (1, 1 << 14),
    "num_experts_per_tok": (1, 1 << 14),
    "decoder_sparse_step": (1, 1 << 14),
    "no_rope_layer_interval": (1, 1 << 14),
    "sliding_window_pattern": (1, 1 << 14),
    "max_position_embeddings": (1, 1 << 40),
    "original_max_position_embeddings": (1, 1 << 40),
    "sliding_window": (1, 1 << 40),
}
_MAY_BE_NULL = {"num_key_value_heads", "head_dim", "sliding_window", "original_max_position_embeddings"}
# Of the keys that no family class names itself, those that its code reads
_READ_BY_ALL = {
    "tie_word_embeddings",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "rotary_pct",
    "rotary_emb_base",
    "rope_local_base_freq",
    "sliding_window_pattern",
}


def read(folder: Path) -> dict[str, Any]:
    """The checked content of config.json in `folder`.

    Raises ModelError for a damaged file, for one that asks for code or kernels from elsewhere, and for sizes
    that make no sense; UnsupportedModel for a family or feature that the engine does not run.
    """
    raw = read_json(folder / CONFIG)
    _refuse_code(raw, CONFIG)
    if (folder / _TOKENIZER_CONFIG).exists():
        _refuse_code(read_json(folder / _TOKENIZER_CONFIG), _TOKENIZER_CONFIG)
    for key in _QUANTIZED:
        if raw.get(key):
            block = raw[key]
            how = str(block.get("quant_method", "unknown"))[:40] if isinstance(block, dict) else "unknown"
            raise UnsupportedModel(f"quantized weights ({how}) are not supported yet; use the 16-bit version")
    refuse_unsupported(raw)
    _check_sizes(raw)
    return raw


def build(raw: Mapping[str, Any]) -> Any:
    """transformers' own config object for a checked config.json, its older names brought up to date.

    Only keys that the family's code reads are passed on. Raises ModelError when transformers refuses them.
    """
    cls = transformers.CONFIG_MAPPING[raw["model_type"]]
    own = set(cls.__dataclass_fields__) - set(transformers.PreTrainedConfig.__dataclass_fields__)
    known = own | _READ_BY_ALL | set(cls.attribute_map) | set(cls.attribute_map.values())
    # a null that the family has no field for would stand in the way of its code's own default
    keywords = {key: value for key, value in raw.items() if key in known and (value is not None or key in own)}
    for key in ("rope_parameters", "rope_scaling"):
        block = keywords.get(key)
        if block is not None and not isinstance(block, dict):
            raise ModelError(f"config: {key} should be an object, not {str(block)[:40]!r}")
        if block and block.get("type") == "su":  # phi3's first name for it
            keywords[key] = {**block, "type": "longrope"}
    try:
        with quiet():
            config = cls(**keywords)
    except Exception as error:
        # transformers validates with many exception types; each means that this config.json is refused
        raise ModelError(f"config: transformers refuses it: {reason(error)}") from None
    _check_heads(config)
    return config


def ends(folder: Path, raw: Mapping[str, Any], vocab: int) -> tuple[int, ...]:
    """The ids that end a text: generation_config.json's, or else config.json's. Raises ModelError."""
    given: Any = None
    if (folder / _GENERATION_CONFIG).exists():
        given = read_json(folder / _GENERATION_CONFIG).get("eos_token_id")
    if given is None:
        given = raw.get("eos_token_id")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ModelError(f"config: eos_token_id should be an id or a list of ids, not {str(given)[:40]!r}")
    return tuple(dict.fromkeys(i for i in ids if 0 <= i < vocab))


def _refuse_code(raw: Mapping[str, Any], name: str) -> None:
    for key, value in _walk(raw):
        if key == _CODE and value:
            raise ModelError(
                f"refusing {name}: it asks to run code that comes with the checkpoint ({_CODE}); "
                f"nothing was imported. If the family is one that runs without it, remove {_CODE}"
            )
        if key in _KERNELS and value:
            raise ModelError(
                f"refusing {name}: {key} could fetch and run a kernel; nothing was imported. Remove that key"
            )


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check_sizes(raw: Mapping[str, Any]) -> None:
    for key, (least, most) in _LIMITS.items():
        value = raw.get(key, least)
        if value is None and key in _MAY_BE_NULL:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ModelError(f"config: {key} is {str(value)[:40]}; expected a whole number from {least} to {most:,}")


def _check_heads(config: Any) -> None:
    heads, kv_heads = config.num_attention_heads, kv_heads_of(config)
    if heads % kv_heads:
        raise ModelError(f"config: {heads} attention heads cannot share {kv_heads} key-value heads evenly")
    if getattr(config, "head_dim", None) is None and config.hidden_size % heads:
        raise ModelError(f"config: hidden_size {config.hidden_size} is not a multiple of {heads} attention heads")
    if config.model_type == "gpt_neox" and head_dim_of(config) * heads != config.hidden_size:
        raise ModelError(f"config: {heads} heads of {head_dim_of(config)} do not make hidden_size {config.hidden_size}")
    # a size that config.json leaves out takes the family's own; a checked range still holds after that
    _check_sizes({key: getattr(config, key) for key in _LIMITS if hasattr(config, key)})


def kv_heads_of(config: Any) -> int:
    """G, the KV heads of each layer; without grouping, as many as query heads."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def head_dim_of(config: Any) -> int:
    """D, the channels of a head, as the modeling code takes them."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
