"""The rotation that a checkpoint declares, taken out of its config.

The model runs with all positions zero, so that its own rotation is the identity; for cos to be 1 there, its
config must hold the default rope type, which multiplies nothing in. What was declared is kept for the engine.
"""

from __future__ import annotations

import copy
from typing import Any

from longspan.errors import ModelError
from longspan.model.config import head_dim_of
from longspan.model.families import ALL, FULL, PARTIAL, SLIDING, TWO_ROPES
from longspan.rope import Geometry, Rope
from longspan.rope.declared import declared

_KEPT = ("rope_theta", "partial_rotary_factor")


def take(config: Any) -> dict[str, tuple[Rope, Geometry]]:
    """The method and geometry of each kind of layer; `config` is left with the default rope type.

    Raises ModelError for values that make no sense, UnsupportedModel for a rope type that is not known.
    """
    family, parameters = config.model_type, copy.deepcopy(config.rope_parameters)
    if not isinstance(parameters, dict) or not parameters:
        raise ModelError("config: rope_parameters are missing")
    if family in TWO_ROPES:
        stray = next((key for key in parameters if key not in (FULL, SLIDING)), None)
        if stray is not None:
            raise ModelError(f"config: {family} has a rope block per layer type; {str(stray)[:40]!r} stands outside")
        blocks = parameters
    else:
        blocks = {ALL: parameters}
    made, default = {}, {}
    for key, block in blocks.items():
        if not isinstance(block, dict) or any(isinstance(value, dict) for value in block.values()):
            raise ModelError(f"config: {family} has one flat rope block, not one per layer type")
        _check_partial(family, block)
        made[key] = declared(block, head_dim_of(config), config.max_position_embeddings)
        default[key] = {"rope_type": "default", **{name: block[name] for name in _KEPT if name in block}}
    config.rope_parameters = default if family in TWO_ROPES else default[ALL]
    return made


def _check_partial(family: str, block: dict[str, Any]) -> None:
    partial = block.get("partial_rotary_factor")
    if partial is not None and partial != 1 and family not in PARTIAL:
        raise ModelError(f"config: partial_rotary_factor {str(partial)[:40]}, but {family} rotates whole heads")
