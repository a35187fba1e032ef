"""A fixed number of pages, who owns them, and a hard limit."""

from __future__ import annotations

import numpy as np
import torch

from longspan.cache.bytes import Layout
from longspan.errors import DoesNotFit, UsageError

PAGE_SIZES = (16, 32, 64, 128)


class Pool:
    """Pages of one format and head_dim, in one slab; each page holds P slots of one lane.

    keys [N, D, P] and values [N, P, D]: keys lie channel by channel, so that the scores of a page need no
    horizontal sums. On a CPU the slab is only reserved address space: memory is used as pages are written.

    A page is free or owned; `free + owned == total` at any time. Pages shared by several sequences are
    counted once and freed when the last owner lets go. A sequence may *reserve* a run of free pages, which
    keeps its pages consecutive: reserved pages stay free, and are given to others only when nothing else is
    left.
    """

    def __init__(self, layout: Layout, limit: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """limit: bytes, never exceeded. Raises DoesNotFit when not even one page fits or memory is refused."""
        if layout.page not in PAGE_SIZES:
            raise UsageError(f"page: {layout.page} tokens; choose one of {', '.join(map(str, PAGE_SIZES))}")
        self.layout, self.dtype, self.device = layout, dtype, torch.device(device)
        self.total = limit // layout.page_bytes
        if self.total < 1:
            raise DoesNotFit(f"memory: {limit:,} bytes for the KV cache hold no page ({layout.page_bytes:,} bytes)")
        size = (self.total, layout.head_dim, layout.page)
        try:
            self.keys = torch.empty(size, dtype=dtype, device=device)
            self.values = torch.empty((self.total, layout.page, layout.head_dim), dtype=dtype, device=device)
        except (RuntimeError, MemoryError) as error:
            raise DoesNotFit(
                f"memory: {self.total * layout.page_bytes:,} bytes for the KV cache were refused by the system; "
                "give a smaller memory limit"
            ) from error
        self._owners = np.zeros(self.total, dtype=np.int32)
        self._reserved = np.zeros(self.total, dtype=bool)
        self._top = 0  # pages at and above were never touched, so searches end here
        self.free = self.total
        self.peak = 0

    @property
    def owned(self) -> int:
        """Pages that some sequence owns."""
        return self.total - self.free

    @property
    def owned_bytes(self) -> int:
        return self.owned * self.layout.page_bytes

    @property
    def peak_bytes(self) -> int:
        """The most bytes owned at a time since the start, or since `reset_peak`."""
        return self.peak * self.layout.page_bytes

    def reset_peak(self) -> None:
        self.peak = self.owned

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

        A wanted page that is taken, or −1, is replaced by another free one. Values of claimed pages are
        zeroed: a slot that was never written must not put NaN into a sum it has weight 0 in. Raises
        DoesNotFit, with nothing claimed, when fewer pages are free.
        """
        if wanted.size > self.free:
            need = wanted.size * self.layout.page_bytes
            raise DoesNotFit(
                f"memory: {need:,} more bytes of KV cache are needed, {self.free * self.layout.page_bytes:,} of "
                f"{self.total * self.layout.page_bytes:,} are free; raise memory or shorten the text"
            )
        ids = wanted.reshape(-1).astype(np.int64)
        ids[(ids >= 0) & (self._owners[ids] > 0)] = -1
        self._owners[ids[ids >= 0]] = 1
        missing = np.flatnonzero(ids < 0)
        if missing.size:
            ids[missing] = self._any(missing.size)
            self._owners[ids[missing]] = 1
        self.free -= ids.size
        self.peak = max(self.peak, self.owned)
        self._top = max(self._top, int(ids.max(initial=-1)) + 1)
        self.values.index_fill_(0, torch.from_numpy(ids).to(self.device), 0)
        return ids.reshape(wanted.shape)

    def retain(self, ids: np.ndarray) -> None:
        """One more owner for each of these owned pages."""
        self._owners[ids.reshape(-1)] += 1

    def release(self, ids: np.ndarray) -> None:
        """One owner fewer; pages without owners are free again."""
        ids = ids.reshape(-1)
        assert (self._owners[ids] > 0).all(), "a page was released that nobody owns"
        self._owners[ids] -= 1
        self.free += int((self._owners[ids] == 0).sum())

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
        free = self._owners == 0
        open_ = np.flatnonzero(free & ~self._reserved)[:count]
        if open_.size == count:
            return open_
        return np.concatenate((open_, np.flatnonzero(free & self._reserved)[: count - open_.size]))
