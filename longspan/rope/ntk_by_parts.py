"""NTK-by-parts: interpolate only the channels that never completed a turn in training."""

from __future__ import annotations

import dataclasses

import numpy as np

from longspan.errors import UsageError
from longspan.rope.angles import Angles, Geometry, check_factor, check_original, frequencies, scale


@dataclasses.dataclass(frozen=True)
class NtkByParts:
    """θ' = (1−γ)·θ/s + γ·θ with γ = clamp((L/λ − α)/(β − α), 0, 1) (YaRN paper, arXiv:2309.00071, section 3.2).

    No temperature. factor: s; None takes what the text needs. alpha, beta: turns within L below which a
    channel is interpolated fully and above which it is kept.
    """

    factor: float | None = None
    original: int | None = None
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self) -> None:
        check_factor("ntk_by_parts", self.factor)
        check_original("ntk_by_parts", self.original)
        if not self.alpha < self.beta:
            raise UsageError(f"rope: ntk_by_parts: alpha {self.alpha:g} must be below beta {self.beta:g}")

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        s, until = scale(self.factor, length, tokens)
        theta = frequencies(geometry.dim, geometry.theta)
        turns = length * theta / (2 * np.pi)
        keep = np.clip((turns - self.alpha) / (self.beta - self.alpha), 0, 1)
        theta = theta / s + keep * (theta - theta / s)  # in this order, s = 1 changes nothing, not even a bit
        return Angles.of(dataclasses.replace(self, factor=s), theta, until=until, reach=round(length * s))
