"""What a way of reading is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from longspan.kernels.work import Subset, Work


class Prefill(Protocol):
    """block: rows that read the same pages. least: tokens of a text before the first row that leaves pages out."""

    @property
    def block(self) -> int: ...

    @property
    def least(self) -> int: ...

    def choose(self, work: Work, leaves: Tensor) -> Subset | None:
        """The pages that rows read; None: all. leaves [⌊R / block⌋] bool: whole blocks that may leave pages out."""
        ...
