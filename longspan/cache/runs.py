"""Pages in another format than that they were written in, opened as attention reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch

from longspan.cache.formats.format import Format, Stored
from longspan.kernels.work import Raw

OPENED = 128
"""Sealed pages of a lane that are open at a time."""


class Sealed(Protocol):
    """Where sealed pages are: in memory, or in a file. buffers: in memory, those that hold all of them."""

    @property
    def buffers(self) -> Stored | None: ...

    def take(self, ids: torch.Tensor) -> Stored:
        """Buffers [n, …] of the pages ids [n]."""


@dataclasses.dataclass(frozen=True)
class SealedRun:
    """Pages in another format, opened block by block, or by the kernels that read them."""

    format: Format
    store: Sealed
    ids: torch.Tensor  # [n, G]
    dtype: torch.dtype

    @property
    def pages(self) -> int:
        return self.ids.shape[0]

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        step = size or OPENED
        for a in range(0, self.pages, step):
            some = self.ids[a : a + step]
            keys, values = self.format.open(self.store.take(some.reshape(-1)), self.dtype)
            yield keys.view(*some.shape, *keys.shape[1:]), values.view(*some.shape, *values.shape[1:])

    def raw(self) -> Iterator[Raw]:
        if self.format.coded is None:
            yield from (Raw.dense(keys, values, fleeting=True) for keys, values in self.blocks())
            return
        for some in torch.split(self.ids, OPENED):  # cut alike in memory and from a file, so that sums are too
            if self.store.buffers is not None:
                yield Raw(self.format.coded, self.store.buffers, len(some), some)
            else:
                yield Raw(self.format.coded, self.store.take(some.reshape(-1)), len(some), fleeting=True)
