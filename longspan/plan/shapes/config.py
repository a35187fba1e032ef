"""From a config.json to a shape, whether or not the engine runs the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from longspan.errors import ModelError, UnsupportedModel
from longspan.plan.shape import Layer, Shape
from longspan.plan.shapes import gemma4, older
from longspan.plan.shapes.families import FAMILIES, PARTS, REFUSED, Family
from longspan.plan.shapes.fields import Fields
from longspan.plan.shapes.layers import layers_of

_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
_REASONS = {name: reason for reason, names in REFUSED.items() for name in names.split()}
_THETA = 10_000.0


def from_config(config: Mapping[str, Any], name: str, source: str = "") -> Shape:
    """The shape of the model that a config.json describes; of its text model where it has other senses.

    name: how it is called, in messages too. source: where the config comes from. Parameters are counted from the
    config alone. `Shape.notes` says what was taken from the family's defaults. Raises ModelError for fields that are
    missing, make no sense or contradict each other, UnsupportedModel for a family that is not known.
    """
    text, outer, nested = _text(config, name)
    family = _family(text, outer, name)
    f = Fields(older.modern(text, family), family, name)
    style = FAMILIES[family]
    if family == "falcon":
        style = dataclasses.replace(style, norms=older.norms(f))
    layers = layers_of(f, style)
    if family == "gemma4_text":
        layers = gemma4.layers(f, layers)
    if outer is not None:
        f.note("the text model alone; what it has for images or sound is not counted")
    embedding, head, rest, tied = _ends(f, style, outer, len(layers))
    trained, original, theta, rope = _positions(f)
    return Shape(
        name=name,
        family=family,
        layers=layers,
        hidden=f.size("hidden_size"),
        intermediate=_intermediate(f, style, layers),
        vocab=f.size("vocab_size"),
        embedding=embedding,
        head=head,
        rest=rest,
        tied=tied,
        trained=trained,
        original=original,
        theta=theta,
        rope=rope,
        element=_element(f, config),
        source=source,
        notes=tuple(f.notes),
        nested=nested,
    )


def _text(config: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Mapping[str, Any] | None, str]:
    """The config of the text model, the one around it where there is one, and the field of that which holds it."""
    if not isinstance(config, Mapping):
        raise ModelError(f"{name}: config should be a JSON object, not a {type(config).__name__}")
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            raise ModelError(f"{name}: {key} should be a JSON object, not {str(inner)[:40]!r}")
        return dict(inner), config, key
    return dict(config), None, ""


def _family(text: Mapping[str, Any], outer: Mapping[str, Any] | None, name: str) -> str:
    given = text.get("model_type")
    if given is None and outer is not None:
        given = outer.get("model_type")
    if not isinstance(given, str) or not given:
        raise ModelError(f"{name}: config lacks model_type, which says how the others are meant")
    family = given if given in FAMILIES else PARTS.get(given, given)
    if family not in FAMILIES:
        reason = _REASONS.get(family, "no formula for its parameters is known here")
        raise UnsupportedModel(f"{name}: {given[:60]} cannot be counted: {reason}. Known: {', '.join(FAMILIES)}")
    if text.get("is_encoder_decoder"):
        raise UnsupportedModel(f"{name}: an encoder-decoder cannot be counted; only decoders are")
    return family


def _ends(f: Fields, style: Family, outer: Mapping[str, Any] | None, count: int) -> tuple[int, int, int, bool]:
    """Parameters of the input embedding, of the output head, and of what belongs to no layer; whether they are tied."""
    h, vocab = f.size("hidden_size"), f.size("vocab_size")
    width = f.optional("word_embed_proj_dim") if f.family == "opt" else None
    table = vocab * (width or h)
    if (
        outer is not None
        and f.given("tie_word_embeddings") is None
        and isinstance(outer.get("tie_word_embeddings"), bool)
    ):
        tied = bool(outer["tie_word_embeddings"])
    else:
        tied = f.flag("tie_word_embeddings")
    rest = h * (2 if style.centered else 1)
    if f.family == "opt" and not f.flag("do_layer_norm_before", True):
        rest = 0
    if width is not None and width != h:
        rest += 2 * width * h
    if f.family == "bloom":
        rest += 2 * h  # a norm after the embedding
    own, projections = gemma4.embedded(f, count) if f.family == "gemma4_text" else (0, 0)
    return table + older.positions(f) + own, 0 if tied else table, rest + projections, tied


def _positions(f: Fields) -> tuple[int, int, float, dict[str, object]]:
    """Trained length, length before scaling, theta, and the rope block; {} where rotation is plain."""
    trained = f.size("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
    block = f.given("rope_parameters", "rope_scaling")
    if block is not None and not isinstance(block, Mapping):
        raise f.wrong(f"rope_scaling should be an object, not {str(block)[:40]!r}")
    block = dict(block or {})
    if isinstance(block.get("full_attention"), Mapping):  # one block per kind of layer
        block = dict(block["full_attention"])
    inside = Fields(block, f.family, f.where)
    theta = inside.number("rope_theta", default=f.number("rope_theta", "rotary_emb_base", default=_THETA))
    kind = block.get("rope_type") or block.get("type") or "default"
    if not isinstance(kind, str):
        raise f.wrong(f"rope type {str(kind)[:40]!r} should be a name")
    original = inside.optional("original_max_position_embeddings")
    if original is None:
        original = f.optional("original_max_position_embeddings") or trained
    factor = inside.number("factor", default=1.0)
    if kind == "yarn":
        trained = max(trained, int(original * factor))
    plain = kind in ("default", "mrope")
    if f.family in older.UNROTATED or f.flag("alibi"):
        theta = 0.0
    return trained, min(original, trained), theta, {} if plain else block


def _intermediate(f: Fields, style: Family, layers: tuple[Layer, ...]) -> int:
    """Of one expert where most layers have experts, else of a dense MLP."""
    mixed = sum(layer.active < layer.mlp for layer in layers)
    if 2 * mixed > len(layers):
        return f.size("moe_intermediate_size", "intermediate_size")
    return f.size(style.dense)


def _element(f: Fields, config: Mapping[str, Any]) -> int:
    """Bytes of a number. Weights of fewer bits are noted: their layers are computed in 16 bits."""
    quantized = config.get("quantization_config") or f.given("quantization_config")
    if isinstance(quantized, Mapping):
        how = str(quantized.get("quant_method", "a form that is not said"))[:40]
        f.note(f"published with weights in {how}; counted at the bits that are asked for")
    kind = f.given("dtype", "torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return _ELEMENT.get(str(kind).removeprefix("torch."), 2)
