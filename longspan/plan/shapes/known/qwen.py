"""Qwen."""

from __future__ import annotations

from typing import Any

from longspan.plan.shapes.known.entry import RECALLED, Known, config, inside

_V25 = {"rope_theta": 1e6, "use_sliding_window": False}
_V3 = {"head_dim": 128, "rope_theta": 1e6, "use_sliding_window": False}


def _moe(top: int, experts: int, inner: int, **more: Any) -> dict[str, Any]:
    return {"num_experts": experts, "num_experts_per_tok": top, "moe_intermediate_size": inner, **more}


def _linear(value_heads: int) -> dict[str, Any]:
    return {
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": value_heads,
        "rope_theta": 1e7,
        "tie_word_embeddings": False,
    }


MODELS: dict[str, Known] = {
    "qwen2.5-0.5b": Known(
        "Qwen/Qwen2.5-0.5B",
        config("qwen2", 896, 4864, 24, 14, 2, 151_936, 32_768, tie_word_embeddings=True, **_V25),
        494_032_768,
        source=RECALLED,
    ),
    "qwen2.5-7b": Known("Qwen/Qwen2.5-7B", config("qwen2", 3584, 18_944, 28, 28, 4, 152_064, 131_072, **_V25), 7.62e9),
    "qwen2.5-7b-instruct": Known(
        "Qwen/Qwen2.5-7B-Instruct",
        config("qwen2", 3584, 18_944, 28, 28, 4, 152_064, 32_768, **_V25),
        7_615_616_512,
        source=RECALLED,
    ),
    "qwen2.5-32b": Known(
        "Qwen/Qwen2.5-32B",
        config("qwen2", 5120, 27_648, 64, 40, 8, 152_064, 131_072, **_V25),
        32_763_876_352,
        source=RECALLED,
    ),
    "qwen2.5-72b": Known(
        "Qwen/Qwen2.5-72B", config("qwen2", 8192, 29_568, 80, 64, 8, 152_064, 131_072, **_V25), 72.71e9
    ),
    "qwen3-0.6b": Known(
        "Qwen/Qwen3-0.6B",
        config("qwen3", 1024, 3072, 28, 16, 8, 151_936, 40_960, tie_word_embeddings=True, **_V3),
        596_049_920,
        source=RECALLED,
    ),
    "qwen3-4b": Known(
        "Qwen/Qwen3-4B",
        config("qwen3", 2560, 9728, 36, 32, 8, 151_936, 40_960, tie_word_embeddings=True, **_V3),
        4_022_468_096,
        source=RECALLED,
    ),
    "qwen3-8b": Known("Qwen/Qwen3-8B", config("qwen3", 4096, 12_288, 36, 32, 8, 151_936, 40_960, **_V3), 8.19e9),
    "qwen3-14b": Known(
        "Qwen/Qwen3-14B",
        config("qwen3", 5120, 17_408, 40, 40, 8, 151_936, 40_960, **_V3),
        14_768_307_200,
        source=RECALLED,
    ),
    "qwen3-32b": Known("Qwen/Qwen3-32B", config("qwen3", 5120, 25_600, 64, 64, 8, 151_936, 40_960, **_V3), 32.76e9),
    "qwen3-30b-a3b": Known(
        "Qwen/Qwen3-30B-A3B",
        config("qwen3_moe", 2048, 6144, 48, 32, 4, 151_936, 40_960, **_V3, **_moe(8, 128, 768)),
        30.53e9,
        3.35e9,
    ),
    "qwen3-235b-a22b": Known(
        "Qwen/Qwen3-235B-A22B",
        config("qwen3_moe", 4096, 12_288, 94, 64, 4, 151_936, 40_960, **_V3, **_moe(8, 128, 1536)),
        235_093_634_560,
        22.2e9,
        source=RECALLED,
    ),
    "qwen3-next-80b-a3b": Known(
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        config(
            "qwen3_next",
            2048,
            5120,
            48,
            16,
            2,
            151_936,
            262_144,
            **_linear(32),
            **_moe(10, 512, 512, shared_expert_intermediate_size=512),
        ),
        79.7e9,
        source=RECALLED,
    ),
    "qwen3.5-27b": Known(
        "Qwen/Qwen3.5-27B",
        inside("qwen3_5", config("qwen3_5_text", 5120, 17_408, 64, 24, 4, 248_320, 262_144, **_linear(48))),
        27e9,
    ),
}
