"""Mixtures of experts: which layers have one, how many experts it has and of which size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from longspan.plan.shapes.fields import Fields
from longspan.plan.shapes.parts import Mixture, mlp

Choice = Callable[[Fields, int], tuple[Mixture, set[int]] | None]
"""From a config and its number of layers: the mixture, and the layers that have it. None: it has none."""


def _top(f: Fields, experts: int, *keys: str) -> int:
    top = f.size(*keys)
    if top > experts:
        raise f.wrong(f"a token uses {top} experts of {experts}")
    return top


def all_layers(f: Fields, layers: int) -> tuple[Mixture, set[int]]:
    """Mixtral: each layer, with experts of `intermediate_size`."""
    h, experts = f.size("hidden_size"), f.size("num_local_experts", "num_experts")
    top = _top(f, experts, "num_experts_per_tok")
    return Mixture(experts, top, mlp(h, f.size("intermediate_size")), h * experts), set(range(layers))


def sparse(f: Fields, layers: int) -> tuple[Mixture, set[int]]:
    """Qwen 3: every `decoder_sparse_step`-th layer but those of `mlp_only_layers`."""
    h, experts = f.size("hidden_size"), f.size("num_experts", "num_local_experts")
    top = _top(f, experts, "num_experts_per_tok")
    step, dense = f.given("decoder_sparse_step"), f.numbers("mlp_only_layers")
    step = 1 if step is None else f.whole(step, "decoder_sparse_step")
    where = {i for i in range(layers) if i not in dense and (i + 1) % step == 0}
    return Mixture(experts, top, mlp(h, f.size("moe_intermediate_size")), h * experts), where


def shared(f: Fields, layers: int) -> tuple[Mixture, set[int]]:
    """Other Qwens: as `sparse`, with an expert that every token uses, behind a gate."""
    mixture, where = sparse(f, layers)
    h, inner = f.size("hidden_size"), f.size("shared_expert_intermediate_size")
    return dataclasses.replace(mixture, shared=mixture.shared + mlp(h, inner) + h), where


def after_dense(f: Fields, layers: int) -> tuple[Mixture, set[int]] | None:
    """DeepSeek: layers from `first_k_dense_replace` on, with shared experts; the router's correction is counted."""
    experts = f.optional("n_routed_experts", "num_local_experts")
    if experts is None:
        return None
    h, inner, top = f.size("hidden_size"), f.size("moe_intermediate_size"), _top(f, experts, "num_experts_per_tok")
    shared = f.optional("n_shared_experts", least=0) or 0
    router = h * experts + (experts if f.family != "deepseek_v2" else 0)
    first = f.size("first_k_dense_replace", least=0)
    given = f.given("moe_layer_freq")
    if isinstance(given, list):
        where = {i for i, one in enumerate(f.listed("moe_layer_freq", layers) or ()) if one}
    else:
        step = 1 if given is None else f.whole(given, "moe_layer_freq")
        where = {i for i in range(first, layers) if i % step == 0}
    return Mixture(experts, top, mlp(h, inner), router + (mlp(h, inner * shared) if shared else 0)), where


def interleaved(f: Fields, layers: int) -> tuple[Mixture, set[int]]:
    """Llama 4: `moe_layers`, or every `interleave_moe_layer_step`-th; each with a shared expert."""
    h, inner, experts = f.size("hidden_size"), f.size("intermediate_size"), f.size("num_local_experts")
    top, one = _top(f, experts, "num_experts_per_tok"), mlp(h, inner)
    where = f.numbers("moe_layers")
    if f.given("moe_layers") is None:
        step = f.size("interleave_moe_layer_step", least=0)
        where = set(range(step - 1, layers, step)) if step else set()
    if any(i >= layers for i in where):
        raise f.wrong(f"moe_layers names layer {max(where)} of {layers}")
    return Mixture(experts, top, one, h * experts + one), where


def biased(f: Fields, layers: int) -> tuple[Mixture, set[int]]:
    """gpt-oss: every layer; experts and router have biases."""
    h, inner, experts = f.size("hidden_size"), f.size("intermediate_size"), f.size("num_local_experts", "num_experts")
    top = _top(f, experts, "num_experts_per_tok", "experts_per_token")
    return Mixture(experts, top, mlp(h, inner, bias=True), (h + 1) * experts), set(range(layers))


def corrected(f: Fields, layers: int) -> tuple[Mixture, set[int]]:
    """MiniMax-M2: as Mixtral, and a correction of each expert's score."""
    mixture, where = all_layers(f, layers)
    return dataclasses.replace(mixture, shared=mixture.shared + mixture.experts), where


def beside_dense(f: Fields, layers: int) -> tuple[Mixture, set[int]] | None:
    """Gemma 4: experts beside the dense MLP, with three more norms."""
    if not f.flag("enable_moe_block"):
        return None
    h, experts = f.size("hidden_size"), f.size("num_experts")
    top = _top(f, experts, "top_k_experts", "num_experts_per_tok")
    dense = mlp(h, f.size("intermediate_size")) + 3 * h
    always = dense + h * experts + h + experts
    return Mixture(experts, top, mlp(h, f.size("moe_intermediate_size")), always), set(range(layers))
