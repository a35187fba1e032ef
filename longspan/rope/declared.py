"""From a checkpoint's own `rope_parameters` to a rope method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from longspan.errors import ModelError, UnsupportedModel, UsageError
from longspan.rope import METHODS
from longspan.rope.angles import Geometry, Rope

# rope_type in the config → our method, with the config's key for each of its options
_OPTIONS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "yarn": {
        "factor": "factor",
        "original": "original_max_position_embeddings",
        "attention_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
        "truncate": "truncate",
    },
    "llama3": {
        "factor": "factor",
        "original": "original_max_position_embeddings",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "longrope": {
        "short_factor": "short_factor",
        "long_factor": "long_factor",
        "factor": "factor",
        "original": "original_max_position_embeddings",
        "attention_factor": "attention_factor",
    },
}
_REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}


def declared(parameters: Mapping[str, Any], head_dim: int, positions: int) -> tuple[Rope, Geometry]:
    """The method and geometry that a checkpoint declares, for one kind of layer.

    parameters: one flat `rope_parameters` block (older names: `rope_scaling`, `type`), with `rope_theta`.
    Raises ModelError for values that make no sense, UnsupportedModel for a type the engine does not know.
    """
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind in ("su", "longrope"):
        kind = "longrope"
    if kind not in _OPTIONS:
        raise UnsupportedModel(f"rope type {kind!r} is not supported; supported: {', '.join(_OPTIONS)}")
    theta = _number(parameters.get("rope_theta", 10000.0), "rope_theta")
    if theta <= 1:
        raise ModelError(f"config: rope_theta {theta:g} should be above 1")
    partial = _number(parameters.get("partial_rotary_factor") or 1.0, "partial_rotary_factor")
    dim = int(head_dim * partial)
    if not 0 < partial <= 1 or dim < 2 or dim % 2:
        raise ModelError(
            f"config: partial_rotary_factor {partial:g} of head_dim {head_dim} rotates {dim} channels; "
            "it should be an even number between 2 and head_dim"
        )
    values = {}
    for option, key in _OPTIONS[kind].items():
        value = parameters.get(key)
        if value is None:
            if option in _REQUIRED.get(kind, ()):
                raise ModelError(f"config: rope type {kind} lacks {key!r}")
            continue
        values[option] = _value(value, option, key)
    if kind == "yarn" and "factor" not in values:
        values["factor"] = positions / int(values.get("original", positions))  # type: ignore[call-overload]
    original = int(values.get("original", positions))  # type: ignore[call-overload]
    geometry = Geometry(dim=dim, theta=theta, original=original, positions=positions)
    try:
        method = METHODS[kind](**values)
        method.angles(geometry, 1)
        method.angles(geometry, original + 1)
    except UsageError as error:
        raise ModelError(f"config: {error}") from None
    return method, geometry


def _value(value: Any, option: str, key: str) -> object:
    if isinstance(value, list):
        return tuple(_number(v, key) for v in value)
    if option == "truncate":
        return bool(value)
    number = _number(value, key)
    return int(number) if option == "original" else number


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ModelError(f"config: {key} should be a finite number, got {value!r}")
    return float(value)
