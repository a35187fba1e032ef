"""Mistral and Mixtral."""

from __future__ import annotations

from longspan.plan.shapes.known.entry import RECALLED, Known, config

_WIDE = {"head_dim": 128, "sliding_window": None}
_EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None, "rope_theta": 1e6}

MODELS: dict[str, Known] = {
    "mistral-7b-v0.1": Known(
        "mistralai/Mistral-7B-v0.1",
        config("mistral", 4096, 14_336, 32, 32, 8, 32_000, 32_768, sliding_window=4096),
        7.24e9,
    ),
    "mistral-7b-v0.3": Known(
        "mistralai/Mistral-7B-v0.3",
        config("mistral", 4096, 14_336, 32, 32, 8, 32_768, 32_768, sliding_window=None, rope_theta=1e6),
        7.25e9,
        source=RECALLED,
    ),
    "mistral-nemo-12b": Known(
        "mistralai/Mistral-Nemo-Base-2407",
        config("mistral", 5120, 14_336, 40, 32, 8, 131_072, 131_072, rope_theta=1e6, **_WIDE),
        12_247_782_400,
        source=RECALLED,
    ),
    "mistral-small-24b": Known(
        "mistralai/Mistral-Small-24B-Base-2501",
        config("mistral", 5120, 32_768, 40, 32, 8, 131_072, 32_768, rope_theta=1e8, **_WIDE),
        23_572_403_200,
        source=RECALLED,
    ),
    "mixtral-8x7b": Known(
        "mistralai/Mixtral-8x7B-v0.1",
        config("mixtral", 4096, 14_336, 32, 32, 8, 32_000, 32_768, **_EXPERTS),
        46.7e9,
        12.9e9,
    ),
    "mixtral-8x22b": Known(
        "mistralai/Mixtral-8x22B-v0.1",
        config("mixtral", 6144, 16_384, 56, 48, 8, 32_768, 65_536, **_EXPERTS),
        140_630_071_296,
        39.2e9,
        source=RECALLED,
    ),
}
