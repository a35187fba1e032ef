"""What a decoded token has to read, and what reading a text has to compute: counted, not measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from longspan.cache.summaries.selection import Selection
    from longspan.engine.llm import LLM
    from longspan.engine.schedule import Text


@dataclasses.dataclass(frozen=True)
class Reads:
    """Bytes of the cache that a token reads: keys and values as they are stored (pages), and, where it looks for pages,
    the summaries of all that it might choose (scanned). looks_every: tokens of which one looks; 0: none does."""

    pages: int
    scanned: int
    looks_every: int

    @property
    def usual(self) -> int:
        """What most tokens read."""
        return self.pages + (self.scanned if self.looks_every == 1 else 0)


def weights(llm: LLM) -> int:
    """Bytes of the model's weights that a step reads: all but an embedding that is not the output head too, of which a
    token needs one row. All experts of a mixture are counted."""
    model = llm.scheduler.forward.model  # type: ignore[attr-defined]
    held = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    apart = embedding.data_ptr() != head.data_ptr()
    return int(sum(held.values()) - (embedding.nbytes if apart else 0))


def reads(llm: LLM, text: Text) -> Reads:
    """What the text's next token reads."""
    layout, plan = llm.layout, llm.plan
    sealed_bytes = layout.page_bytes
    if plan.format is not None:
        sealed_bytes = plan.format.bytes(layout.page, layout.head_dim, llm.dtype)
    pages = scanned = 0
    for written, sealed, full in _lanes(text):
        some = plan.select if full and plan.select is not None and plan.select.pages is not None else None
        held = written + sealed
        taken, old = (held, held * 0) if some is None else _selected(held, some, layout.page)
        # the newest pages are not sealed yet, and are read in any case
        kept = np.where(sealed > 0, np.minimum(written, taken), taken)
        pages += int((kept * layout.page_bytes + (taken - kept) * sealed_bytes).sum())
        scanned += int(old.sum()) * layout.summary_bytes
    looks = 0 if plan.select is None or not scanned else plan.select.hold
    return Reads(pages, scanned, looks)


def _lanes(text: Text) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pages of lanes, written and sealed, and whether the layers have no window."""
    for group in text.cache.groups:
        lanes = np.ones(len(group.layers) * group.kv_heads, dtype=np.int64)
        yield lanes * (group.count - group.sealed), lanes * group.sealed, group.window is None
    held = text.cache.lanes
    if held is not None:
        yield held.columns(held.counts) - held.sealed, held.sealed, True


def _selected(held: np.ndarray, select: Selection, page: int) -> tuple[np.ndarray, np.ndarray]:
    """Of so many pages of each lane: those that a query reads, and those that it chooses among."""
    always = -(-select.near // page) + 1 + -(-select.sinks // page)
    return np.minimum(held, always + (select.pages or 0)), np.maximum(held - always, 0)


def flops(llm: LLM, tokens: int) -> int:
    """Floating-point operations of the matrix products that reading so many tokens asks for: linear layers, and
    attention over what each query sees under the plan. A reading that leaves out more is not known here."""
    shape, layout, select = llm.shape, llm.layout, llm.plan.select
    tied = llm.scheduler.forward.model.config.tie_word_embeddings  # type: ignore[attr-defined]
    linear = shape.parameters - shape.vocab * shape.hidden * (1 if tied else 2)
    seen = 0
    for number, layer in enumerate(shape.layers):
        most = layer.window or tokens
        if layer.window is None and layout.kept is not None and not layout.waits:
            most = (layout.kept[number] or 0) + (layout.interval or 0) // 2
        if layer.window is None and select is not None and select.pages is not None:
            chosen = select.pages * layout.page if select.reading == "token" else 0
            most = min(most, select.near + select.sinks + chosen)
        seen += triangle(tokens, most)
    return 2 * linear * tokens + 2 * shape.vocab * shape.hidden + 4 * shape.heads * shape.head_dim * seen


def triangle(tokens: int, most: int) -> int:
    """Keys that all queries of a text see together, where none sees more than the newest `most`."""
    inside = min(tokens, most)
    return inside * (inside + 1) // 2 + (tokens - inside) * most
