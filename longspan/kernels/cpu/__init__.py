"""Compiled kernels for CPUs: attention over pages where they lie, and scores for selection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from longspan.kernels import paged
from longspan.kernels.cpu import decode, prefill
from longspan.kernels.cpu.decode import why_not
from longspan.kernels.cpu.native import NATIVE, level, levels, why_none
from longspan.kernels.cpu.place import place
from longspan.kernels.cpu.seal import seal
from longspan.kernels.cpu.shares import page_shares
from longspan.kernels.cpu.sketch import score_sketch
from longspan.kernels.work import Work


def attend(work: Work, instructions: str | None = None) -> torch.Tensor:
    """Attention over pages; see `Work`. What these kernels do not do (`why_not`), the torch path does.

    instructions: the instruction set to use; None: see `native.level`.
    """
    return attend_all([work], instructions)


def attend_all(works: Sequence[Work], instructions: str | None = None) -> torch.Tensor:
    """Attention [ΣR, H, D] of works of the same shape but for their rows: those of few rows together."""
    first = works[0].queries
    if NATIVE is None or why_not(works[0]) is not None:
        outputs = [paged.attend(work) for work in works]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    if len(works) == 1 and not _few(works[0]):  # its result needs no copy
        return prefill.attend(works[0], instructions)
    out = torch.empty((sum([len(work.queries) for work in works]), *first.shape[1:]))
    start = 0
    for few, some in itertools.groupby(works, _few):
        group = list(some)
        rows = sum([len(work.queries) for work in group])
        if few:
            decode.attend(group, out[start : start + rows], instructions)
        else:
            torch.cat([prefill.attend(work, instructions) for work in group], out=out[start : start + rows])
        start += rows
    return out.to(first.dtype)


def _few(work: Work) -> bool:
    return len(work.queries) <= paged.FEW and work.subset is None


__all__ = ["NATIVE", "attend", "attend_all", "level", "levels", "page_shares", "place", "score_sketch"]
__all__ += ["seal", "why_none", "why_not"]
