"""Position interpolation."""

from __future__ import annotations

import dataclasses

from longspan.rope.angles import Angles, Geometry, check_factor, check_original, frequencies, scale


@dataclasses.dataclass(frozen=True)
class Linear:
    """θ/s, the same as position/s: squeezes all positions into the trained range (PI, arXiv:2306.15595).

    factor: s; None takes what the text needs. original: L, when the config's is wrong.
    """

    factor: float | None = None
    original: int | None = None

    def __post_init__(self) -> None:
        check_factor("linear", self.factor)
        check_original("linear", self.original)

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        s, until = scale(self.factor, length, tokens)
        made = dataclasses.replace(self, factor=s)
        return Angles.of(made, frequencies(geometry.dim, geometry.theta) / s, until=until, reach=round(length * s))
