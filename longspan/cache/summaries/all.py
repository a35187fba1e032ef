"""Every page."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from longspan.cache.summaries.selection import Buffers, Stored


@dataclasses.dataclass(frozen=True)
class All:
    """Every query reads every page: exact attention. Pages have no summary, and nothing is scored."""

    @property
    def pages(self) -> None:
        return None

    @property
    def near(self) -> int:
        return 0

    @property
    def sinks(self) -> int:
        return 0

    @property
    def reading(self) -> str:
        return "token"

    def layout(self, page: int, head_dim: int) -> Buffers:
        return {}

    def bytes(self, page: int, head_dim: int) -> int:
        return 0

    def summarise(self, keys: Tensor, valid: Tensor | None = None, mass: Tensor | None = None) -> Stored:
        return {}

    def score(self, queries: Tensor, stored: Stored) -> Tensor:
        """[B, R, 0]: there are no summaries to score."""
        return queries.new_empty(*queries.shape[:2], 0)
