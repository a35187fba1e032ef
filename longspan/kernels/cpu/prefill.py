"""Attention of many rows over pages in whatever format: they are opened and turned once for a tile of rows.

Where the processor multiplies bfloat16 numbers and the cache holds them, so do the products; they sum in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels import paged
from longspan.kernels.cpu.decode import address, operands, why_not
from longspan.kernels.cpu.native import NATIVE, level
from longspan.kernels.work import Work


def attend(work: Work, instructions: str | None = None) -> Tensor:
    """Attention over pages; see `Work`. What these kernels do not do (`why_not`), the torch path does.

    instructions: the instruction set to use; None: see `native.level`.
    """
    if NATIVE is None or why_not(work) is not None:
        return paged.attend(work)
    rows, heads, dim = work.queries.shape
    queries = work.queries.float().contiguous()
    cos, sin, sinks = (None if x is None else x.float().contiguous() for x in (work.cos, work.sin, work.sinks))
    subset = work.subset
    chosen = None if subset is None else subset.pages.contiguous()
    if chosen is not None and subset is not None:
        blocks = -(-rows // subset.rows)
        assert chosen.dtype == torch.bool, "a subset of pages"
        assert chosen.shape == (work.kv_heads, blocks, work.pages), "a subset of pages"
    out = torch.empty((rows, heads, dim))
    prefill = NATIVE.Prefill(
        level(instructions),
        torch.get_num_threads(),
        queries.data_ptr(),
        *(rows, heads, work.kv_heads, dim, work.page),
        *(work.first, work.base, max(work.begin, work.base), work.window or 0),
        *(0 if cos is None else cos.shape[-1], address(cos), address(sin)),
        work.softcap or 0.0,
        work.dtype == torch.bfloat16,
        *(address(sinks), address(chosen), 1 if subset is None else subset.rows, work.pages),
        out.data_ptr(),
    )
    held, start = [], 0
    for run in work.runs:
        for raw in run.raw():
            if raw.pages:
                prefill.add(*operands(raw, start, dim))
            if raw.fleeting:
                prefill.read()
            else:
                held.append(raw)
            start += raw.pages
    prefill.finish()
    return out.to(work.queries.dtype)
