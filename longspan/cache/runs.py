"""Pages in another format than that they were written in, opened as attention reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch

from longspan.cache.formats.format import Format, Stored

OPENED = 128
"""Sealed pages of a lane that are open at a time."""


class Sealed(Protocol):
    """Where sealed pages are: in memory, or in a file."""

    def take(self, ids: torch.Tensor) -> Stored:
        """Buffers [n, …] of the pages ids [n]."""


@dataclasses.dataclass(frozen=True)
class SealedRun:
    """Pages in another format, opened block by block."""

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
