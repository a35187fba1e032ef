"""Gemma."""

from __future__ import annotations

from typing import Any

from longspan.plan.shapes.gemma4 import ROPE
from longspan.plan.shapes.known.entry import RECALLED, Known, config, inside

_ROPE3 = {"rope_theta": 1e6, "rope_local_base_freq": 10_000.0}
_SCALED3 = {**_ROPE3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
_PATTERN3 = {"sliding_window_pattern": 6, "tie_word_embeddings": True}


def _second(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, dim: int) -> dict[str, Any]:
    types = ["sliding_attention", "full_attention"] * (layers // 2)
    more = {"head_dim": dim, "sliding_window": 4096, "layer_types": types, "tie_word_embeddings": True}
    return config("gemma2", hidden, inner, layers, heads, kv_heads, 256_000, 8192, **more)


def _third(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, dim: int) -> dict[str, Any]:
    more = {"head_dim": dim, "sliding_window": 1024, **_PATTERN3, **_SCALED3}
    return inside("gemma3", config("gemma3_text", hidden, inner, layers, heads, kv_heads, 262_208, 131_072, **more))


MODELS: dict[str, Known] = {
    "gemma-2-2b": Known("google/gemma-2-2b", _second(2304, 9216, 26, 8, 4, 256), 2_614_341_888, source=RECALLED),
    "gemma-2-9b": Known("google/gemma-2-9b", _second(3584, 14_336, 42, 16, 8, 256), 9.24e9),
    "gemma-2-27b": Known("google/gemma-2-27b", _second(4608, 36_864, 46, 32, 16, 128), 27_227_128_320, source=RECALLED),
    "gemma-3-1b": Known(
        "google/gemma-3-1b-it",
        config(
            "gemma3_text",
            1152,
            6912,
            26,
            4,
            1,
            262_144,
            32_768,
            head_dim=256,
            sliding_window=512,
            **_PATTERN3,
            **_ROPE3,
        ),
        999_885_952,
        source=RECALLED,
    ),
    "gemma-3-4b": Known("google/gemma-3-4b-it", _third(2560, 10_240, 34, 8, 4, 256), 3.88e9, source=RECALLED),
    "gemma-3-12b": Known("google/gemma-3-12b-it", _third(3840, 15_360, 48, 16, 8, 256), 11.77e9, source=RECALLED),
    "gemma-3-27b": Known("google/gemma-3-27b-it", _third(5376, 21_504, 62, 32, 16, 128), 27.0e9),
    "gemma-4-31b": Known(
        "google/gemma-4-31B-it",
        inside(
            "gemma4",
            config(
                "gemma4_text",
                5376,
                21_504,
                60,
                32,
                16,
                262_144,
                262_144,
                head_dim=256,
                global_head_dim=512,
                num_global_key_value_heads=4,
                attention_k_eq_v=True,
                hidden_size_per_layer_input=0,
                sliding_window=1024,
                sliding_window_pattern=6,
                tie_word_embeddings=True,
                rope_parameters=ROPE,
            ),
        ),
        30.7e9,
        source=RECALLED,
    ),
}
