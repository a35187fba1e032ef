"""What an eviction policy sees, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class View:
    """One layer at an eviction. G KV heads (lanes) of n slots each, g = H/G query heads per KV head; D head dim.

    layer, layers: its index among the layers that evict, and how many there are. values [G, n, D] float32.
    positions [G, n] int64: text positions, ascending in each lane, −1 at the end where lanes differ in length.
    length: text position of the next token. weight [G, n]: tokens that a slot stands for. page: P.

    Only where the policy's `needs` name it: keys [G, n, D] float32, turned to their text positions ("keys", and where
    it merges); mass [G, n], the attention received, summed over all queries that could
    see the slot and over the g query heads, and seen [G, n], how many of these (query, head) pairs there were
    ("mass"); recent [G, g, n], the mean attention of the last `observe` queries ("recent"); used [G, n], the text
    position of the last query that gave the slot's page more than a share of its attention ("used"); query_mean
    [G, g, D] and query_cov [G, g, D, D] of the unrotated queries, times the softmax scale ("queries").
    turn: turn(x [..., D], positions [...]) is x as it would stand at these text positions.
    """

    layer: int
    layers: int
    values: Tensor
    positions: Tensor
    length: int
    weight: Tensor
    page: int
    turn: Callable[[Tensor, Tensor], Tensor]
    keys: Tensor | None = None
    mass: Tensor | None = None
    seen: Tensor | None = None
    recent: Tensor | None = None
    used: Tensor | None = None
    query_mean: Tensor | None = None
    query_cov: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Keep:
    """indices [G, k] int64: slots that stay, ascending, −1 at the end where lanes keep fewer. merge_into [G, n] int64:
    for a slot that goes, the kept slot that it joins, −1 where it is dropped; None: all are dropped. shares [G, n]: how
    much a token of each slot counts in the mean of those that join, kept ones included; None: 1."""

    indices: Tensor
    merge_into: Tensor | None = None
    shares: Tensor | None = None


class Policy(Protocol):
    """Which tokens stay. A value without state; what must be remembered belongs to the lanes."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What `decide` wants to know beyond values and positions: "keys", "mass", "recent", "used", "queries"."""

    @property
    def query_aware(self) -> bool:
        """Whether what stays depends on the newest queries, so that a question asked later finds less."""

    @property
    def observe(self) -> int:
        """How many of the newest queries `View.recent` averages over."""

    @property
    def merge(self) -> bool:
        """Whether tokens that go may join tokens that stay."""

    @property
    def shared(self) -> bool:
        """Whether the heads of a layer share its budget, so that one may keep more than its part."""

    @property
    def wait(self) -> bool:
        """Whether nothing goes before the first question about a text was read."""

    @property
    def once(self) -> bool:
        """Whether nothing goes while a text is read, and what is over the budget at its end."""

    @property
    def window(self) -> int | None:
        """Exactly how far back queries see, besides the first `sinks` tokens, between evictions too; None: all kept."""

    @property
    def sinks(self) -> int:
        """The text's first tokens that always stay."""

    def budgets(self, layers: int) -> tuple[int, ...]:
        """Tokens that a lane keeps, for each layer that evicts, the mean over its heads."""

    def decide(self, view: View) -> Keep:
        """What stays of one layer. All of it where that is within the budget."""
