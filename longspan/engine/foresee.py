"""What the planner says of a model that is open: the memory of a text, before it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from longspan.engine.foretell import shape_of, work_of
from longspan.plan.memory import Memory, memory

if TYPE_CHECKING:
    from longspan.engine.llm import LLM


def foresee(llm: LLM, context: int, new: int) -> Memory:
    """The memory of such a text, part by part."""
    return memory(shape_of(llm), work_of(llm, context, new))


def kv_bytes(llm: LLM, common: int, rests: Sequence[int], new: int) -> tuple[int, bool]:
    """Bytes of the cache for a text of `common` tokens that is read once, with rests of so many tokens that are each
    followed by `new` generated ones; whether that is known to the byte, or an upper bound.

    Before the last rest, a twin goes on from the text: it shares whole pages, and has what eviction left of its own.
    """
    layout, chunk = llm.layout, llm.scheduler.chunk
    ends = [(common, common + rest) for rest in rests]
    peaks = [layout.peak(end[-1] + max(new - 1, 0), end, chunk) for end in ends]
    size = max(peaks)
    if len(rests) > 1:
        unsealed = layout.page_bytes * layout.kv_heads * len(layout.windows) * ((layout.open_pages or 1) + 1)
        size += size if layout.kept is not None else unsealed
    return size + llm.pool.resident_bytes, layout.exact and len(rests) == 1
