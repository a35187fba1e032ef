"""Pages in another format than that they were written in, opened as attention reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch

from longspan.cache.formats.format import Format

OPENED = 128
"""Sealed pages of a lane that are open at a time."""


@dataclasses.dataclass(frozen=True)
class SealedRun:
    """Pages in another format, opened block by block."""

    format: Format
    buffers: Mapping[str, torch.Tensor]
    ids: torch.Tensor  # [n, G]
    dtype: torch.dtype

    @property
    def pages(self) -> int:
        return self.ids.shape[0]

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        step = size or OPENED
        for a in range(0, self.pages, step):
            some = self.ids[a : a + step]
            stored = {name: buffer[some.reshape(-1)] for name, buffer in self.buffers.items()}
            keys, values = self.format.open(stored, self.dtype)
            yield keys.view(*some.shape, *keys.shape[1:]), values.view(*some.shape, *values.shape[1:])
