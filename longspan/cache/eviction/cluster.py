"""Runs of tokens that are alike become one."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, best, forced
from longspan.cache.eviction.view import Keep, View


@dataclasses.dataclass(frozen=True)
class Cluster(Budgeted):
    """Neighbours whose keys are alike merge into the one of them that got most attention, those most alike first, until
    the budget is kept (KVMerger, https://arxiv.org/abs/2407.08454). A token counts in the mean of keys and of values by
    a Gaussian of its key's distance from that one's. The first `sinks` tokens and the newest `recent` stay as they are.

    Two neighbours are alike where the cosine of their keys is at least `similarity`; where too few are, the runs that
    got least attention, each in all, go. Unlike the paper: no more tokens merge than the budget asks for; neighbours
    are those in the cache, so runs merge with runs; the Gaussian's width is that of the run; and a run of n tokens
    weighs as n, with log n added to its score. merge=false drops tokens alone.
    """

    merge: bool = True
    recent: int = 64
    sinks: int = 4  # type: ignore[misc]
    needs: ClassVar[tuple[str, ...]] = ("keys", "mass")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(sinks=self.sinks, recent=self.recent)

    def score(self, view: View) -> Tensor:
        assert view.mass is not None
        return forced(view.mass, view, self.sinks, self.recent)

    def decide(self, view: View) -> Keep:
        scores = self.score(view).masked_fill(view.positions < 0, -torch.inf)
        if not self.merge:
            return Keep(best(scores, self.budget))
        pivots = self.pivots(view, scores)
        slots = torch.arange(scores.shape[1], device=scores.device).expand_as(pivots)
        sums = torch.zeros_like(scores).scatter_add(1, pivots, scores)
        indices = best(torch.where(pivots == slots, sums, -torch.inf), self.budget)
        stays = torch.zeros((len(pivots), slots.shape[1] + 1), dtype=torch.bool, device=scores.device)
        stays = stays.scatter(1, torch.where(indices < 0, slots.shape[1], indices), True)
        joins = (pivots != slots) & stays.gather(1, pivots)
        return Keep(indices, torch.where(joins, pivots, -1), near(view, pivots))

    def pivots(self, view: View, scores: Tensor) -> Tensor:
        """[G, n]: for each slot the one that its run merges into, which may be itself."""
        assert view.keys is not None
        slots = scores.shape[1]
        order = (view.positions < 0).int().argsort(dim=1, stable=True)  # holes to the end
        keys = torch.nn.functional.normalize(view.keys, dim=-1)
        keys = keys.gather(1, order[..., None].expand_as(keys))
        free = scores.isfinite().gather(1, order)
        alike = (keys[:, 1:] * keys[:, :-1]).sum(-1)
        linked = free[:, 1:] & free[:, :-1] & (alike >= self.similarity)
        rank = alike.masked_fill(~linked, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
        over = (view.positions >= 0).sum(1) - self.budget
        linked &= rank < over[:, None]
        runs = torch.nn.functional.pad((~linked).cumsum(1), (1, 0))
        # of a run, the slot with the highest score; of equal ones the newest
        first = torch.arange(slots, device=scores.device).expand_as(runs)
        ranked = scores.gather(1, order)
        most = torch.full_like(ranked, -torch.inf).scatter_reduce(1, runs, ranked, "amax")
        top = torch.where(ranked == most.gather(1, runs), first, -1)
        pivot = torch.full_like(runs, -1).scatter_reduce(1, runs, top, "amax").gather(1, runs)
        return torch.zeros_like(order).scatter(1, order, order.gather(1, pivot))


def near(view: View, pivots: Tensor) -> Tensor:
    """[G, n]: exp(−d²/2σ²) of the distance d from each slot's key to its pivot's; σ² is the mean d² of the run."""
    assert view.keys is not None
    square = (view.keys - view.keys.gather(1, pivots[..., None].expand_as(view.keys))).square().sum(-1)
    others = (torch.arange(pivots.shape[1], device=pivots.device) != pivots).to(square.dtype)
    total, count = (torch.zeros_like(square).scatter_add(1, pivots, x) for x in (square, others))
    width = (total / count.clamp_min(1)).gather(1, pivots)
    return torch.exp(-square / (2 * width).clamp_min(torch.finfo(square.dtype).tiny))
