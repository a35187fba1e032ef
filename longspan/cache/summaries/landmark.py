"""The mean key."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.cache.summaries.scan import largest_dot
from longspan.cache.summaries.selection import LIMIT, Buffers, Few, Stored, hide


@dataclasses.dataclass(frozen=True)
class Landmark(Few):
    """One vector stands for a page, the mean of its keys (landmarks without training, arXiv:2305.16300).

    The cheapest summary. Not a bound: a single key that a query looks for drowns among 63 others, the more surely
    the longer the text.

    pages: read by a query of each lane. near: newest tokens always read. sinks: first tokens always read.
    """

    def layout(self, page: int, head_dim: int) -> Buffers:
        return {"mean": ((head_dim,), torch.float16)}

    def summarise(self, keys: Tensor, valid: Tensor | None = None, mass: Tensor | None = None) -> Stored:
        keys = keys.float().clamp(-LIMIT, LIMIT)
        if valid is None:
            return {"mean": keys.mean(-1).half()}
        total = torch.where(valid[:, None], keys, 0).sum(-1)
        return {"mean": (total / valid.sum(-1)[:, None]).half()}  # 0/0 is NaN, which `hide` knows

    def score(self, queries: Tensor, stored: Stored) -> Tensor:
        """q · mean."""
        return hide(largest_dot(queries, stored["mean"].unsqueeze(2)))
