"""Shapes that tests reckon with by hand: no config, no table."""

from __future__ import annotations

from typing import Any

from longspan.plan.machine import Machine
from longspan.plan.shape import Layer, Shape


def dense(
    name: str = "by-hand",
    layers: int = 32,
    hidden: int = 4096,
    intermediate: int = 14336,
    heads: int = 32,
    kv_heads: int = 8,
    head_dim: int = 128,
    vocab: int = 128256,
    trained: int = 131072,
    window: int | None = None,
    theta: float = 500000.0,
    rope: dict[str, Any] | None = None,
    original: int | None = None,
) -> Shape:
    """A dense decoder; by default that of Llama-3.1-8B with plain positions."""
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads) + 2 * hidden
    mlp = 3 * hidden * intermediate
    kind = "full" if window is None else "sliding"
    layer = Layer(kind, window, heads, kv_heads, head_dim, head_dim, attention, mlp, mlp)
    return Shape(
        name,
        "llama",
        (layer,) * layers,
        hidden,
        intermediate,
        vocab,
        embedding=vocab * hidden,
        head=vocab * hidden,
        rest=hidden,
        tied=False,
        trained=trained,
        original=original or trained,
        theta=theta,
        rope=rope or {},
    )


LLAMA_2_7B = {"intermediate": 11008, "kv_heads": 32, "vocab": 32000, "trained": 4096, "theta": 10000.0}
H100 = Machine("H100 by hand", 80 * 10**9, 3.35e12, 989e12)
