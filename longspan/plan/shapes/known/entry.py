"""What is kept of a well-known model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READ = "its config.json"
RECALLED = "its config.json, as remembered; the parameter count bears it out"


@dataclass(frozen=True)
class Known:
    """hub: where it is published. config: of its config.json, what sizes follow from. parameters: as published, of the
    text model. active: of those, what one token uses, as published; None: all, or not said. source: of the config."""

    hub: str
    config: Mapping[str, Any]
    parameters: float
    active: float | None = None
    source: str = READ


def config(
    family: str, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, reach: int, **more: Any
) -> dict[str, Any]:
    """The fields that every config has, and `more`."""
    return {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": reach,
        "dtype": "bfloat16",
        **more,
    }


def inside(outer: str, text: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model with other senses around a text model."""
    return {"model_type": outer, "text_config": text}
