"""What the last queries attend to."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View

WINDOW = 64
KERNEL = 5


@dataclasses.dataclass(frozen=True)
class SnapKV(Budgeted):
    """The tokens that the last 64 queries attend to most, each together with its neighbours (average over 5 slots),
    the mean over the query heads of the lane; and the tokens of these queries (https://arxiv.org/abs/2404.14469)."""

    needs: ClassVar[tuple[str, ...]] = ("recent",)
    query_aware: ClassVar[bool] = True
    observe: ClassVar[int] = WINDOW

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget <= WINDOW:
            self.refuse(f"budget {self.budget} leaves no room beside the {WINDOW} newest tokens; raise it")

    def score(self, view: View) -> Tensor:
        return forced(pooled(view), view, 0, WINDOW)


def pooled(view: View) -> Tensor:
    """[G, n]: attention of the last queries, averaged over neighbouring tokens and over query heads."""
    assert view.recent is not None
    order = (view.positions < 0).int().argsort(dim=1, stable=True)[:, None].expand_as(view.recent)  # holes to the end
    held = (view.positions >= 0)[:, None].expand_as(view.recent).gather(2, order).to(view.recent.dtype)
    sums, counts = (
        torch.nn.functional.avg_pool1d(x, KERNEL, 1, KERNEL // 2) for x in (view.recent.gather(2, order) * held, held)
    )
    mean = sums / counts.clamp_min(1e-9)
    return torch.zeros_like(mean).scatter(2, order, mean).mean(1)
