"""Dynamic NTK: the base follows the length of the text."""

from __future__ import annotations

import dataclasses

from longspan.rope.angles import FOREVER, GROWTH, Angles, Geometry, check_factor, check_original, frequencies
from longspan.rope.ntk import ntk_base


@dataclasses.dataclass(frozen=True)
class Dynamic:
    """b' = b·(f·ℓ/L − (f−1))^(d/(d−2)) for ℓ > L tokens, else plain (emozilla 2023; transformers' "dynamic").

    factor: f; 1 is the paper's rule s = max(1, ℓ/L). The angles of ℓ tokens are exact for a text that
    arrives with ℓ tokens and hold until it has grown by an eighth; then the text is read anew with new ones.
    """

    factor: float = 1.0
    original: int | None = None

    def __post_init__(self) -> None:
        check_factor("dynamic", self.factor)
        check_original("dynamic", self.original)

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.positions
        if tokens <= length:
            return Angles.of(self, frequencies(geometry.dim, geometry.theta), until=length)
        s = self.factor * tokens / length - (self.factor - 1)
        until = min(int(tokens * GROWTH), FOREVER)
        return Angles.of(self, frequencies(geometry.dim, ntk_base(geometry.theta, s, geometry.dim)), until=until)
