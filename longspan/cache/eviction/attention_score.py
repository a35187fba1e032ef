"""The tokens with the highest mean attention."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class AttentionScore(Budgeted):
    """The mean, over all queries that could see a token, of the attention it got; the newest `recent` stay. Unlike a
    sum (`h2o`), it does not favour what is old."""

    recent: int = 64
    needs: ClassVar[tuple[str, ...]] = ("mass",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(recent=self.recent)

    def score(self, view: View) -> Tensor:
        assert view.mass is not None
        assert view.seen is not None
        return forced(view.mass / view.seen, view, 0, self.recent)
