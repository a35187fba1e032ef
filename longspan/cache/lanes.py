"""The lanes of layers where eviction decides what stays: slots with positions of their own, packed in pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from longspan.cache.digest import summarise, view
from longspan.cache.eviction.view import Policy
from longspan.cache.notes import Notes
from longspan.cache.pages import Pages
from longspan.cache.pool import Pool
from longspan.cache.repack import pack, repack
from longspan.kernels.cpu import kept as cpu

Turn = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""turn(x [..., n, D], by [..., n]): x turned further by so many tokens."""

Align = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
"""align(positions [G, C·P], P): by how many tokens the keys of each page are turned to one reference, and these."""

QUERIES = ("query_sum", "query_square", "references")


def _stay(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    return x


def _alone(positions: torch.Tensor, page: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros_like(positions), torch.zeros_like(positions[:, ::page])


class Lanes:
    """L layers of G lanes each. Slot i of a lane lies in its page i // P, at i % P; the newest token is the last.

    table [L, G, columns]: page ids, −1 beyond a lane's pages; the first `sealed` [L, G] columns of a lane are pages in
    the pool's format. counts [L, G]: the slot after the last token; all before it hold tokens too, but for holes in
    sealed pages. notes: what is known of each slot.

    sums [L, G, C]: where the summaries lie by which queries choose among the first pages of a lane, −1 where it has
    fewer; references [L, G, C]: what `align` gave for these.

    turns: for each layer, turn(x [..., n, D], by [..., n]) as if x stood so many tokens further on; whoever attends
    sets it, and `align`. observed_from: text position of the first query that `recent` is to count. rewritten: slots
    that were sealed anew, in all.
    """

    def __init__(self, layers: tuple[int, ...], pool: Pool, policy: Policy) -> None:
        self.layers, self.pool, self.policy = layers, pool, policy
        layout = pool.layout
        self.groups = layout.heads // layout.kv_heads
        self.table = np.empty((len(layers), layout.kv_heads, 0), dtype=np.int64)
        self.counts = np.zeros((len(layers), layout.kv_heads), dtype=np.int64)
        self.sealed = np.zeros((len(layers), layout.kv_heads), dtype=np.int64)
        self.turns: list[Turn] = [_stay] * len(layers)
        self.align: Align = _alone
        self.sums = np.empty((*self.counts.shape, 0), dtype=np.int64)
        self.references = torch.empty((*self.counts.shape, 0), dtype=torch.int64, device=pool.device)
        self.observed_from = self.query_count = self.rewritten = 0
        self.notes = Notes(len(layers), pool, policy)
        self.query_sum = self.query_square = None
        if "queries" in policy.needs:
            size = (len(layers), layout.heads, layout.head_dim)
            self.query_sum = torch.zeros(size, device=pool.device)
            self.query_square = torch.zeros((*size, layout.head_dim), device=pool.device)

    def fork(self) -> Lanes:
        """A twin with pages of its own: slots move within a lane's pages, so these are not shared."""
        twin = Lanes(self.layers, self.pool, self.policy)
        twin.table, twin.sealed = np.full_like(self.table, -1), self.sealed.copy()
        twin.counts, twin.sums = self.counts.copy(), np.where(self.sums >= 0, -2, -1)
        twin.claim()
        for (store, source), (_, target) in zip(self.held(), twin.held(), strict=True):
            store.put(target, store.take(torch.from_numpy(source).to(self.pool.device)))
        twin.turns, twin.rewritten = list(self.turns), self.rewritten
        twin.observed_from, twin.query_count = self.observed_from, self.query_count
        twin.align = self.align
        twin.notes.copy(self.notes)
        for name in QUERIES:
            tensor = getattr(self, name)
            setattr(twin, name, None if tensor is None else tensor.clone())
        return twin

    def outline(self) -> list[Any]:
        """What `restore` needs to know before it is given the arrays."""
        numbers = self.counts.tolist(), self.sealed.tolist(), self.sums.shape[2], (self.sums >= 0).sum(2).tolist()
        return [self.table.shape[2], *numbers, self.observed_from, self.query_count, self.notes.far]

    def arrays(self) -> list[torch.Tensor]:
        """What is known of slots and queries, in a fixed order."""
        return self.notes.arrays() + [x for x in (getattr(self, name) for name in QUERIES) if x is not None]

    def held(self) -> list[tuple[Pages, np.ndarray]]:
        """Where the pages lie: ids [n] of each store, in the order of lanes and of slots."""
        old = self.old()
        written: list[tuple[Pages, np.ndarray]] = [(self.pool, self.table[(self.table >= 0) & ~old])]
        if self.pool.sealed is not None:
            written.append((self.pool.sealed, self.table[old]))
        if self.pool.summaries is not None:
            written.append((self.pool.summaries, self.sums[self.sums >= 0]))
        return written

    def restore(self, outline: list[Any], fill: Callable[[torch.Tensor], None]) -> None:
        """Own as many pages as lanes that were saved; whoever calls fills them. fill: reads an array in place."""
        columns, counts, sealed, width, summed, self.observed_from, self.query_count, self.notes.far = outline
        self.counts, self.sealed = np.asarray(counts, dtype=np.int64), np.asarray(sealed, dtype=np.int64)
        self.table = np.full((*self.counts.shape, columns), -1, dtype=np.int64)
        self.sums = np.where(np.arange(width) < np.asarray(summed, dtype=np.int64)[..., None], -2, -1)
        self.references = self.references.new_zeros(self.sums.shape)
        self.claim()
        self.notes.clear(columns * self.pool.layout.page)
        for array in self.arrays():
            fill(array)

    def claim(self) -> None:
        """Own the pages that `counts` and `sealed` ask for, into an empty table, and summaries where `sums` is −2."""
        old = self.old()
        wanted = (np.arange(self.table.shape[2]) < self.columns(self.counts)[..., None]) & ~old
        summed = self.sums == -2
        size = int(old.sum()) * (self.pool.layout.sealed_bytes or 0) + int(wanted.sum()) * self.pool.page_bytes
        self.pool.check(size + int(summed.sum()) * self.pool.layout.summary_bytes)
        self.table[wanted] = self.pool.claim(np.full(int(wanted.sum()), -1))
        if self.pool.sealed is not None:
            self.table[old] = self.pool.sealed.claim(np.full(int(old.sum()), -1))
        if self.pool.summaries is not None:
            self.sums[summed] = self.pool.summaries.claim(np.full(int(summed.sum()), -1))

    def old(self) -> np.ndarray:
        """[L, G, columns]: which pages are sealed."""
        return np.asarray(np.arange(self.table.shape[2]) < self.sealed[..., None])

    @property
    def bytes(self) -> int:
        """Of all pages, sealed ones as they are stored."""
        old = self.old()
        written = int(((self.table >= 0) & ~old).sum())
        return written * self.pool.page_bytes + int(old.sum()) * (self.pool.layout.sealed_bytes or 0)

    @property
    def owned(self) -> int:
        """Pages."""
        return int((self.table >= 0).sum())

    def missing(self, tokens: int) -> int:
        """Pages that have to be claimed for so many more tokens in every lane."""
        return int((self.columns(self.counts + tokens) - self.columns(self.counts)).sum())

    def append(self, first: int, tokens: int) -> None:
        """Make room for the tokens at text positions `first` and on; they are written by whoever attends."""
        page = self.pool.layout.page
        before, after = self.columns(self.counts), self.columns(self.counts + tokens)
        columns = int(after.max())
        if columns > self.table.shape[2]:
            room = self.table.shape[2] * 3 // 2
            if not self.pool.layout.waits:
                room = min(room, self.pool.layout.note_slots() // page)
            room = max(room, columns)
            wider = np.full((*self.table.shape[:2], room), -1, dtype=np.int64)
            wider[:, :, : self.table.shape[2]] = self.table
            self.table = wider
            self.notes.resize(room * page)
        fresh = (np.arange(columns) >= before[..., None]) & (np.arange(columns) < after[..., None])
        self.table[:, :, :columns][fresh] = self.pool.claim(np.full(int(fresh.sum()), -1))
        self.notes.append(first, self.targets(tokens, self.counts))
        self.counts = self.counts + tokens
        self.query_count += tokens

    def targets(self, tokens: int, counts: np.ndarray) -> np.ndarray:
        """Slots [L, G, T] of the tokens that come after the first `counts` of each lane."""
        return counts[..., None] + np.arange(tokens)

    def columns(self, counts: np.ndarray) -> np.ndarray:
        """Pages that so many slots take."""
        return -(-counts // self.pool.layout.page)

    def _narrow(self) -> None:
        """Leave no more room than the fullest lane takes."""
        columns = int(self.columns(self.counts).max())
        if columns < self.table.shape[2]:
            self.table = self.table[:, :, :columns].copy()
            self.notes.resize(columns * self.pool.layout.page)

    def stored(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values [G, S, D] of a layer as they were written, and positions [G, S]; S: of the fullest lane."""
        columns = int(self.columns(self.counts[index]).max())
        ids = torch.from_numpy(np.maximum(self.table[index, :, :columns], 0)).to(self.pool.device)
        old = torch.from_numpy(self.old()[index, :, :columns]).to(self.pool.device)
        keys, values = self.pool.read(ids, old)
        slots = int(self.counts[index].max())
        keys, values = keys.transpose(2, 3).flatten(1, 2), values.flatten(1, 2)
        return keys[:, :slots], values[:, :slots], self.notes.positions(index)[:, :slots]

    def readable(self, rows: int) -> bool:
        """Whether compiled kernels read the pages where they lie, for so many queries."""
        return self.pool.readable(rows)

    def pages(self, index: int) -> cpu.Kept:
        """The pages of a layer where they lie, for the kernels."""
        table, sealed, counts = (
            torch.from_numpy(np.ascontiguousarray(x[index])) for x in (self.table, self.sealed, self.counts)
        )
        weights = None if self.notes.weight is None else self.notes.weight[index]
        return self._kept(table, sealed, counts, self.notes.positions(index), weights)

    def everywhere(self) -> cpu.Kept:
        """The same of all layers, with a first dimension of layers."""
        table, sealed, counts = (torch.from_numpy(x) for x in (self.table, self.sealed, self.counts))
        return self._kept(table, sealed, counts, self.notes.position.long(), self.notes.weight)

    def _kept(
        self,
        table: torch.Tensor,
        sealed: torch.Tensor,
        counts: torch.Tensor,
        positions: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> cpu.Kept:
        pool = self.pool
        return cpu.Kept(table, sealed, counts, pool.keys, pool.values, pool.coded(), positions, weights, None)

    def ask(self, index: int, queries: torch.Tensor) -> None:
        """Add up the unrotated queries [T, H, D] of a layer, where the policy wants their mean and covariance."""
        if self.query_sum is not None and self.query_square is not None:
            self.query_sum[index] += queries.sum(0)
            self.query_square[index] += torch.einsum("thd,the->hde", queries, queries)

    def evict(self, following: int) -> None:
        """Let the policy decide for every layer what stays, move that together, and free the pages left over.

        following: text position of the next token.
        """
        for index in range(len(self.layers)):
            seen = view(self, index, following)
            keep = self.policy.decide(seen)
            if self.pool.sealed is None:
                pack(self, index, keep, seen)
            else:
                repack(self, index, keep)
        if self.pool.summaries is not None:
            summarise(self)
        if self.notes.recent is not None:
            self.notes.recent.zero_()
        if self.pool.layout.waits:  # there was room for the whole text
            self._narrow()

    def pick(self, index: int, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values [G, n·P, D] of pages [G, n] of a layer, and their slots [G, n·P]; those of page −1 and those
        beyond the lane's last are S, the slots that there is room for."""
        page, room = self.pool.layout.page, self.notes.slots
        rows = torch.arange(len(columns), device=self.pool.device)[:, None]
        at = columns.clamp_min(0)
        ids = torch.from_numpy(np.maximum(self.table[index], 0)).to(self.pool.device)[rows, at]
        keys, values = self.pool.read(ids, torch.from_numpy(self.old()[index]).to(self.pool.device)[rows, at])
        slots = (at[..., None] * page + torch.arange(page, device=self.pool.device)).flatten(1)
        none = (columns < 0).repeat_interleave(page, 1) | (slots >= room)
        return keys.transpose(2, 3).flatten(1, 2), values.flatten(1, 2), slots.masked_fill(none, room)

    def rearrange(self, index: int, sources: list[np.ndarray]) -> None:
        """Notes of a layer's slots follow these. sources: for each lane, the old slot of each new one, −1 for holes."""
        self.notes.rearrange(index, sources)
        self.counts[index] = [len(slots) for slots in sources]

    def close(self) -> None:
        """Free every page."""
        for store, ids in self.held():
            store.release(ids)
        self.sums, self.references = self.sums[:, :, :0], self.references[:, :, :0]
        self.table = self.table[:, :, :0]
        self.counts, self.sealed = np.zeros_like(self.counts), np.zeros_like(self.counts)
        self.notes.clear(0)
        self.query_count = 0
        for total in (self.query_sum, self.query_square):
            if total is not None:
                total.zero_()
