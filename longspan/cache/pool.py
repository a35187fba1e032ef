"""Pages of one format side by side in memory; and all the pages that the texts of an engine share."""

from __future__ import annotations

import numpy as np
import torch

from longspan.cache.bytes import Layout
from longspan.cache.eviction.view import Policy
from longspan.cache.formats.format import Buffers, Format, Stored
from longspan.cache.formats.format import total as bytes_of
from longspan.cache.offload.store import Offloaded
from longspan.cache.pages import Budget, Pages
from longspan.cache.summaries.selection import Selection
from longspan.errors import DoesNotFit, UsageError
from longspan.kernels.cpu import kept as cpu
from longspan.kernels.work import Raw

PAGE_SIZES = (16, 32, 64, 128)


class Slab(Pages):
    """Pages of one format, side by side in each of `buffers` ([N, …], one entry per page), under a budget.

    On a CPU a slab is only reserved address space: memory is used as pages are written.
    """

    def __init__(self, layout: Buffers, budget: Budget, device: torch.device, size: int | None = None) -> None:
        """layout: shape and dtype of each buffer of one page. size: bytes of the slab; None: the whole budget.

        Raises DoesNotFit when memory is refused.
        """
        super().__init__(layout, (budget.limit if size is None else size) // bytes_of(layout), budget)
        self.device = device
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

    def put(self, ids: np.ndarray, stored: Stored) -> None:
        at = torch.from_numpy(ids).to(self.device)
        for name, buffer in self.buffers.items():
            buffer[at] = stored[name]

    def take(self, ids: torch.Tensor) -> Stored:
        return {name: buffer[ids] for name, buffer in self.buffers.items()}


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
        offload: str | None = None,
        resident: int = 0,
    ) -> None:
        """limit: bytes, never exceeded. written: the most bytes of pages that are not sealed; None: all of the limit.
        policy: what evicts in layers without a window; None: nothing does. offload: folder of a file for the pages in
        `format`; None: they are in memory. resident: bytes of those of the file that memory holds besides.

        Raises DoesNotFit when not even one page fits or memory is refused.
        """
        page, dim = layout.page, layout.head_dim
        if page not in PAGE_SIZES:
            raise UsageError(f"page: {page} tokens; choose one of {', '.join(map(str, PAGE_SIZES))}")
        if limit < layout.page_bytes:
            raise DoesNotFit(f"memory: {limit:,} bytes for the KV cache hold no page ({layout.page_bytes:,} bytes)")
        self.layout, self.dtype, self.format, self.policy, self.select = layout, dtype, format, policy, select
        if offload is not None and resident >= limit:
            raise DoesNotFit(
                f"memory: {limit:,} bytes for the KV cache leave nothing beside {resident:,} for resident pages; raise "
                "memory or lower resident"
            )
        self.resident_bytes = resident if offload is not None else 0
        limit -= self.resident_bytes
        budget = Budget(
            limit if format is not None or select is not None else limit // layout.page_bytes * layout.page_bytes
        )
        buffers: Buffers = {"keys": ((dim, page), dtype), "values": ((page, dim), dtype)}
        super().__init__(buffers, budget, torch.device(device), written)
        self.keys, self.values = self.buffers["keys"], self.buffers["values"]
        self.sealed: Slab | Offloaded | None = None
        if format is not None and offload is not None:
            self.sealed = Offloaded(format.layout(page, dim, dtype), offload, resident, self.device)
        elif format is not None:
            self.sealed = Slab(format.layout(page, dim, dtype), budget, self.device)
        self.summaries = Slab(select.layout(page, dim), budget, self.device) if select is not None else None

    def claim(self, wanted: np.ndarray) -> np.ndarray:
        """As `Slab.claim`. Values are zeroed: a slot that was never written must not put NaN into a sum it has
        weight 0 in."""
        ids = super().claim(wanted)
        self.values.index_fill_(0, torch.from_numpy(ids.reshape(-1)).to(self.device), 0)
        return ids

    def read(self, ids: torch.Tensor, sealed: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [..., D, P] and values [..., P, D] of pages ids [...], as they were written. sealed [...], bool: which
        ids are of sealed pages; None: none of them."""
        if sealed is None or not bool(sealed.any()):
            return self.keys[ids], self.values[ids]
        assert self.sealed is not None
        assert self.format is not None
        keys = torch.empty((*ids.shape, *self.keys.shape[1:]), dtype=self.dtype, device=self.device)
        values = torch.empty((*ids.shape, *self.values.shape[1:]), dtype=self.dtype, device=self.device)
        keys[~sealed], values[~sealed] = self.keys[ids[~sealed]], self.values[ids[~sealed]]
        keys[sealed], values[sealed] = self.format.open(self.sealed.take(ids[sealed]), self.dtype)
        return keys, values

    def readable(self, rows: int, taken: bool = False) -> bool:
        """Whether compiled kernels read the pages of lanes where they lie (`kernels.cpu.kept`), for so many queries.
        taken: or where they were put that were taken out of a file."""
        form = None
        if self.sealed is not None:
            form = None if self.format is None else self.format.coded
            if form is None or not (taken or isinstance(self.sealed, Slab)):
                return False
        return self.keys.is_cpu and cpu.serves(self.dtype, self.layout.head_dim, self.layout.page, rows, form)

    def coded(self) -> Raw | None:
        """All sealed pages where they lie, those of formats that kernels read; None: there are none in memory."""
        if not isinstance(self.sealed, Slab) or self.format is None or self.format.coded is None:
            return None
        return Raw(self.format.coded, self.sealed.buffers, 0)

    def taken(self, ids: torch.Tensor) -> tuple[Raw, torch.Tensor]:
        """Of sealed pages ids [n] that are in a file, in such a format: each of them once, and which of these they
        are [n]."""
        assert self.sealed is not None
        assert self.format is not None
        assert self.format.coded is not None
        each, which = torch.unique(ids, return_inverse=True)
        return Raw(self.format.coded, self.sealed.take(each), len(each)), which

    @property
    def owned_bytes(self) -> int:
        return self.budget.owned

    @property
    def disk_bytes(self) -> int:
        """The size of the file of offloaded pages; 0 without one."""
        return self.sealed.disk_bytes if isinstance(self.sealed, Offloaded) else 0

    @property
    def peak_bytes(self) -> int:
        """The most bytes of memory owned at a time since the start, or since `reset_peak`, and what may be resident."""
        return self.budget.peak + self.resident_bytes

    def reset_peak(self) -> None:
        self.budget.peak = self.budget.owned
