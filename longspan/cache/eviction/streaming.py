"""The first tokens and the newest (StreamingLLM)."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class Streaming(Budgeted):
    """`sinks` first tokens, where attention goes that has nowhere to go, and the newest ones, `budget` together
    (https://arxiv.org/abs/2309.17453). Exactly these between evictions too. The paper's distances are those of
    placement slot."""

    sinks: int = 4  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(sinks=self.sinks)
        if self.sinks == self.budget:
            self.refuse(f"budget {self.budget} leaves no room beside {self.sinks} sinks; raise it")

    @property
    def window(self) -> int:  # type: ignore[override]
        return self.budget - self.sinks

    def score(self, view: View) -> Tensor:
        return forced(view.positions.float(), view, self.sinks, 0)
