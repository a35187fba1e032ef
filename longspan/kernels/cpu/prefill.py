"""Attention of many rows over pages in whatever format: they are opened and turned once for a tile of rows.

Where the processor multiplies bfloat16 numbers faster than float32 ones and the cache holds them, so do the products;
they sum in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.cpu.decode import address, described, feed
from longspan.kernels.cpu.native import NATIVE, PAIRS, level
from longspan.kernels.work import Work


def attend(work: Work, instructions: str | None = None) -> Tensor:
    """Attention of a work that these kernels serve (`why_not`).

    instructions: the instruction set to use; None: see `native.level`.
    """
    assert NATIVE is not None, "compiled kernels"
    rows, heads, dim = work.queries.shape
    tensors, numbers = described(work)
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
        *numbers[:-1],
        *(PAIRS, numbers[-1]),
        *(address(chosen), 1 if subset is None else subset.rows, work.pages, out.data_ptr()),
    )
    held = feed(prefill, work)
    prefill.finish()
    del tensors, held  # until here the kernels read them
    return out.to(work.queries.dtype)
