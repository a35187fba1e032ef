"""What every policy with a budget does alike: scores, the best of each lane, and who joins whom."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from longspan.cache.eviction.view import Keep, View
from longspan.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Budgeted(abc.ABC):
    """Keeps the `budget` tokens of each lane that score highest.

    merge: a token that goes joins the kept one whose key is most like its own, if their cosine is at least
    `similarity`; else it is dropped.
    wait: a text is kept whole until a question about it was read, so that what stays is chosen with the question in
    view. once: it is kept whole until it was read, then cut to the budget, and what comes afterwards, question and
    answer, stays on top until more is read. Neither: the budget holds from the beginning on, and no question is known.
    """

    budget: int = 4096
    merge: bool = False
    similarity: float = 0.8
    wait: bool = False
    once: bool = False
    needs: ClassVar[tuple[str, ...]] = ()
    query_aware: ClassVar[bool] = False
    observe: ClassVar[int] = 0
    shared: ClassVar[bool] = False
    window: ClassVar[int | None] = None
    sinks: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.budget < 1:
            self.refuse(f"budget={self.budget} keeps nothing; give the tokens that a lane keeps, at least 1")
        if self.wait and self.window is not None:
            self.refuse("wait=true: the newest tokens stay whatever is asked; leave it out")
        if self.once and (self.wait or self.window is not None):
            other = "wait=true cuts after a question" if self.wait else "the newest tokens stay at any time"
            self.refuse(f"once=true cuts after a text, {other}; leave one out")
        if not self.similarity >= -1:
            self.refuse(f"similarity={self.similarity:g}; it is a cosine, from -1 to 1; above 1 nothing merges")

    def refuse(self, problem: str) -> None:
        raise UsageError(f"evict: {type(self).__name__.lower()}: {problem}")

    def budgets(self, layers: int) -> tuple[int, ...]:
        """Tokens that a lane keeps, for each layer, the mean over its heads."""
        return (self.budget,) * layers

    def check_parts(self, **parts: int) -> None:
        """Raises UsageError unless these parts of the budget are ≥ 0 and leave room in it."""
        for name, size in parts.items():
            if size < 0:
                self.refuse(f"{name}={size}; give 0 or more")
        if sum(parts.values()) > self.budget:
            written = " + ".join(f"{name} {size}" for name, size in parts.items())
            self.refuse(f"budget {self.budget} < {written}; raise budget or lower {next(reversed(parts))}")

    @abc.abstractmethod
    def score(self, view: View) -> Tensor:
        """[G, n]: the higher, the sooner a slot stays; inf: always."""

    def decide(self, view: View) -> Keep:
        """See `Policy.decide`."""
        scores = self.score(view).masked_fill(view.positions < 0, -torch.inf)
        return self.joined(view, best(scores, self.budgets(view.layers)[view.layer]))

    def joined(self, view: View, indices: Tensor) -> Keep:
        return Keep(indices, nearest(view, indices, self.similarity) if self.merge else None)


def forced(scores: Tensor, view: View, sinks: int, recent: int) -> Tensor:
    """Scores with those of the text's first `sinks` tokens and of the newest `recent` at infinity."""
    first, last = view.positions < sinks, view.positions >= view.length - recent
    return scores.masked_fill(first | last, torch.inf)


def best(scores: Tensor, count: int) -> Tensor:
    """The `count` highest of each lane of scores [G, n], ascending, −1 at the end where fewer are above −inf. Of
    equal scores the newer slot stays."""
    slots = scores.shape[1]
    order = slots - 1 - scores.flip(1).argsort(dim=1, descending=True, stable=True)[:, :count]
    order = torch.where(scores.gather(1, order) > -torch.inf, order, slots).sort(1).values
    return order.masked_fill_(order == slots, -1)


def nearest(view: View, indices: Tensor, least: float) -> Tensor:
    """[G, n]: the kept slot with the most similar key (cosine) for each slot that goes; −1 below `least`."""
    assert view.keys is not None
    lanes, slots, dim = view.keys.shape
    stays = torch.zeros((lanes, slots + 1), dtype=torch.bool, device=view.keys.device)
    stays = stays.scatter(1, torch.where(indices < 0, slots, indices), True)[:, :slots]
    going = best(torch.where(stays | (view.positions < 0), -torch.inf, 0.0), slots)
    going = going[:, : int((going >= 0).sum(1).max())]  # few of many, so that the products stay small
    keys = torch.nn.functional.normalize(view.keys, dim=-1)
    kept, gone = (keys.gather(1, at.clamp_min(0)[..., None].expand(-1, -1, dim)) for at in (indices, going))
    likeness = torch.matmul(gone, kept.transpose(1, 2)).masked_fill((indices < 0)[:, None], -torch.inf)
    closest, which = likeness.max(-1)
    target = torch.where(closest >= least, indices.gather(1, which), -1)
    out = torch.full((lanes, slots + 1), -1, device=view.keys.device)
    return out.scatter(1, torch.where(going < 0, slots, going), target)[:, :slots]
