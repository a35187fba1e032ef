"""Channel bounds."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.cache.formats.packing import half_above, half_below
from longspan.cache.summaries.scan import largest_dot
from longspan.cache.summaries.selection import Buffers, Few, Stored, fill, hide


@dataclasses.dataclass(frozen=True)
class Quest(Few):
    """No key of a page can score above Σ_d max(q_d·min_d, q_d·max_d) (Quest, arXiv:2406.10774).

    Bounds are rounded outwards, so this holds for the keys as they were given (up to the rounding of float32). The
    bound is tight for a page of one key and loose for 64: it finds more than the mean does, and less than a sketch.

    pages: read by a query of each lane. near: newest tokens always read. sinks: first tokens always read.
    """

    def layout(self, page: int, head_dim: int) -> Buffers:
        return {"bounds": ((2, head_dim), torch.float16)}

    def summarise(self, keys: Tensor, valid: Tensor | None = None, mass: Tensor | None = None) -> Stored:
        keys = fill(keys, valid)
        return {"bounds": torch.stack((half_below(keys.amin(-1)), half_above(keys.amax(-1))), 1)}

    def score(self, queries: Tensor, stored: Stored) -> Tensor:
        """The bound: the query's negative part meets the minima, its positive part the maxima."""
        signed = torch.cat((queries.clamp(max=0), queries.clamp(min=0)), -1)
        return hide(largest_dot(signed, stored["bounds"].flatten(2).unsqueeze(2)))
