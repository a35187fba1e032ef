"""NTK-aware scaling with a fixed factor."""

from __future__ import annotations

import dataclasses

from longspan.rope.angles import Angles, Geometry, check_factor, check_original, frequencies, scale


@dataclasses.dataclass(frozen=True)
class Ntk:
    """b' = b·s^(d/(d−2)): the slowest channel is interpolated by s, the fastest kept ("NTK-aware", bloc97 2023).

    factor: s; None takes what the text needs. original: L, when the config's is wrong.
    """

    factor: float | None = None
    original: int | None = None

    def __post_init__(self) -> None:
        check_factor("ntk", self.factor)
        check_original("ntk", self.original)

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        s, until = scale(self.factor, length, tokens)
        theta = frequencies(geometry.dim, ntk_base(geometry.theta, s, geometry.dim))
        return Angles.of(dataclasses.replace(self, factor=s), theta, until=until, reach=round(length * s))


def ntk_base(theta: float, s: float, dim: int) -> float:
    """The changed base; dim ≤ 2 has one frequency, 1, which no base changes."""
    return theta * s ** (dim / (dim - 2)) if dim > 2 else theta
