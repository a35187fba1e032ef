"""The pages that attention has not used for longest."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class Lru(Budgeted):
    """Pages go whole, the least recently used first. A page is used by a query that gives it more than a hundredth of
    its attention. The newest `recent` tokens stay. As pages go whole, up to a page less than the budget may stay."""

    recent: int = 64
    needs: ClassVar[tuple[str, ...]] = ("used",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(recent=self.recent)

    def score(self, view: View) -> Tensor:
        assert view.used is not None
        lanes, slots = view.positions.shape
        used = torch.nn.functional.pad(view.used, (0, -slots % view.page), value=-1).view(lanes, -1, view.page)
        when = used.amax(-1, keepdim=True).expand_as(used).flatten(1)[:, :slots].double()
        kept = forced(when, view, 0, self.recent)
        # whole pages: a slot's rank is its page's, and what the budget would cut in two goes
        held = view.positions >= 0
        order = torch.where(held, kept, -torch.inf)
        place = order.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        inside = place < self.budget
        pages = torch.arange(slots, device=held.device) // view.page
        whole = torch.ones((lanes, int(pages[-1]) + 1), dtype=torch.bool, device=held.device)
        cut = held & ~inside
        whole = whole.scatter_reduce(1, pages.expand(lanes, -1), ~cut, "amin") if slots else whole
        return kept.masked_fill(~whole.gather(1, pages.expand(lanes, -1)) & (kept < torch.inf), -torch.inf)
