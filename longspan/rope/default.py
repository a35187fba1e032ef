"""Plain RoPE, as the model was trained."""

from __future__ import annotations

import dataclasses

from longspan.rope.angles import Angles, Geometry, frequencies


@dataclasses.dataclass(frozen=True)
class Default:
    """θ_i = b^(−2i/d), no scaling (RoFormer, arXiv:2104.09864). Breaks beyond the trained length."""

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        return Angles.of(self, frequencies(geometry.dim, geometry.theta), reach=geometry.positions)
