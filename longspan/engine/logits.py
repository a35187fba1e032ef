"""Next-token logits at every place of one text, outside of the schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from longspan.attention.step import Segment
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.engine.llm import LLM
    from longspan.engine.schedule import Text


def opened(llm: LLM, ids: list[int], chunk: int | None, start: int) -> tuple[Text, int]:
    """A text that is read by itself, and how many of its ids at a time. Raises UsageError, DoesNotFit."""
    policy = llm.plan.evict
    if policy is not None and (policy.wait or policy.once):
        raise UsageError(
            f"evict: {'wait' if policy.wait else 'once'}=true evicts nothing before a text ends, and logits are told "
            "while it is read; leave it out"
        )
    size = llm.scheduler.chunk if chunk is None else chunk
    if size < 1:
        raise UsageError(f"chunk: {size}; give the ids per step, ≥ 1")
    llm.plan.check_chunk(size)
    llm.scheduler.check(len(ids), start)
    text = llm.text(ids, start)
    text.settle(llm.ropes)
    return text, size


def rows(
    llm: LLM, text: Text, size: int, tell: Callable[[int, int], None] | None
) -> Iterator[tuple[int, torch.Tensor]]:
    """The place of each step's first id, and the step's logits [R, V]. tell: called with the ids read and in all."""
    try:
        while (a := text.cache.length) < len(text.ids):
            b = a + text.cache.room(min(size, text.pending), text.pending)
            llm.scheduler.grow(text, b - a)
            segment = Segment(text.cache, b - a, text.angles)
            yield a, llm.scheduler.forward([segment], text.ids[a:b], range(b - a))
            text.cache.tidy()
            if tell is not None:
                tell(b, len(text.ids))
    finally:
        text.cache.clear()
