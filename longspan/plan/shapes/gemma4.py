"""Gemma 4: wider heads where a layer sees everything, caches that later layers share, and embeddings of each layer."""

from __future__ import annotations

import dataclasses

from longspan.plan.shape import Layer
from longspan.plan.shapes.fields import Fields
from longspan.plan.shapes.parts import mlp

THETA = 1_000_000.0
"""Of layers that see everything, of Gemma 3 and 4."""
ROPE: dict[str, object] = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": THETA},
}
"""Where a config does not say: a quarter of the channels turns in layers that see everything."""


def layers(f: Fields, made: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers as `layers_of` made them, with what is different in this family."""
    h, own, reused = f.size("hidden_size"), f.size("head_dim"), f.optional("num_kv_shared_layers", least=0) or 0
    same = f.flag("attention_k_eq_v")
    wide, fewer = f.size("global_head_dim"), f.optional("num_global_key_value_heads")
    narrow = f.optional("hidden_size_per_layer_input", least=0) or 0
    if reused >= len(made):
        raise f.wrong(f"{reused} of {len(made)} layers take their keys from an earlier one; none would make any")
    out = []
    for i, layer in enumerate(made):
        full = layer.kind == "full"
        dim = wide if full else own
        stored = fewer if full and same and fewer is not None else layer.kv_heads
        shares = i >= len(made) - reused
        matrices = 0 if shares else 1 if full and same else 2
        count = 2 * h * layer.heads * dim + matrices * h * stored * dim + dim * (1 if shares else 2)
        count += 4 * h + (2 * h * narrow + h if narrow else 0)
        inner = layer.mlp
        if shares and f.flag("use_double_wide_mlp"):
            inner += mlp(h, f.size("intermediate_size"))
        out.append(
            dataclasses.replace(
                layer,
                qk_dim=dim,
                v_dim=dim,
                kv_heads=0 if shares else stored,
                attention=count,
                mlp=inner,
                active=layer.active + inner - layer.mlp,
            )
        )
    return tuple(out)


def embedded(f: Fields, count: int) -> tuple[int, int]:
    """Parameters of the layers' own embeddings, and of what belongs to no layer."""
    narrow = f.optional("hidden_size_per_layer_input", least=0) or 0
    if not narrow:
        return 0, 0
    rows = f.size("vocab_size_per_layer_input")
    return rows * count * narrow, f.size("hidden_size") * count * narrow + narrow
