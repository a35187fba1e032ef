"""The one place where KV bytes are counted: the cache obeys these formulas, and whoever plans uses them too."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from longspan.cache.eviction.view import Policy
    from longspan.cache.formats.format import Format
    from longspan.cache.summaries.selection import Selection

INTERVALS = 64, 128, 256
"""Tokens between the text positions where a cache is tidied, where it has anything to tidy: the last of them, or one
that is at most half of an eviction's budget. A longer one would keep more pages unsealed, a shorter one cut the prompt
into smaller steps, which take longer."""
INTERVAL = INTERVALS[-1]

SPARE = 3, 2
"""Slots of sealed pages, for so many tokens that eviction left in them. Where fewer are held, three neighbours always
fit in two pages. A tighter bound would seal tokens anew more often, and lose those that were sealed anew too often."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the cache must hold of a model.

    windows: one entry per layer, the sliding window W in tokens or None for full attention.
    kv_heads: G, the heads that are stored (never repeated to the query heads). head_dim: D. heads: H.
    element: bytes of one number as the model makes it. page: P, slots of a page.
    sealed_bytes: of one lane's page in the format that full pages are stored in; None where they stay as they are.
    interval: E, a multiple of P. What happens to the cache of a text happens at text positions that are multiples
        of it, so a step never goes beyond one; None where nothing happens.
    kept: where something is evicted, one entry per layer: tokens that a lane keeps, the mean over its heads; None for
        layers with a window. shared: whether the heads of such a layer share its tokens, so that one may hold most of
        them. waits: whether all are kept until a question, or a whole text, was read. note_bytes: what is known of each
        slot there besides its key and value.
    summary_bytes: of the summary of a lane's page by which queries choose, in layers without a window.
    block: rows of a text that choose pages together, so that a step ends between two blocks, or where a prompt does.
    """

    windows: tuple[int | None, ...]
    kv_heads: int
    head_dim: int
    element: int
    page: int
    sealed_bytes: int | None = None
    interval: int | None = None
    heads: int = 0
    kept: tuple[int | None, ...] | None = None
    note_bytes: int = 0
    shared: bool = False
    waits: bool = False
    summary_bytes: int = 0
    block: int = 1

    @property
    def page_bytes(self) -> int:
        """Keys and values of one lane's page: 2·P·D numbers."""
        return 2 * self.page * self.head_dim * self.element

    @property
    def token_bytes(self) -> int:
        """2·layers·G·D numbers: what one token costs while every layer holds it."""
        return 2 * len(self.windows) * self.kv_heads * self.head_dim * self.element

    @property
    def open_pages(self) -> int | None:
        """The most pages of a lane that are not sealed: the newest, and all since the last multiple of the interval."""
        return None if self.sealed_bytes is None or self.interval is None else self.interval // self.page + 1

    def layer_pages(self, window: int | None, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """The most pages that one lane owns at a time while `tokens` tokens are read from position `start` on.

        A window layer holds the pages that the next chunk's queries can see, and that chunk itself.
        """
        if tokens <= 0:
            return 0
        whole = (start + tokens - 1) // self.page - start // self.page + 1
        if window is None:
            return whole
        return min(whole, (window + chunk - 3) // self.page + 2)

    def lane_bytes(self, window: int | None, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """`layer_pages` in bytes: the oldest sealed, the newest as they are."""
        pages = self.layer_pages(window, tokens, start, chunk)
        sums = 0 if window is not None else pages * self.summary_bytes
        if self.sealed_bytes is None or self.open_pages is None:
            return pages * self.page_bytes + sums
        unsealed = min(pages, self.open_pages)
        return unsealed * self.page_bytes + (pages - unsealed) * self.sealed_bytes + sums

    def bytes(self, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """The most bytes that a text's cache takes, over all layers and KV heads."""
        if self.kept is None or self.interval is None:
            return self.kv_heads * sum(self.lane_bytes(w, tokens, start, chunk) for w in self.windows)
        size = 0
        for window, kept in zip(self.windows, self.kept, strict=True):
            if kept is None:
                size += self.kv_heads * self.lane_bytes(window, tokens, start, chunk)
            else:
                size += self.kv_heads * (self.kept_bytes(kept, tokens) + self.note_slots(tokens) * self.note_bytes)
        return size

    @property
    def exact(self) -> bool:
        """Whether `peak` is known to the byte: not for layers with a window, nor where pages that lose tokens are
        sealed or summarised, or where a policy waits for a question or shares its budget among heads."""
        return all(window is None for window in self.windows) and (self.kept is None or not self._unknown)

    @property
    def _unknown(self) -> bool:
        return self.sealed_bytes is not None or self.summary_bytes > 0 or self.waits or self.shared

    def peak(self, tokens: int, ends: Sequence[int], chunk: int) -> int:
        """Bytes that a text alone takes at most: it is read `chunk` tokens in a step, and the tokens from the last of
        `ends` on come one by one. ends: where a prompt ends, ascending. Where this is not `exact`, an upper bound."""
        if tokens <= 0:
            return 0
        size, rooms = 0, None
        for number, window in enumerate(self.windows):
            kept = None if self.kept is None else self.kept[number]
            if kept is not None and not self._unknown:
                rooms = rooms or self._rooms(tokens, ends, chunk)
                size += rooms[0][kept] * self.page_bytes + rooms[1] * self.page * self.note_bytes
            elif kept is not None:
                size += self.kept_bytes(kept, tokens) + self.note_slots(tokens) * self.note_bytes
            elif window is not None or self.interval is None:
                size += self.lane_bytes(window, tokens, 0, chunk)
            else:
                size += max(self._sealing(tokens), self._sealing(tokens // self.interval * self.interval))
        return self.kv_heads * size

    def _sealing(self, tokens: int) -> int:
        """Of a lane of a layer without a window, just before it is tidied where it is due."""
        assert self.interval is not None
        pages, tidied = -(-tokens // self.page), (tokens - 1) // self.interval * self.interval // self.page - 1
        done = max(tidied, 0)
        if self.sealed_bytes is None:
            return pages * self.page_bytes + self._summed(tokens) * self.summary_bytes
        return done * self.sealed_bytes + (pages - done) * self.page_bytes + self._summed(tokens) * self.summary_bytes

    def _summed(self, tokens: int) -> int:
        """Pages that have a summary while the next ones are sealed."""
        assert self.interval is not None
        return max(tokens // self.interval * self.interval // self.page - 1, 0)

    def _rooms(self, tokens: int, ends: Sequence[int], chunk: int) -> tuple[dict[int, int], int]:
        """The most pages of a lane, by what it keeps, and for how many pages something is known of slots. All lanes
        keep their tokens side by side, and have room for as many as the fullest."""
        assert self.interval is not None
        every = sorted({kept for kept in self.kept or () if kept is not None})
        held, most = dict.fromkeys(every, 0), dict.fromkeys(every, 0)
        cap, room, at = self.note_slots() // self.page, 0, 0
        while at < tokens:
            end = next((end for end in ends if end > at), None)
            due = (at // self.interval + 1) * self.interval
            if end is not None:
                due = min(due, end, at + chunk)
            else:  # one by one: to where a lane's next page begins
                due = min(due, tokens, at + min(self.page - held[kept] % self.page for kept in every))
            for kept in every:
                held[kept] += due - at
                most[kept] = max(most[kept], -(-held[kept] // self.page))
            columns = max(-(-held[kept] // self.page) for kept in every)
            if columns > room:
                room = max(min(room * 3 // 2, cap), columns)
            at = due
            if at % self.interval == 0 or at == end:
                held = {kept: min(held[kept], kept) for kept in every}
            left = (tokens if end is None else end) - at
            if at % self.interval == 0 and at > every[-1] + 3 * self.interval and left > 2 * self.interval:
                at += (left // self.interval - 1) * self.interval  # the same again and again
        return most, room

    def kept_bytes(self, kept: int, tokens: int) -> int:
        """Of a lane that keeps `kept` tokens: these and what comes until the next eviction, a last page in part. Sealed
        pages have holes where tokens went: `most_sealed`."""
        assert self.interval is not None
        most = tokens if self.waits else min(tokens, kept + self.interval)
        pages = -(-most // self.page) + (1 if tokens > most else 0)  # lanes that share a budget end apart
        if self.sealed_bytes is None or self.waits:
            return pages * (self.page_bytes + self.summary_bytes)
        every = -(-tokens // self.page)
        size = 0
        for sealed, written in self._settled(kept if self.shared else min(kept, tokens)):
            sealed, written = min(sealed, every), min(written, every)
            here = sealed * self.sealed_bytes + written * self.page_bytes
            size = max(size, here + (sealed + written) * self.summary_bytes)
        return size

    def _settled(self, kept: int) -> list[tuple[int, int]]:
        """Pages of a lane that keeps `kept` tokens, sealed and written, just before it is tidied: of what it kept, up
        to two pages less one token were not sealed, and an interval came after these."""
        assert self.interval is not None
        fresh = self.interval // self.page
        if self.shared:  # the mean over heads; each may have a page more
            return [(self.most_sealed(kept + self.interval), fresh + 2)]
        loose = (0, fresh), (1, fresh + 1), (self.page + 1, fresh + 2)
        return [(self.most_sealed(max(kept - few, 0)), written) for few, written in loose]

    def note_slots(self, tokens: int | None = None) -> int:
        """Slots of each lane that something is known of: as many as the fullest of all lanes may have. tokens: in all;
        None: without end."""
        assert self.kept is not None
        assert self.interval is not None
        most = self.fullest + self.interval
        pages = -(-most // self.page) + 1
        if self.sealed_bytes is not None:
            pages = max(sealed + written for sealed, written in self._settled(self.fullest))
        if tokens is None:
            return pages * self.page
        grown = (-(-tokens // self.page) + 1) * 3 // 2  # room grows ahead of a text
        return (grown if self.waits else min(grown, pages)) * self.page

    @property
    def fullest(self) -> int:
        """Tokens that the fullest lane keeps, at most."""
        return max((kept or 0 for kept in self.kept or ()), default=0) * (self.kv_heads if self.shared else 1)

    def most_sealed(self, held: int) -> int:
        """Sealed pages of a lane that hold `held` tokens between holes."""
        slots, tokens = SPARE
        return -(-held * slots // (tokens * self.page)) + 1


def evicting(layout: Layout, policy: Policy) -> Layout:
    """The layout of a cache where `policy` decides what stays of layers without a window."""
    full = sum(window is None for window in layout.windows)
    budgets = iter(policy.budgets(full))
    kept = tuple(next(budgets) if window is None else None for window in layout.windows)
    sealing = layout.sealed_bytes is not None  # how often each slot was
    least = min((size for size in kept if size is not None), default=INTERVAL)
    # position, and weight of what was merged; then attention in all, when last, and of the newest queries by query head
    sizes = {"mass": 4, "used": 8, "recent": 4 * (layout.heads // layout.kv_heads)}
    return dataclasses.replace(
        layout,
        interval=max(layout.page, *(size for size in INTERVALS if size <= least // 2), INTERVALS[0]),
        kept=kept,
        shared=policy.shared,
        waits=policy.wait or policy.once,
        note_bytes=4 + 4 * policy.merge + sealing + sum(size for name, size in sizes.items() if name in policy.needs),
    )


def storing(
    layout: Layout,
    dtype: torch.dtype,
    format: Format | None,
    policy: Policy | None,
    select: Selection | None,
    offloaded: bool = False,
) -> Layout:
    """The layout of a cache whose full pages are stored in `format` (None: as they are), where `policy` evicts and
    `select` summarises. offloaded: full pages are in a file, so they take no memory. dtype: of keys and values."""
    sealed = None if format is None else format.bytes(layout.page, layout.head_dim, dtype)
    if offloaded:
        sealed = 0
    sums = 0 if select is None else select.bytes(layout.page, layout.head_dim)
    if policy is not None:
        return evicting(dataclasses.replace(layout, sealed_bytes=sealed, summary_bytes=sums), policy)
    if sealed is None and select is None:
        return layout
    return dataclasses.replace(layout, sealed_bytes=sealed, interval=INTERVAL, summary_bytes=sums)
