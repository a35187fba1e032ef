"""A fixed number of pages, who owns them, and a hard limit."""

from __future__ import annotations

import numpy as np
import torch

from longspan.cache.bytes import Layout
from longspan.cache.eviction.view import Policy
from longspan.cache.formats.format import Buffers, Format
from longspan.cache.summaries.selection import Selection
from longspan.errors import DoesNotFit, UsageError

PAGE_SIZES = (16, 32, 64, 128)


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


class Slab:
    """Pages of one format, side by side in each of `buffers` ([N, …], one entry per page), under a budget.

    On a CPU a slab is only reserved address space: memory is used as pages are written.

    A page is free or owned; `free + owned == total` at any time where the budget is this slab's alone. Pages shared
    by several sequences are counted once and freed when the last owner lets go. A sequence may *reserve* a run of
    free pages, which keeps its pages consecutive: reserved pages stay free, and are given to others only when nothing
    else is left.
    """

    def __init__(self, layout: Buffers, budget: Budget, device: torch.device, size: int | None = None) -> None:
        """layout: shape and dtype of each buffer of one page. size: bytes of the slab; None: the whole budget.

        Raises DoesNotFit when memory is refused.
        """
        self.budget, self.device = budget, device
        self.page_bytes = sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in layout.values())
        self.total = (budget.limit if size is None else size) // self.page_bytes
        try:
            self.buffers = {
                name: torch.empty((self.total, *shape), dtype=dtype, device=device)
                for name, (shape, dtype) in layout.items()
            }
        except (RuntimeError, MemoryError) as error:
            raise DoesNotFit(
                f"memory: {self.total * self.page_bytes:,} bytes for the KV cache were refused by the system; "
                "give a smaller memory limit"
            ) from error
        self._owners = np.zeros(self.total, dtype=np.int32)
        self._reserved = np.zeros(self.total, dtype=bool)
        self._top = 0  # pages at and above were never touched, so searches end here
        self.owned = 0

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
        free = self._owners == 0
        open_ = np.flatnonzero(free & ~self._reserved)[:count]
        if open_.size == count:
            return open_
        return np.concatenate((open_, np.flatnonzero(free & self._reserved)[: count - open_.size]))


class Pool(Slab):
    """The slab of pages that text is written into, and beside it the one of pages that are full.

    keys [N, D, P] and values [N, P, D]: keys lie channel by channel, so that the scores of a page need no
    horizontal sums. format: how full pages are stored, in `sealed`, under the same limit; None: where they are.
    """

    def __init__(
        self,
        layout: Layout,
        limit: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        format: Format | None = None,
        written: int | None = None,
        policy: Policy | None = None,
        select: Selection | None = None,
    ) -> None:
        """limit: bytes, never exceeded. written: the most bytes of pages that are not sealed; None: all of the limit.
        policy: what evicts in layers without a window; None: nothing does.

        Raises DoesNotFit when not even one page fits or memory is refused.
        """
        page, dim = layout.page, layout.head_dim
        if page not in PAGE_SIZES:
            raise UsageError(f"page: {page} tokens; choose one of {', '.join(map(str, PAGE_SIZES))}")
        if limit < layout.page_bytes:
            raise DoesNotFit(f"memory: {limit:,} bytes for the KV cache hold no page ({layout.page_bytes:,} bytes)")
        self.layout, self.dtype, self.format, self.policy, self.select = layout, dtype, format, policy, select
        budget = Budget(
            limit if format is not None or select is not None else limit // layout.page_bytes * layout.page_bytes
        )
        buffers: Buffers = {"keys": ((dim, page), dtype), "values": ((page, dim), dtype)}
        super().__init__(buffers, budget, torch.device(device), written)
        self.keys, self.values = self.buffers["keys"], self.buffers["values"]
        self.sealed = Slab(format.layout(page, dim, dtype), budget, self.device) if format is not None else None
        self.summaries = Slab(select.layout(page, dim), budget, self.device) if select is not None else None

    def claim(self, wanted: np.ndarray) -> np.ndarray:
        """As `Slab.claim`. Values are zeroed: a slot that was never written must not put NaN into a sum it has
        weight 0 in."""
        ids = super().claim(wanted)
        self.values.index_fill_(0, torch.from_numpy(ids.reshape(-1)).to(self.device), 0)
        return ids

    @property
    def owned_bytes(self) -> int:
        return self.budget.owned

    @property
    def peak_bytes(self) -> int:
        """The most bytes owned at a time since the start, or since `reset_peak`."""
        return self.budget.peak

    def reset_peak(self) -> None:
        self.budget.peak = self.budget.owned
