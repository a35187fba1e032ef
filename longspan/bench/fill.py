"""Random keys and values in place of a text that was read, to time decoding far into a text without reading it.

The engine goes through a text as ever: pages are claimed, sealed, summarised, evicted and offloaded by the same code at
the same text positions. Only the model's pass is left out; random numbers are written where its keys and values would
go. What then is in the cache has no meaning, but it lies in as many pages, of the same formats, as after reading.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from longspan.attention.step import Segment
from longspan.bench.clock import read
from longspan.kernels.slots import Seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from longspan.cache.lanes import Lanes
    from longspan.cache.pool import Pool
    from longspan.engine.llm import LLM
    from longspan.engine.plan import Plan
    from longspan.engine.schedule import Text

BANK = 256
"""Random pages that all pages are copies of."""


def refusal(plan: Plan) -> str | None:
    """Why a cache under this plan cannot be filled at random; None where it can.

    Where the number of pages depends on what the text says, only reading gives it.
    """
    if plan.evict is None:
        return None
    name = plan.texts["evict"].partition(":")[0]
    if plan.evict.shared:
        return f"{name}: how heads share a budget depends on the text"
    if "used" in plan.evict.needs:
        return f"{name}: which pages go whole depends on the text"
    if plan.evict.needs and plan.format is not None:
        return f"{name} with format {plan.texts['format']}: how many holes sealed pages have depends on the text"
    return None


def fill(llm: LLM, prompts: Seq[Seq[int]], ahead: int = 0) -> tuple[list[Text], float]:
    """As `read`, without the model."""
    with hollow(llm):
        return read(llm, prompts, ahead)


@contextmanager
def hollow(llm: LLM) -> Iterator[None]:
    """What the engine reads in here is filled at random."""
    whole = llm.scheduler.forward
    llm.scheduler.forward = Hollow(llm.pool, llm.shape.vocab)
    try:
        yield
    finally:
        llm.scheduler.forward = whole


class Hollow:
    """Stands where `Forward` does, and writes random keys and values for the segments' tokens; all logits are 0."""

    def __init__(self, pool: Pool, vocab: int) -> None:
        self.pool, self.vocab = pool, vocab
        self._random = torch.Generator(pool.device).manual_seed(0)
        self.keys = self._normal(BANK, *pool.keys.shape[1:]).to(pool.dtype)
        self.values = self._normal(BANK, *pool.values.shape[1:]).to(pool.dtype)

    def __call__(self, segments: Seq[Segment], ids: Seq[int], keep: Seq[int]) -> torch.Tensor:
        page = self.pool.layout.page
        for segment in segments:
            sequence, last = segment.sequence, segment.first + segment.rows - 1
            for group in sequence.groups:
                columns = slice(segment.first // page - group.first, last // page - group.first + 1)
                self._write(group.live[:, :, columns])
            if sequence.lanes is not None:
                self._lanes(sequence.lanes, segment.rows, last)
        return torch.zeros((len(keep), self.vocab), device=self.pool.device)

    def _write(self, ids: np.ndarray) -> None:
        """Whole pages: what is beyond the text's end is never seen, and written again when the text goes on."""
        at = torch.from_numpy(np.ascontiguousarray(ids).reshape(-1)).to(self.pool.device)
        which = torch.randint(BANK, at.shape, generator=self._random, device=self.pool.device)
        self.pool.keys[at], self.pool.values[at] = self.keys[which], self.values[which]

    def _lanes(self, lanes: Lanes, rows: int, last: int) -> None:
        """Pages of the newest tokens, and random notes on what attention gave to all slots."""
        columns = np.arange(lanes.table.shape[2])
        first, end = (lanes.counts - rows) // lanes.pool.layout.page, lanes.columns(lanes.counts)
        self._write(lanes.table[(columns >= first[..., None]) & (columns < end[..., None])])
        for index in range(len(lanes.layers)):
            slots = int(lanes.counts[index].max())
            size = (lanes.counts.shape[1], slots)
            seen = Seen()
            if lanes.notes.mass is not None:
                seen.mass = self._uniform(*size)
            if lanes.notes.recent is not None and last >= lanes.observed_from:
                seen.recent = self._uniform(size[0], lanes.groups, slots)
            lanes.notes.add(index, seen, slots)
            if lanes.query_sum is not None:
                lanes.ask(index, self._normal(rows, *lanes.query_sum.shape[1:]))

    def _uniform(self, *size: int) -> torch.Tensor:
        return torch.rand(size, generator=self._random, device=self.pool.device)

    def _normal(self, *size: int) -> torch.Tensor:
        return torch.randn(size, generator=self._random, device=self.pool.device)
