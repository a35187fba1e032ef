"""YaRN: NTK-by-parts with a temperature."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from longspan.errors import UsageError
from longspan.rope.angles import Angles, Geometry, check_factor, check_original, frequencies, scale


@dataclasses.dataclass(frozen=True)
class Yarn:
    """Slow channels interpolated, fast ones kept, a linear ramp over the channel index between, and logits
    multiplied by (0.1·ln s + 1)² (YaRN, arXiv:2309.00071, and its reference code).

    factor: s; None takes what the text needs. original: L. attention_factor: the final multiplier of cos and
    sin, used as it stands. mscale and mscale_all_dim: both together give m(mscale)/m(mscale_all_dim) with
    m(x) = 0.1·x·ln s + 1 (DeepSeek). beta_fast, beta_slow: turns within L at the ramp's two ends.
    truncate: round the ramp's ends outwards to whole channels.
    """

    factor: float | None = None
    original: int | None = None
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        check_factor("yarn", self.factor)
        check_original("yarn", self.original)
        if not 0 < self.beta_slow < self.beta_fast:
            raise UsageError(f"rope: yarn: beta_slow {self.beta_slow:g} must be below beta_fast {self.beta_fast:g}")
        given = self.attention_factor
        if given is not None and not (math.isfinite(given) and given > 0):
            raise UsageError(f"rope: yarn: attention_factor {self.attention_factor} should be a number > 0")

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        s, until = scale(self.factor, length, tokens)
        theta = frequencies(geometry.dim, geometry.theta)
        low, high = correction_range(
            self.beta_fast, self.beta_slow, geometry.dim, geometry.theta, length, self.truncate
        )
        ramp = np.clip((np.arange(geometry.dim // 2) - low) / (high - low), 0, 1)
        theta = theta / s + (1 - ramp) * (theta - theta / s)  # in this order, s = 1 changes nothing, not even a bit
        made = dataclasses.replace(self, factor=s)
        return Angles.of(made, theta, self.temperature(s), until, round(length * s))

    def temperature(self, s: float) -> float:
        """What multiplies cos and sin at scale s."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return _m(s, self.mscale) / _m(s, self.mscale_all_dim)
        return _m(s, 1.0)


def _m(s: float, weight: float) -> float:
    return 0.1 * weight * math.log(s) + 1.0 if s > 1 else 1.0


def correction_range(
    beta_fast: float, beta_slow: float, dim: int, theta: float, length: int, truncate: bool
) -> tuple[float, float]:
    """The channel indices at which a channel makes beta_fast and beta_slow turns within `length`."""

    def channel(turns: float) -> float:
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(beta_fast), channel(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    return low, high + 0.001 if low == high else high
