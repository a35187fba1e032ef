"""Llama, and what shares its form."""

from __future__ import annotations

from typing import Any

from longspan.plan.shapes.known.entry import RECALLED, Known, config, inside


def _llama3(factor: float) -> dict[str, Any]:
    block = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return {"rope_theta": 500_000.0, "rope_scaling": block}


_LLAMA4 = {
    "head_dim": 128,
    "intermediate_size_mlp": 16_384,
    "num_experts_per_tok": 1,
    "attention_chunk_size": 8192,
    "no_rope_layer_interval": 4,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": False,
}
_ROPE4 = {
    "rope_type": "llama3",
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
}


def _fourth(reach: int, **more: Any) -> dict[str, Any]:
    return inside("llama4", config("llama4_text", 5120, 8192, 48, 40, 8, 202_048, reach, **_LLAMA4, **more))


_70B = config("llama", 8192, 28_672, 80, 64, 8, 128_256, 131_072, **_llama3(8.0))

MODELS: dict[str, Known] = {
    "llama-2-7b": Known("meta-llama/Llama-2-7b-hf", config("llama", 4096, 11_008, 32, 32, 32, 32_000, 4096), 6.74e9),
    "llama-2-13b": Known("meta-llama/Llama-2-13b-hf", config("llama", 5120, 13_824, 40, 40, 40, 32_000, 4096), 13.02e9),
    "llama-2-70b": Known("meta-llama/Llama-2-70b-hf", config("llama", 8192, 28_672, 80, 64, 8, 32_000, 4096), 68.98e9),
    "llama-3.1-8b": Known(
        "meta-llama/Llama-3.1-8B", config("llama", 4096, 14_336, 32, 32, 8, 128_256, 131_072, **_llama3(8.0)), 8.03e9
    ),
    "llama-3.1-70b": Known("meta-llama/Llama-3.1-70B", _70B, 70.55e9),
    "llama-3.1-405b": Known(
        "meta-llama/Llama-3.1-405B",
        config("llama", 16_384, 53_248, 126, 128, 8, 128_256, 131_072, **_llama3(8.0)),
        405.85e9,
    ),
    "llama-3.2-1b": Known(
        "meta-llama/Llama-3.2-1B",
        config("llama", 2048, 8192, 16, 32, 8, 128_256, 131_072, tie_word_embeddings=True, **_llama3(32.0)),
        1_235_814_400,
        source=RECALLED,
    ),
    "llama-3.2-3b": Known(
        "meta-llama/Llama-3.2-3B",
        config("llama", 3072, 8192, 28, 24, 8, 128_256, 131_072, tie_word_embeddings=True, **_llama3(32.0)),
        3_212_749_824,
        source=RECALLED,
    ),
    "llama-3.3-70b": Known("meta-llama/Llama-3.3-70B-Instruct", _70B, 70_553_706_496, source=RECALLED),
    "llama-4-scout": Known(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        _fourth(10_485_760, num_local_experts=16, interleave_moe_layer_step=1, rope_scaling=_ROPE4),
        107.8e9,
        17.2e9,
    ),
    "llama-4-maverick": Known(
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct",
        _fourth(1_048_576, num_local_experts=128, interleave_moe_layer_step=2),
        400.7e9,
        17.2e9,
        source=RECALLED,
    ),
    "smollm2-135m": Known(
        "HuggingFaceTB/SmolLM2-135M",
        config("llama", 576, 1536, 30, 9, 3, 49_152, 8192, rope_theta=100_000.0, tie_word_embeddings=True),
        134_515_008,
        source=RECALLED,
    ),
    "smollm2-1.7b": Known(
        "HuggingFaceTB/SmolLM2-1.7B",
        config("llama", 2048, 8192, 24, 32, 32, 49_152, 8192, rope_theta=130_000.0, tie_word_embeddings=True),
        1_711_376_384,
        source=RECALLED,
    ),
    "smollm3-3b": Known(
        "HuggingFaceTB/SmolLM3-3B",
        config("smollm3", 2048, 11_008, 36, 16, 4, 128_256, 65_536, rope_theta=5e6, tie_word_embeddings=True),
        3_075_098_624,
        source=RECALLED,
    ),
}
