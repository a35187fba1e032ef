"""One text's pages: tables with the grain (layer, KV head), in the order of the text."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from longspan.cache.lanes import Lanes
from longspan.cache.pool import Pool
from longspan.cache.runs import SealedRun
from longspan.kernels.work import Run, WrittenRun


class Group:
    """The layers of a sequence that share a window, and so hold the same text pages.

    table [L, G, columns]: page ids; column c holds text page `first + c`. Live columns: `count`, of which the first
    `sealed` are ids of the pool's sealed pages.
    """

    def __init__(self, window: int | None, layers: tuple[int, ...], kv_heads: int) -> None:
        self.window, self.layers, self.kv_heads = window, layers, kv_heads
        self.table = np.empty((len(layers), kv_heads, 0), dtype=np.int64)
        self.first = 0
        self.count = 0
        self.sealed = 0
        self.regions: list[tuple[int, int]] = []  # reserved runs of the pool: (start, pages)
        self._origin = self._columns = 0  # the newest region: its first text page, its columns per layer
        self._runs: dict[int, list[Run]] = {}

    @property
    def live(self) -> np.ndarray:
        """[L, G, count] page ids."""
        return self.table[:, :, : self.count]

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
        self._runs.clear()

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
        slots = torch.arange(new * pool.layout.page, device=pool.device) + (self.first + self.sealed) * pool.layout.page
        valid = (slots >= start).view(1, new, -1).expand(self.kv_heads, -1, -1).flatten(0, 1)
        for index in range(len(self.layers)):  # layer by layer, so that the copies stay small
            ids = self.table[index, :, span]
            flat = torch.from_numpy(ids.reshape(-1)).to(pool.device)
            stored = pool.format.seal(pool.keys[flat], pool.values[flat], None if valid.all() else valid)
            pool.release(ids)
            taken = pool.sealed.claim(np.full(ids.shape, -1))
            target = torch.from_numpy(taken.reshape(-1)).to(pool.device)
            for name, buffer in pool.sealed.buffers.items():
                buffer[target] = stored[name]
            self.table[index, :, span] = taken
        self.sealed += new
        self._runs.clear()

    def drop(self, pool: Pool, columns: int) -> None:
        """Let the oldest `columns` go."""
        self._release(pool, columns)
        self.table = self.table[:, :, columns:].copy()
        self.first += columns
        self.count -= columns
        self.sealed = max(self.sealed - columns, 0)
        self._runs.clear()

    def close(self, pool: Pool) -> None:
        self._release(pool, self.count)
        for start, pages in self.regions:
            pool.unreserve(start, pages)
        self.regions.clear()
        self.count = self.sealed = self._columns = 0
        self._runs.clear()

    def share(self, pool: Pool, columns: int) -> None:
        """One more owner for the oldest `columns`."""
        sealed = min(self.sealed, columns)
        if pool.sealed is not None:
            pool.sealed.retain(self.live[:, :, :sealed])
        pool.retain(self.live[:, :, sealed:columns])

    def runs(self, pool: Pool, index: int) -> list[Run]:
        """The pages of the group's `index`-th layer, in text order.

        Views, but for sealed pages, which are opened as they are read, and scattered ones, which are gathered.
        """
        if index in self._runs:
            return self._runs[index]
        ids = self.live[index, :, self.sealed :]
        runs: list[Run] = []
        if self.sealed:
            assert pool.sealed is not None
            assert pool.format is not None
            old = torch.from_numpy(np.ascontiguousarray(self.live[index, :, : self.sealed].T)).to(pool.device)
            runs.append(SealedRun(pool.format, pool.sealed.buffers, old, pool.dtype))
        heads, columns = ids.shape
        affine = bool((ids == ids[:1] + np.arange(heads)[:, None]).all())
        cuts = np.flatnonzero(np.diff(ids[0]) != heads) + 1
        if not affine or cuts.size > 7:  # a copy, so it must not be kept: the pages may be written again
            flat = torch.from_numpy(np.ascontiguousarray(ids.T)).reshape(-1).to(pool.device)
            return [*runs, self._run(pool.keys[flat], pool.values[flat], columns)]
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


class Sequence:
    """The cached part of one text.

    length: tokens whose keys and values were stored; token i stands at text position `start + i`, in text
    page (start + i) // P at offset (start + i) % P. groups: the layers that hold pages of the text. lanes: those
    where eviction decides what stays. mark: a text position, beyond the length, where the cache is tidied as at
    multiples of `Layout.interval`: the end of a prompt.
    """

    def __init__(self, pool: Pool, start: int = 0) -> None:
        self.pool, self.start, self.length = pool, start, 0
        self.mark: int | None = None
        members: dict[int | None, list[int]] = {}
        for layer, window in enumerate(pool.layout.windows):
            members.setdefault(window, []).append(layer)
        self.lanes: Lanes | None = None
        if pool.policy is not None and None in members:
            self.lanes = Lanes(tuple(members.pop(None)), pool, pool.policy)
        kv_heads = pool.layout.kv_heads
        self.groups = [Group(window, tuple(layers), kv_heads) for window, layers in members.items()]
        for group in self.groups:
            group.first = start // pool.layout.page

    def grow(self, tokens: int, expect: int = 0) -> None:
        """Own the pages for `tokens` more tokens. expect: tokens in the end, as far as known.

        Raises DoesNotFit with nothing changed.
        """
        layout = self.pool.layout
        end = (self.start + self.length + tokens - 1) // layout.page + 1
        need = sum((end - g.first - g.count) * len(g.layers) * g.kv_heads for g in self.groups)
        need += 0 if self.lanes is None else self.lanes.missing(tokens)
        self.pool.check(need * layout.page_bytes)
        for group in self.groups:
            pages = end - group.first - group.count
            if pages > 0:
                total = layout.layer_pages(group.window, max(expect, self.length + tokens), self.start, tokens)
                group.append(self.pool, pages, min(total, layout.open_pages or total))
        if self.lanes is not None:
            self.lanes.observed_from = self._due() - self.lanes.policy.observe
            self.lanes.append(self.start + self.length, tokens)
        self.length += tokens

    def room(self, rows: int) -> int:
        """As many of `rows` more tokens as may come before the cache is next tidied."""
        return rows if self.pool.layout.interval is None else min(rows, self._due() - self.start - self.length)

    def _due(self) -> int:
        """The next text position where the cache is tidied."""
        following, interval = self.start + self.length, self.pool.layout.interval or 1
        due = following // interval * interval + interval
        return due if self.mark is None or self.mark <= following else min(due, self.mark)

    def tidy(self) -> None:
        """After a step: free the pages that no coming query of a window layer can see, and seal what is due."""
        following = self.start + self.length
        for group in self.groups:
            if group.window is not None:
                gone = min((following - group.window + 1) // self.pool.layout.page - group.first, group.count)
                if gone > 0:
                    group.drop(self.pool, gone)
            if self.pool.sealed is not None and following % (self.pool.layout.interval or 1) == 0:
                # the newest page stays as it is, so a page is sealed no sooner than one page late
                group.seal(self.pool, following // self.pool.layout.page - 1, self.start)
        if self.lanes is not None and (following % (self.pool.layout.interval or 1) == 0 or following == self.mark):
            self.lanes.evict(following)

    @property
    def bytes(self) -> int:
        """Of all pages owned, shared ones included."""
        sealed = sum(group.live[:, :, : group.sealed].size for group in self.groups)
        written = sum(group.live.size for group in self.groups) - sealed
        written += 0 if self.lanes is None else self.lanes.owned
        return written * self.pool.page_bytes + (sealed * self.pool.sealed.page_bytes if self.pool.sealed else 0)

    def fork(self) -> Sequence:
        """A second sequence with the same text: whole pages are shared, the last, unfinished one is copied."""
        twin = Sequence(self.pool, self.start)
        partial = (self.start + self.length) % self.pool.layout.page != 0
        tails = [group.live[:, :, -1] for group in self.groups if partial and group.count]
        fresh = self.pool.claim(np.full(sum(t.size for t in tails), -1)) if tails else np.empty(0, dtype=np.int64)
        for mine, theirs in zip(self.groups, twin.groups, strict=True):
            theirs.first, theirs.count, theirs.sealed = mine.first, mine.count, mine.sealed
            theirs.table = mine.live.copy()
            if partial and mine.count:
                size = mine.live[:, :, -1].size
                theirs.table[:, :, -1] = fresh[:size].reshape(mine.live.shape[:2])
                self._copy(mine.live[:, :, -1], theirs.table[:, :, -1])
                fresh = fresh[size:]
            mine.share(self.pool, mine.count - int(partial and mine.count > 0))
        if self.lanes is not None:
            twin.lanes = self.lanes.fork()
        twin.length = self.length
        return twin

    def _copy(self, source: np.ndarray, target: np.ndarray) -> None:
        old, new = (
            torch.from_numpy(np.ascontiguousarray(ids).reshape(-1)).to(self.pool.device) for ids in (source, target)
        )
        self.pool.keys[new] = self.pool.keys[old]
        self.pool.values[new] = self.pool.values[old]

    def clear(self) -> None:
        """Free every page; the text has to be read again."""
        for group in self.groups:
            group.close(self.pool)
            group.first = self.start // self.pool.layout.page
        if self.lanes is not None:
            self.lanes.close()
        self.length, self.mark = 0, None
