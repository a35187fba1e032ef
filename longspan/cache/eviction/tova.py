"""What the last query attends to."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class Tova(Budgeted):
    """The tokens that the last query attends to most, averaged over all heads: one set for all heads of a layer
    (https://arxiv.org/abs/2401.06104). The last token itself stays."""

    needs: ClassVar[tuple[str, ...]] = ("recent",)
    query_aware: ClassVar[bool] = True
    observe: ClassVar[int] = 1

    def score(self, view: View) -> Tensor:
        assert view.recent is not None
        return forced(view.recent.mean((0, 1)).expand_as(view.positions), view, 0, 1)
