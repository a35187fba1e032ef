"""Rope: how distances become angles. One file per method; this table is all that lists them."""

from __future__ import annotations

from typing import Any

from longspan.rope.angles import FOREVER, Angles, Geometry, Rope
from longspan.rope.default import Default
from longspan.rope.dynamic import Dynamic
from longspan.rope.linear import Linear
from longspan.rope.llama3 import Llama3
from longspan.rope.longrope import LongRope
from longspan.rope.ntk import Ntk
from longspan.rope.ntk_by_parts import NtkByParts
from longspan.rope.yarn import Yarn

METHODS: dict[str, type[Any]] = {
    "default": Default,
    "linear": Linear,
    "ntk": Ntk,
    "ntk_by_parts": NtkByParts,
    "dynamic": Dynamic,
    "yarn": Yarn,
    "llama3": Llama3,
    "longrope": LongRope,
}

__all__ = ["FOREVER", "METHODS", "Angles", "Geometry", "Rope"]
