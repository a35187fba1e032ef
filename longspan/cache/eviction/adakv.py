"""SnapKV with budgets that move between the heads of a layer."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from longspan.cache.eviction.budgeted import best, forced
from longspan.cache.eviction.snapkv import WINDOW, SnapKV, pooled
from longspan.cache.eviction.view import Keep, View


@dataclasses.dataclass(frozen=True)
class AdaKV(SnapKV):
    """The heads of a layer compete for its tokens on SnapKV's scores (https://arxiv.org/abs/2407.11550). Each keeps
    its `safeguard` percent of the budget; pages of heads that keep less are free."""

    safeguard: int = 20
    shared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.safeguard <= 100:
            self.refuse(f"safeguard={self.safeguard}; it is a percentage, from 0 to 100")

    def decide(self, view: View) -> Keep:
        lanes, slots = view.positions.shape
        scores = forced(pooled(view), view, 0, WINDOW).masked_fill(view.positions < 0, -torch.inf)
        sure = best(scores, max(self.budget * self.safeguard // 100, min(WINDOW, self.budget)))
        certain = torch.zeros((lanes, slots + 1), dtype=torch.bool, device=scores.device)
        certain = certain.scatter(1, torch.where(sure < 0, slots, sure), True)[:, :slots]
        together = scores.masked_fill(certain, torch.inf).view(1, -1)
        chosen = best(together, min(self.budget * lanes, lanes * slots))
        stays = torch.zeros(lanes * slots + 1, dtype=torch.bool, device=scores.device)
        stays[torch.where(chosen < 0, lanes * slots, chosen)] = True
        stays = stays[:-1].view(lanes, slots)
        indices = best(torch.where(stays, 0.0, -torch.inf), int(stays.sum(1).max()))
        return self.joined(view, indices)
