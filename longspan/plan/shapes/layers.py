"""The layers of a model, from its config and what its family does."""

from __future__ import annotations

import dataclasses

from longspan.plan.shape import Kind, Layer
from longspan.plan.shapes.families import Family
from longspan.plan.shapes.fields import Fields
from longspan.plan.shapes.parts import Delta, Latent, Mixture, grouped, mlp


@dataclasses.dataclass(frozen=True)
class Heads:
    """Query heads, KV heads, and channels of a head."""

    queries: int
    stored: int
    dim: int


def layers_of(f: Fields, family: Family) -> tuple[Layer, ...]:
    """One entry per layer. Raises ModelError for what is missing or contradicts itself."""
    count, h = f.size("num_hidden_layers"), f.size("hidden_size")
    kinds = family.kinds(f, count)
    chosen = None if family.experts is None else family.experts(f, count)
    made = []
    for i, (kind, window) in enumerate(kinds):
        attention = _linear(f) if kind == "linear" else _latent(f, family) if family.latent else _full(f, family, kind)
        mixture = chosen[0] if chosen is not None and i in chosen[1] else None
        inner, active = _mlp(f, family, mixture)
        norms = family.norms * h * (2 if family.centered else 1)
        made.append(
            dataclasses.replace(
                attention, window=window, attention=attention.attention + norms, mlp=inner, active=active
            )
        )
    return tuple(made)


def heads_of(f: Fields) -> Heads:
    """Raises ModelError where heads cannot be shared evenly or a head's channels are not said."""
    queries = f.size("num_attention_heads")
    stored = f.optional("num_key_value_heads", "num_kv_heads")
    if stored is None:
        stored = queries
        f.note(f"num_key_value_heads is not given: {queries}, as many as query heads")
    if queries % stored:
        raise f.wrong(f"{queries} attention heads cannot share {stored} key-value heads evenly")
    dim = f.optional("head_dim")
    if dim is None:
        h = f.size("hidden_size")
        if h % queries:
            raise f.wrong(f"hidden_size {h:,} is not a multiple of {queries} attention heads; give head_dim")
        dim = h // queries
    return Heads(queries, stored, dim)


def _full(f: Fields, family: Family, kind: Kind) -> Layer:
    h, heads = f.size("hidden_size"), heads_of(f)
    width = heads.queries * heads.dim
    count = grouped(
        h,
        heads.queries,
        heads.stored,
        heads.dim,
        qkv_bias=family.has(f, family.qkv_bias),
        out_bias=family.has(f, family.out_bias),
    )
    norm = family.qk_norm
    if norm.endswith("if use_qk_norm"):
        norm = norm.split()[0] if f.flag("use_qk_norm") else ""  # type: ignore[assignment]
    count += {"head": 2 * heads.dim, "all": width + heads.stored * heads.dim}.get(norm, 0)
    count += h * width * family.gate + heads.queries * family.sinks
    return Layer(kind, None, heads.queries, heads.stored, heads.dim, heads.dim, count, 0, 0)


def _latent(f: Fields, family: Family) -> Layer:
    h, queries = f.size("hidden_size"), f.size("num_attention_heads")
    parts = Latent(
        f.size("kv_lora_rank"),
        f.size("qk_rope_head_dim"),
        f.size("qk_nope_head_dim"),
        f.size("v_head_dim"),
        f.optional("q_lora_rank"),
    )
    count = parts.parameters(h, queries, family.has(f, family.qkv_bias))
    return Layer(
        "latent", None, queries, 0, parts.nope + parts.rope, parts.v, count, 0, 0, latent=parts.rank + parts.rope
    )


def _linear(f: Fields) -> Layer:
    parts = Delta(
        f.size("linear_num_key_heads"),
        f.size("linear_num_value_heads"),
        f.size("linear_key_head_dim"),
        f.size("linear_value_head_dim"),
        f.size("linear_conv_kernel_dim"),
    )
    if parts.value_heads % parts.key_heads:
        raise f.wrong(f"{parts.value_heads} linear value heads cannot share {parts.key_heads} key heads evenly")
    count = parts.parameters(f.size("hidden_size"))
    return Layer("linear", None, parts.value_heads, 0, parts.key, parts.value, count, 0, 0, state=parts.state)


def _mlp(f: Fields, family: Family, mixture: Mixture | None) -> tuple[int, int]:
    """Parameters, and those that a token uses."""
    if mixture is not None:
        return mixture.parameters, mixture.active
    count = mlp(f.size("hidden_size"), f.size(family.dense), gated=family.gated, bias=family.has(f, family.mlp_bias))
    return count, count
