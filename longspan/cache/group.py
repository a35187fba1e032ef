"""The pages of layers that share a window: tables with the grain (layer, KV head), in the order of the text."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from longspan.cache.found import Found
from longspan.cache.pool import Pool
from longspan.cache.runs import SealedRun
from longspan.kernels.work import Run, ScatteredRun, WrittenRun


class Group:
    """The layers of a sequence that share a window, and so hold the same text pages.

    table [L, G, columns]: page ids; column c holds text page `first + c`. Live columns: `count`, of which the first
    `sealed` are ids of the pool's sealed pages. summed: columns, from the first on, that have summaries.
    found: what the last query looked at that others go on from (`Sequence.looked`). memo: what a reader made of some
    pages, and which; None once they change.
    """

    def __init__(self, window: int | None, layers: tuple[int, ...], kv_heads: int) -> None:
        self.window, self.layers, self.kv_heads = window, layers, kv_heads
        self.table = np.empty((len(layers), kv_heads, 0), dtype=np.int64)
        self.first = 0
        self.count = 0
        self.sealed = 0
        self._sums = np.empty((len(layers), kv_heads, 0), dtype=np.int64)
        self.summed = 0
        self.found: Found | None = None
        self.regions: list[tuple[int, int]] = []  # reserved runs of the pool: (start, pages)
        self._origin = self._columns = 0  # the newest region: its first text page, its columns per layer
        self._runs: dict[int, list[Run]] = {}
        self.memo: tuple[object, object] | None = None

    @property
    def live(self) -> np.ndarray:
        """[L, G, count] page ids."""
        return self.table[:, :, : self.count]

    @property
    def sums(self) -> np.ndarray:
        """[L, G, summed] ids of summaries."""
        return self._sums[:, :, : self.summed]

    def adopt(self, other: Group) -> None:
        """Hold what another group of the same layers holds; who owns it is settled elsewhere (`share`)."""
        self.first, self.count, self.sealed, self.summed = other.first, other.count, other.sealed, other.summed
        self.table = other.live.copy()
        self._sums = other.sums  # no copy: what is there never changes, and there is no room to add to it in place
        self.found = None if other.found is None else other.found.copy()

    def append(self, pool: Pool, pages: int, expect: int) -> None:
        """Own `pages` more columns. expect: unsealed columns that this group will hold, for the reservation."""
        upto = self.first + self.count + pages
        written = self.count - self.sealed + pages
        if self.window is None and pool.sealed is None:
            if upto > self._origin + self._columns or not self.regions:
                self._reserve(pool, pages, max(pages, expect - self.count, self.count // 2))
        elif written > self._columns:  # the ring must hold all unsealed pages at once
            self._reserve(pool, written, max(written, expect))
        numbers = np.arange(upto - pages, upto)
        ids = pool.claim(self._wanted(numbers))
        if self.count + pages > self.table.shape[2]:
            grown = np.empty((*self.table.shape[:2], max(2 * self.table.shape[2], self.count + pages)), dtype=np.int64)
            grown[:, :, : self.count] = self.live
            self.table = grown
        self.table[:, :, self.count : self.count + pages] = ids
        self.count += pages
        self._changed()

    def restore(self, pool: Pool, first: int, count: int, sealed: int, summed: int, expect: int) -> None:
        """Own as many pages as a group that was saved; whoever calls fills them. expect: tokens in the end."""
        self.first = first
        if sealed:
            assert pool.sealed is not None
            self.table = pool.sealed.claim(np.full((len(self.layers), self.kv_heads, sealed), -1))
            self.count = self.sealed = sealed
        if count > sealed:
            total = pool.layout.layer_pages(self.window, expect)
            self.append(pool, count - sealed, min(total, pool.layout.open_pages or total))
        if summed:
            self._claim_sums(pool, summed)

    def _claim_sums(self, pool: Pool, new: int) -> np.ndarray:
        """Own summaries for `new` more columns: their ids [L, G, new]."""
        assert pool.summaries is not None
        done = self.summed
        # page by page, so that those of one lane lie at equal distances while nobody else's come between
        taken = pool.summaries.claim(np.full((new, len(self.layers), self.kv_heads), -1)).transpose(1, 2, 0)
        if done + new > self._sums.shape[2]:
            grown = np.empty((*self._sums.shape[:2], max(2 * done, done + new)), dtype=np.int64)
            grown[:, :, :done] = self.sums
            self._sums = grown
        self._sums[:, :, done : done + new] = taken
        self.summed += new
        return taken

    def seal(self, pool: Pool, upto: int, start: int) -> None:
        """Store the text pages before `upto` in the pool's format; the pages that they were written in are free.

        start: text position of the first token; slots before it hold nothing.
        """
        new = min(upto - self.first, self.count) - self.sealed
        if new <= 0:
            return
        assert pool.sealed is not None
        assert pool.format is not None
        span = slice(self.sealed, self.sealed + new)
        valid = self._valid(pool, self.sealed, new, start)
        released = 0
        try:
            for index in range(len(self.layers)):  # layer by layer, so that the copies stay small
                ids = self.table[index, :, span].copy()
                flat = torch.from_numpy(ids.reshape(-1)).to(pool.device)
                stored = pool.format.seal(pool.keys[flat], pool.values[flat], valid)
                pool.release(ids)
                self.table[index, :, span], released = -1, index + 1
                self.table[index, :, span] = pool.sealed.claim(np.full(ids.shape, -1))
                pool.sealed.put(self.table[index, :, span].reshape(-1), stored)
        except BaseException:  # the text is lost, its pages are not: those of all layers are of one kind again
            for index in range(released):
                taken = self.table[index, :, span]
                pool.sealed.release(taken[taken >= 0])
                self.table[index, :, span] = pool.claim(np.full(taken.shape, -1))
            raise
        self.sealed += new
        self._changed()

    def summarise(self, pool: Pool, upto: int, start: int) -> None:
        """Make the summaries by which queries choose pages, of text pages before `upto` that are not sealed yet."""
        done = self.summed
        new = min(upto - self.first, self.count) - done
        if new <= 0:
            return
        assert pool.select is not None
        assert pool.summaries is not None
        valid = self._valid(pool, done, new, start)
        taken = self._claim_sums(pool, new)
        for index in range(len(self.layers)):
            flat = torch.from_numpy(self.table[index, :, done : done + new].reshape(-1)).to(pool.device)
            pool.summaries.put(taken[index].reshape(-1), pool.select.summarise(pool.keys[flat], valid))

    def summaries(self, pool: Pool, index: int, columns: int) -> dict[str, torch.Tensor]:
        """Of the first columns of a layer: buffers [G, columns, …], views where they lie at equal distances."""
        assert pool.summaries is not None
        ids = self.sums[index, :, :columns]
        lanes = len(self.layers) * self.kv_heads
        even = np.arange(self.kv_heads)[:, None] + np.arange(columns) * lanes
        start = int(ids[0, 0]) if columns else 0
        if not np.array_equal(ids, start + even):
            return pool.summaries.take(torch.from_numpy(np.ascontiguousarray(ids)).to(pool.device))
        views = {}
        for name, buffer in pool.summaries.buffers.items():
            one, rest = buffer.stride(0), (buffer.shape[1:], buffer.stride()[1:])
            size, stride = (self.kv_heads, columns, *rest[0]), (one, lanes * one, *rest[1])
            views[name] = buffer.as_strided(size, stride, buffer.storage_offset() + start * one)
        return views

    def open(
        self, pool: Pool, index: int, columns: torch.Tensor, lanes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, n·P, D] of columns [B, n] of a layer, as they were written; −1 gives any page.

        lanes [B]: the KV head of each row; None: one row for each.
        """
        if lanes is None:
            lanes = torch.arange(self.kv_heads, device=pool.device)
        table = torch.from_numpy(np.ascontiguousarray(self.live[index])).to(pool.device)
        ids = table[lanes[:, None], columns.clamp_min(0)]
        keys, values = pool.read(ids, columns.clamp_min(0) < self.sealed)
        return keys.transpose(2, 3).flatten(1, 2), values.flatten(1, 2)

    def _valid(self, pool: Pool, column: int, columns: int, start: int) -> torch.Tensor | None:
        """[G·columns, P]: slots that hold a token; None: all. start: text position of the first token."""
        slots = torch.arange(columns * pool.layout.page, device=pool.device) + (self.first + column) * pool.layout.page
        valid = (slots >= start).view(1, columns, -1).expand(self.kv_heads, -1, -1).flatten(0, 1)
        return None if bool(valid.all()) else valid

    def drop(self, pool: Pool, columns: int) -> None:
        """Let the oldest `columns` go."""
        self._release(pool, columns)
        self.table = self.table[:, :, columns:].copy()
        self.first += columns
        self.count -= columns
        self.sealed = max(self.sealed - columns, 0)
        self._changed()

    def close(self, pool: Pool) -> None:
        self._release(pool, self.count)
        if pool.summaries is not None:
            pool.summaries.release(self.sums)
        for start, pages in self.regions:
            pool.unreserve(start, pages)
        self.regions.clear()
        self.found = None
        self.count = self.sealed = self.summed = self._columns = 0
        self._changed()

    def share(self, pool: Pool, columns: int) -> None:
        """One more owner for the oldest `columns`."""
        sealed = min(self.sealed, columns)
        if pool.sealed is not None:
            pool.sealed.retain(self.live[:, :, :sealed])
        if pool.summaries is not None:
            pool.summaries.retain(self.sums)
        pool.retain(self.live[:, :, sealed:columns])

    def _changed(self) -> None:
        self._runs.clear()
        self.memo = None

    def runs(self, pool: Pool, index: int) -> list[Run]:
        """The pages of the group's `index`-th layer, in text order.

        Views, but for sealed pages and scattered ones, which are opened or gathered by whoever reads them.
        """
        if index in self._runs:
            return self._runs[index]
        ids = self.live[index, :, self.sealed :]
        runs: list[Run] = []
        if self.sealed:
            assert pool.sealed is not None
            assert pool.format is not None
            old = torch.from_numpy(np.ascontiguousarray(self.live[index, :, : self.sealed].T)).to(pool.device)
            runs.append(SealedRun(pool.format, pool.sealed, old, pool.dtype))
        heads, columns = ids.shape
        affine = bool((ids == ids[:1] + np.arange(heads)[:, None]).all())
        cuts = np.flatnonzero(np.diff(ids[0]) != heads) + 1
        if not affine or cuts.size > 7:
            at = torch.from_numpy(np.ascontiguousarray(ids.T)).to(pool.device)
            runs.append(ScatteredRun(pool.keys, pool.values, at))
        else:
            bounds = [0, *cuts.tolist(), columns]
            runs += [
                self._run(
                    pool.keys[int(ids[0, a]) : int(ids[0, a]) + (b - a) * heads],
                    pool.values[int(ids[0, a]) : int(ids[0, a]) + (b - a) * heads],
                    b - a,
                )
                for a, b in itertools.pairwise(bounds)
                if a < b
            ]
        self._runs[index] = runs
        return runs

    def some(self, pool: Pool, index: int, columns: torch.Tensor) -> list[Run]:
        """Columns [n], ascending, of the group's `index`-th layer."""
        at = columns.cpu().numpy()
        ids = torch.from_numpy(np.ascontiguousarray(self.live[index][:, at].T)).to(pool.device)
        sealed = int((at < self.sealed).sum())
        runs: list[Run] = []
        if sealed:
            assert pool.sealed is not None
            assert pool.format is not None
            runs.append(SealedRun(pool.format, pool.sealed, ids[:sealed], pool.dtype))
        if sealed < len(at):
            runs.append(ScatteredRun(pool.keys, pool.values, ids[sealed:]))
        return runs

    def _release(self, pool: Pool, columns: int) -> None:
        sealed = min(self.sealed, columns)
        if pool.sealed is not None:
            pool.sealed.release(self.live[:, :, :sealed])
        pool.release(self.live[:, :, sealed:columns])

    def _run(self, keys: torch.Tensor, values: torch.Tensor, columns: int) -> Run:
        return WrittenRun(
            keys.view(columns, self.kv_heads, *keys.shape[1:]), values.view(columns, self.kv_heads, *values.shape[1:])
        )

    def _reserve(self, pool: Pool, least: int, columns: int) -> None:
        pages = columns * len(self.layers) * self.kv_heads
        start = pool.reserve(pages)
        if start is None and columns > least:
            columns, pages = least, least * len(self.layers) * self.kv_heads
            start = pool.reserve(pages)
        self._origin, self._columns = self.first + self.count, columns
        self.regions.append((start, pages) if start is not None else (0, 0))

    def _wanted(self, numbers: np.ndarray) -> np.ndarray:
        """Where the text pages `numbers` should lie, [L, G, n]: layer by layer, page by page, head by head.

        A window's region is a ring. −1 where nothing is reserved.
        """
        start, pages = self.regions[-1]
        offsets = (numbers - self._origin) % max(self._columns, 1)
        layer = np.arange(len(self.layers))[:, None, None] * self._columns * self.kv_heads
        head = np.arange(self.kv_heads)[None, :, None]
        wanted = start + layer + offsets[None, None, :] * self.kv_heads + head
        return wanted if pages else np.full_like(wanted, -1)
