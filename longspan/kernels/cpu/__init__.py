"""Compiled kernels for CPUs: attention over pages where they lie, and scores for selection."""

from __future__ import annotations

import torch

from longspan.kernels import paged
from longspan.kernels.cpu import decode, prefill
from longspan.kernels.cpu.decode import why_not
from longspan.kernels.cpu.native import NATIVE, level, levels, why_none
from longspan.kernels.cpu.place import place
from longspan.kernels.cpu.shares import page_shares
from longspan.kernels.cpu.sketch import score_sketch
from longspan.kernels.work import Work


def attend(work: Work, instructions: str | None = None) -> torch.Tensor:
    """Attention over pages; see `Work`. What these kernels do not do (`why_not`), the torch path does.

    instructions: the instruction set to use; None: see `native.level`.
    """
    if work.queries.shape[0] <= paged.FEW and work.subset is None:
        return decode.attend(work, instructions)
    return prefill.attend(work, instructions)


__all__ = ["NATIVE", "attend", "level", "levels", "page_shares", "place", "score_sketch", "why_none", "why_not"]
