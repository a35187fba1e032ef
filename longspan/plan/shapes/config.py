"""From a config.json to a shape, whether or not the engine runs the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from longspan.errors import ModelError, UnsupportedModel
from longspan.plan.shape import Layer, Shape
from longspan.plan.shapes import gemma4, older
from longspan.plan.shapes.defaults import TURNS
from longspan.plan.shapes.families import FAMILIES, LAYERED, PARTS, REFUSED, Family
from longspan.plan.shapes.fields import Fields
from longspan.plan.shapes.layers import layers_of
from longspan.plan.work import LONGEST

_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
_REASONS = {name: reason for reason, names in REFUSED.items() for name in names.split()}
_THETA = 10_000.0
_LAYERS = {"full_attention", "sliding_attention"}
MOST_SCALED = 1e6
"""Times that positions are scaled, at most."""


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
    positions = _positions(f)
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
        trained=positions.trained,
        original=positions.original,
        theta=positions.theta,
        rope=positions.rope,
        element=_element(f, config),
        source=source,
        notes=tuple(f.notes),
        nested=nested,
        block=positions.block,
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


@dataclasses.dataclass(frozen=True)
class _Positions:
    """As in `Shape`."""

    trained: int
    original: int
    theta: float
    rope: dict[str, object]
    block: dict[str, object]


def _positions(f: Fields) -> _Positions:
    trained = _most(f, f.size("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"))
    whole = _block(f)
    full = whole["full_attention"] if _LAYERS & set(whole) else whole
    if not isinstance(full, Mapping):
        raise f.wrong("rope_parameters for kinds of layers lack those of full_attention")
    inside = Fields(full, f.family, f.where)
    theta = inside.number("rope_theta", default=_THETA)
    kind = full.get("rope_type") or "default"
    if not isinstance(kind, str):
        raise f.wrong(f"rope type {kind!r:.40} should be a name")
    original = inside.optional("original_max_position_embeddings")
    if original is None:
        original = f.optional("original_max_position_embeddings") or trained
    factor = inside.number("factor", default=1.0, most=MOST_SCALED)
    if kind == "yarn":
        trained = max(trained, _most(f, int(original * factor)))
    if f.family in older.UNROTATED or f.flag("alibi"):
        return _Positions(trained, min(original, trained), 0.0, {}, {})
    return _Positions(trained, min(original, trained), theta, {} if kind == "default" else dict(full), whole)


def _most(f: Fields, tokens: int) -> int:
    if tokens <= LONGEST:
        return tokens
    f.note(f"{tokens:,} tokens are claimed, counted as {LONGEST:,}")
    return LONGEST


def _block(f: Fields) -> dict[str, object]:
    """Rope parameters as transformers stores them: `rope_scaling` where it says anything, else `rope_parameters`, with
    what stands outside of both; one block for each kind of layer in families that have several."""
    old, new = (_object(f, key) for key in ("rope_scaling", "rope_parameters"))
    theta = f.number("rope_theta", "rotary_emb_base", default=_THETA)
    part = f.given("partial_rotary_factor", "rotary_pct") or TURNS.get(f.family)
    if f.family not in LAYERED and not _LAYERS & set(new):
        return _named(old or new, theta, part)
    if f.family == "gemma4_text" and not old and not new:
        f.note("rope_parameters are not given: as gemma4_text has them")
        new = gemma4.ROPE
    layered = bool(_LAYERS & set(new))
    full = _object_of(f, new, "full_attention") if layered else new
    windowed = _object_of(f, new, "sliding_attention") if layered else {}
    if f.family.startswith("gemma") and f.given("rope_theta") is None:
        theta = gemma4.THETA
    local = f.number("rope_local_base_freq", default=LAYERED.get(f.family) or theta)
    return {
        "full_attention": _named({**full, **old}, theta, part),
        "sliding_attention": _named(windowed, local, None),
    }


def _object(f: Fields, key: str) -> dict[str, object]:
    return _object_of(f, f.raw, key)


def _object_of(f: Fields, of: Mapping[str, Any], key: str) -> dict[str, object]:
    value = of.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise f.wrong(f"{key} should be an object, not {value!r:.40}")
    return dict(value or {})


def _named(block: Mapping[str, object], theta: float, part: object) -> dict[str, object]:
    """With its type by today's name, theta, and the part of the channels that turns."""
    out = {key: value for key, value in block.items() if key != "type"}
    kind = block.get("rope_type") or block.get("type") or "default"
    out["rope_type"] = "default" if kind == "mrope" else kind
    if out.get("rope_theta") is None:
        out["rope_theta"] = theta
    if part is not None:
        out.setdefault("partial_rotary_factor", part)
    return out


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
