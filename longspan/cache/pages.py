"""Numbered pages, who owns them, and a hard limit."""

from __future__ import annotations

import abc

import numpy as np
from torch import Tensor

from longspan.cache.formats.format import Buffers, Stored
from longspan.cache.formats.format import total as bytes_of
from longspan.errors import DoesNotFit


class Budget:
    """A hard limit in bytes for all slabs together."""

    def __init__(self, limit: int) -> None:
        self.limit, self.owned, self.peak = limit, 0, 0

    @property
    def free(self) -> int:
        return self.limit - self.owned

    def take(self, size: int) -> None:
        self.owned += size
        self.peak = max(self.peak, self.owned)

    def give(self, size: int) -> None:
        self.owned -= size


class Pages(abc.ABC):
    """Who owns which of `total` numbered pages, and what they cost under a budget.

    A page is free or owned; `free + owned == total` at any time where the budget is for these pages alone. Pages shared
    by several sequences are counted once and freed when the last owner lets go. A sequence may *reserve* a run of
    free pages, which keeps its pages consecutive: reserved pages stay free, and are given to others only when nothing
    else is left.
    """

    def __init__(self, layout: Buffers, total: int, budget: Budget) -> None:
        """layout: shape and dtype of each buffer of one page."""
        self.each, self.page_bytes, self.total, self.budget = layout, bytes_of(layout), total, budget
        self._owners = np.zeros(total, dtype=np.int32)
        self._reserved = np.zeros(total, dtype=bool)
        self._top = 0  # pages at and above were never touched, so searches end here
        self.owned = 0

    @abc.abstractmethod
    def put(self, ids: np.ndarray, stored: Stored) -> None:
        """Write owned pages: ids [n], buffers [n, …]."""

    @abc.abstractmethod
    def take(self, ids: Tensor) -> Stored:
        """Buffers [n, …] of owned pages ids [n], copied."""

    @property
    def free(self) -> int:
        """Pages that may still be claimed."""
        return min(self.total - self.owned, self.budget.free // self.page_bytes)

    def reserve(self, count: int) -> int | None:
        """The first of `count` consecutive free, unreserved pages, now reserved; None when there is no such run."""
        start = self._find(count)
        if start is None:
            return None
        self._reserved[start : start + count] = True
        self._top = max(self._top, start + count)
        return start

    def unreserve(self, start: int, count: int) -> None:
        """Give a reserved run back; pages in it that are owned stay owned."""
        self._reserved[start : start + count] = False

    def claim(self, wanted: np.ndarray) -> np.ndarray:
        """Own one page for each entry of `wanted` (page ids, any shape), and return the ids in that shape.

        A wanted page that is taken, or −1, is replaced by another free one. Raises DoesNotFit, with nothing
        claimed, when fewer pages are free.
        """
        self.check(wanted.size * self.page_bytes)
        ids = wanted.reshape(-1).astype(np.int64)
        ids[(ids >= 0) & (self._owners[ids] > 0)] = -1
        self._owners[ids[ids >= 0]] = 1
        self._top = max(self._top, int(ids.max(initial=-1)) + 1)
        missing = np.flatnonzero(ids < 0)
        if missing.size:
            ids[missing] = self._any(missing.size)
            self._owners[ids[missing]] = 1
        self.owned += ids.size
        self.budget.take(ids.size * self.page_bytes)
        self._top = max(self._top, int(ids.max(initial=-1)) + 1)
        return ids.reshape(wanted.shape)

    def check(self, size: int) -> None:
        """Raises DoesNotFit, with the numbers, when fewer than `size` bytes are free."""
        if size > self.budget.free:
            raise DoesNotFit(
                f"memory: {size:,} more bytes of KV cache are needed, {self.budget.free:,} of "
                f"{self.budget.limit:,} are free; raise memory or shorten the text"
            )

    def retain(self, ids: np.ndarray) -> None:
        """One more owner for each of these owned pages."""
        self._owners[ids.reshape(-1)] += 1

    def release(self, ids: np.ndarray) -> None:
        """One owner fewer; pages without owners are free again."""
        ids = ids.reshape(-1)
        assert (self._owners[ids] > 0).all(), "a page was released that nobody owns"
        self._owners[ids] -= 1
        gone = int((self._owners[ids] == 0).sum())
        self.owned -= gone
        self.budget.give(gone * self.page_bytes)

    def _find(self, count: int) -> int | None:
        busy = (self._owners[: self._top] > 0) | self._reserved[: self._top]
        edges = np.flatnonzero(np.diff(np.concatenate(([True], busy, [True]))))
        starts, stops = edges[::2], edges[1::2]
        fits = np.flatnonzero(stops - starts >= count)
        if fits.size:
            return int(starts[fits[0]])
        tail = int(starts[-1]) if starts.size and stops[-1] == self._top else self._top
        return tail if tail + count <= self.total else None

    def _any(self, count: int) -> np.ndarray:
        """`count` free pages: unreserved ones first."""
        fresh = slice(self._top, self._top + count)
        taken = self._reserved[fresh].any() or self._owners[fresh].any()
        if self.owned == self._top and fresh.stop <= self.total and not taken:
            return np.arange(fresh.start, fresh.stop)  # the common case: nothing was ever given back
        # a slab may have millions of pages that were never touched: they are not looked through
        free, reserved = self._owners[: self._top] == 0, self._reserved[: self._top]
        open_ = np.flatnonzero(free & ~reserved)[:count]
        untouched = np.arange(self._top, min(self._top + count - open_.size, self.total))
        open_ = np.concatenate((open_, untouched))
        if open_.size == count:
            return open_
        return np.concatenate((open_, np.flatnonzero(free & reserved)[: count - open_.size]))
