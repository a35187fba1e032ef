"""Heavy hitters and the newest tokens."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class H2O(Budgeted):
    """The tokens that got most attention since they came, summed over all queries, and the newest `recent`
    (https://arxiv.org/abs/2306.14048). The score is summed over the query heads of the lane."""

    recent: int = 64
    needs: ClassVar[tuple[str, ...]] = ("mass",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(recent=self.recent)

    def score(self, view: View) -> Tensor:
        assert view.mass is not None
        return forced(view.mass, view, 0, self.recent)
