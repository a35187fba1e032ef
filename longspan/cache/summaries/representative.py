"""A few of the page's keys."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.cache.summaries.scan import largest_dot
from longspan.cache.summaries.selection import Buffers, Few, Stored, fill, hide


@dataclasses.dataclass(frozen=True)
class Representative(Few):
    """A page is worth what the best of a few of its keys is worth (InfLLM, arXiv:2402.04617).

    With attention mass at hand, the keys that received most, as in the paper; else those farthest from the page's
    mean, since what stands out is what a query may look for. The paper adds up four keys; we take the best one, so
    that one match suffices. Of equal distances the earlier slot is kept.

    keys: vectors kept of each page. pages: read by a query of each lane. near: newest tokens always read. sinks:
    first tokens always read.
    """

    keys: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keys < 1:
            self._refuse(f"keys={self.keys} keeps nothing of a page; give 1 or more")

    def layout(self, page: int, head_dim: int) -> Buffers:
        if self.keys > page:
            self._refuse(f"keys={self.keys} of a page of {page} tokens; give {page} or fewer")
        return {"keys": ((self.keys, head_dim), torch.float16)}

    def summarise(self, keys: Tensor, valid: Tensor | None = None, mass: Tensor | None = None) -> Stored:
        filled = fill(keys, valid)
        if mass is not None:
            weight = mass.float()
        elif valid is None:
            weight = (filled - filled.mean(-1, keepdim=True)).square().sum(1)
        else:
            mean = torch.where(valid[:, None], filled, 0).sum(-1, keepdim=True) / valid.sum(-1)[:, None, None]
            weight = (filled - mean).square().sum(1)
        if valid is not None:  # a hole is taken last, and repeats a valid key
            weight = torch.where(valid, weight, -torch.inf)
        slots = weight.sort(stable=True, dim=-1, descending=True).indices[:, : self.keys]
        picked = filled.gather(2, slots[:, None].expand(-1, filled.shape[1], -1))
        return {"keys": picked.transpose(1, 2).half().contiguous()}

    def score(self, queries: Tensor, stored: Stored) -> Tensor:
        """The largest q · k over the keys that were kept."""
        return hide(largest_dot(queries, stored["keys"]))
