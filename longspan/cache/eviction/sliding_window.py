"""The newest tokens and nothing else."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class SlidingWindow(Budgeted):
    """A query at p sees the `budget` tokens k with p − budget < k ≤ p (Longformer, https://arxiv.org/abs/2004.05150).
    Exactly these between evictions too."""

    @property
    def window(self) -> int:  # type: ignore[override]
        return self.budget

    def score(self, view: View) -> Tensor:
        return view.positions.float()
