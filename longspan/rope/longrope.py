"""LongRoPE: searched factors per channel, one list for short texts and one for long ones."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from longspan.errors import UsageError
from longspan.rope.angles import FOREVER, Angles, Geometry, check_factor, check_original, frequencies


@dataclasses.dataclass(frozen=True)
class LongRope:
    """θ_i/ext_i with the long list once more than L tokens are present, else the short one
    (LongRoPE, arXiv:2402.13753; Phi-3).

    short_factor, long_factor: dim/2 values each. factor: defaults to max_position_embeddings / L.
    attention_factor: the final multiplier of cos and sin, √(1 + ln s/ln L) unless given.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float | None = None
    original: int | None = None
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        check_factor("longrope", self.factor)
        check_original("longrope", self.original)
        for name, values in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
            if not values or not all(math.isfinite(v) and v > 0 for v in values):
                raise UsageError(f"rope: longrope: {name} should be a list of numbers > 0")

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        long = tokens > length
        ext = np.array(self.long_factor if long else self.short_factor, dtype=np.float64)
        if len(ext) != geometry.dim // 2:
            raise UsageError(
                f"rope: longrope: {'long' if long else 'short'}_factor has {len(ext)} values; "
                f"the head rotates {geometry.dim // 2} channel pairs"
            )
        theta = frequencies(geometry.dim, geometry.theta) / ext
        until = FOREVER if long else length
        return Angles.of(self, theta, self.temperature(geometry), until, geometry.positions)

    def temperature(self, geometry: Geometry) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        length = self.original or geometry.original
        s = self.factor if self.factor is not None else geometry.positions / length
        return math.sqrt(1 + math.log(s) / math.log(length)) if s > 1 else 1.0
