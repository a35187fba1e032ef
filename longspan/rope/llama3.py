"""The scaling of Llama 3.1 and later."""

from __future__ import annotations

import dataclasses

import numpy as np

from longspan.errors import UsageError
from longspan.rope.angles import Angles, Geometry, check_factor, check_original, frequencies


@dataclasses.dataclass(frozen=True)
class Llama3:
    """Wavelengths above L/low are divided by the factor, below L/high kept, between them blended (Llama 3.1).

    No temperature. original: L, 8,192 for the published models.
    """

    factor: float = 8.0
    original: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        check_factor("llama3", self.factor)
        check_original("llama3", self.original)
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise UsageError(
                f"rope: llama3: low_freq_factor {self.low_freq_factor:g} must be above 0 and "
                f"below high_freq_factor {self.high_freq_factor:g}"
            )

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        theta = frequencies(geometry.dim, geometry.theta)
        turns = length * theta / (2 * np.pi)
        keep = np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        theta = theta / self.factor + keep * (theta - theta / self.factor)
        return Angles.of(self, theta, reach=max(int(length * self.factor), geometry.positions))
