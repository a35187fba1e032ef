"""Models of other houses: DeepSeek, gpt-oss, Phi, Kimi, GLM, MiniMax, OLMo, Cohere, and two old ones."""

from __future__ import annotations

from typing import Any

from longspan.plan.shapes.known.entry import RECALLED, Known, config


def _latent(top: int, experts: int, inner: int, shared: int, dense: int, **more: Any) -> dict[str, Any]:
    return {
        "n_routed_experts": experts,
        "num_experts_per_tok": top,
        "moe_intermediate_size": inner,
        "n_shared_experts": shared,
        "first_k_dense_replace": dense,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        **more,
    }


def _yarn(factor: float, original: int = 4096) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}}


def _oss(layers: int, experts: int) -> dict[str, Any]:
    more = {"head_dim": 64, "sliding_window": 128, "attention_bias": True, "rope_theta": 150_000.0, **_yarn(32.0)}
    more |= {"num_local_experts": experts, "num_experts_per_tok": 4}
    more["layer_types"] = ["sliding_attention", "full_attention"] * (layers // 2)
    return config("gpt_oss", 2880, 2880, layers, 64, 8, 201_088, 131_072, **more)


MODELS: dict[str, Known] = {
    "deepseek-v2": Known(
        "deepseek-ai/DeepSeek-V2",
        config(
            "deepseek_v2",
            5120,
            12_288,
            60,
            128,
            128,
            102_400,
            163_840,
            **_latent(6, 160, 1536, 2, 1, **_yarn(40.0)),
        ),
        235.7e9,
        21.4e9,
    ),
    "deepseek-v2-lite": Known(
        "deepseek-ai/DeepSeek-V2-Lite",
        config(
            "deepseek_v2",
            2048,
            10_944,
            27,
            16,
            16,
            102_400,
            163_840,
            **(_latent(6, 64, 1408, 2, 1, **_yarn(40.0)) | {"q_lora_rank": None}),
        ),
        15_706_484_224,
        source=RECALLED,
    ),
    "deepseek-v3": Known(
        "deepseek-ai/DeepSeek-V3",
        config(
            "deepseek_v3",
            7168,
            18_432,
            61,
            128,
            128,
            129_280,
            163_840,
            **_latent(8, 256, 2048, 1, 3, **_yarn(40.0)),
        ),
        671.0e9,
        37.6e9,
    ),
    "kimi-k2": Known(
        "moonshotai/Kimi-K2-Instruct",
        config(
            "kimi_k2",
            7168,
            18_432,
            61,
            64,
            64,
            163_840,
            131_072,
            rope_theta=50_000.0,
            **_latent(8, 384, 2048, 1, 1, **_yarn(32.0)),
        ),
        1.0264e12,
        32.6e9,
        source=RECALLED,
    ),
    "gpt-oss-20b": Known("openai/gpt-oss-20b", _oss(24, 32), 20.9e9, 4.2e9),
    "gpt-oss-120b": Known("openai/gpt-oss-120b", _oss(36, 128), 116_829_156_672, 5.7e9, source=RECALLED),
    "phi-3-mini-128k": Known(
        "microsoft/Phi-3-mini-128k-instruct",
        config(
            "phi3",
            3072,
            8192,
            32,
            32,
            32,
            32_064,
            131_072,
            sliding_window=262_144,
            original_max_position_embeddings=4096,
            rope_scaling={"rope_type": "longrope"},  # its 96 factors, short and long, change no size
        ),
        3.82e9,
    ),
    "phi-4": Known(
        "microsoft/phi-4",
        config("phi3", 5120, 17_920, 40, 40, 10, 100_352, 16_384, sliding_window=None, rope_theta=250_000.0),
        14_659_507_200,
        source=RECALLED,
    ),
    "glm-4-9b": Known(
        "zai-org/GLM-4-9B-0414",
        config("glm4", 4096, 13_696, 40, 32, 2, 151_552, 32_768, head_dim=128, attention_bias=True),
        9_400_279_040,
        source=RECALLED,
    ),
    "glm-4.5-air": Known(
        "zai-org/GLM-4.5-Air",
        config(
            "glm4_moe",
            4096,
            10_944,
            46,
            96,
            8,
            151_552,
            131_072,
            head_dim=128,
            attention_bias=True,
            rope_theta=1e6,
            n_routed_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=1408,
            n_shared_experts=1,
            first_k_dense_replace=1,
        ),
        106.85e9,
        source=RECALLED,
    ),
    "minimax-m2": Known(
        "MiniMaxAI/MiniMax-M2",
        config(
            "minimax_m2",
            3072,
            1536,
            62,
            48,
            8,
            200_064,
            196_608,
            head_dim=128,
            rope_theta=5e6,
            num_local_experts=256,
            num_experts_per_tok=8,
        ),
        228.7e9,
        source=RECALLED,
    ),
    "olmo-2-7b": Known(
        "allenai/OLMo-2-1124-7B",
        config("olmo2", 4096, 11_008, 32, 32, 32, 100_352, 4096, rope_theta=500_000.0),
        7_298_617_344,
        source=RECALLED,
    ),
    "command-r": Known(
        "CohereLabs/c4ai-command-r-v01",
        config("cohere", 8192, 22_528, 40, 64, 64, 256_000, 131_072, rope_theta=8e6, tie_word_embeddings=True),
        34_980_831_232,
        source=RECALLED,
    ),
    "command-r7b": Known(
        "CohereLabs/c4ai-command-r7b-12-2024",
        config(
            "cohere2",
            4096,
            14_336,
            32,
            32,
            8,
            256_000,
            132_096,
            rope_theta=50_000.0,
            sliding_window=4096,
            sliding_window_pattern=4,
            tie_word_embeddings=True,
        ),
        8_028_033_024,
        source=RECALLED,
    ),
    "gpt-neox-20b": Known(
        "EleutherAI/gpt-neox-20b",
        config("gpt_neox", 6144, 24_576, 44, 64, 64, 50_432, 2048, attention_bias=True),
        20_554_567_680,
        source=RECALLED,
    ),
    "gpt2": Known(
        "openai-community/gpt2",
        {
            "model_type": "gpt2",
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_positions": 1024,
            "vocab_size": 50_257,
            "dtype": "float32",
        },
        124_439_808,
        source=RECALLED,
    ),
}
