"""Sealed pages in a file, numbered and owned like those in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from longspan.cache.formats.format import Buffers, Stored
from longspan.cache.offload.file import PageFile
from longspan.cache.offload.resident import Resident
from longspan.cache.pages import Budget, Pages
from longspan.errors import LongspanError, StoreError

STEP = 64 << 20
"""Bytes of disk that are asked for at a time, so that a full disk is noticed before it is written to."""


@contextlib.contextmanager
def _under_way() -> Iterator[None]:
    """A refusal while the text is read is a failure of the run, not of a store that somebody gave."""
    try:
        yield
    except StoreError as error:
        raise LongspanError(f"offload: {error}") from error


class Offloaded(Pages):
    """Pages with `buffers`, as records of a file without a name in `folder`; the most recently used are in memory.

    The file is gone when the process is. Its size is no part of the memory budget: what is resident is.
    """

    def __init__(self, layout: Buffers, folder: str, resident: int, device: torch.device) -> None:
        """layout: shape and dtype of each buffer of one page. resident: bytes of the pages kept in memory.

        Raises StoreError when the folder cannot be used, UsageError when `resident` holds no page.
        """
        self.device = device
        self._sizes = [torch.Size(shape).numel() * dtype.itemsize for shape, dtype in layout.values()]
        record = sum(self._sizes)
        count = max(STEP // record, 1)
        super().__init__(layout, count, Budget(1 << 62))
        self.resident = Resident(PageFile.create(folder, record, count, b""), resident)

    @property
    def buffers(self) -> None:
        return None

    @property
    def disk_bytes(self) -> int:
        """The size of the file."""
        return self.total * self.page_bytes

    def put(self, ids: np.ndarray, stored: Stored) -> None:
        """Write owned pages: ids [n], buffers [n, …]. Raises LongspanError when the system refuses."""
        parts = [stored[name].contiguous().cpu().view(len(ids), -1).view(torch.uint8) for name in self.each]
        with _under_way():
            self.resident.put(ids, torch.cat(parts, 1))

    def take(self, ids: torch.Tensor) -> Stored:
        """Buffers [n, …] of owned pages ids [n]. Raises DamagedPage when one does not match its checksum."""
        records = self.resident.get(ids)
        stored = {}
        for (name, (shape, dtype)), part in zip(self.each.items(), torch.split(records, self._sizes, 1), strict=True):
            stored[name] = part.contiguous().view(dtype).view(len(records), *shape).to(self.device)
        return stored

    def _any(self, count: int) -> np.ndarray:
        missing = count - (self.total - self.owned)
        if missing > 0:
            more = max(missing, STEP // self.page_bytes, 1)
            with _under_way():
                self.resident.extend(more)
            self._owners = np.concatenate((self._owners, np.zeros(more, np.int32)))
            self._reserved = np.concatenate((self._reserved, np.zeros(more, bool)))
            self.total += more
        return super()._any(count)
