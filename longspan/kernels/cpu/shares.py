"""What some rows of a prompt give to each page, read by compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels import shares
from longspan.kernels.cpu.decode import address, operands, why_not
from longspan.kernels.cpu.native import NATIVE, PAIRS, level
from longspan.kernels.work import Work


def page_shares(work: Work, stride: int, block: int, instructions: str | None = None) -> Tensor:
    """See `kernels.shares`. What these kernels do not do (`why_not`), the torch path does.

    instructions: the instruction set to use; None: see `native.level`.
    """
    rows, heads, dim = work.queries.shape
    if NATIVE is None or why_not(work) is not None or rows < block:
        return shares.page_shares(work, stride, block)
    queries = work.queries.float().contiguous()
    cos, sin = (None if x is None else x.float().contiguous() for x in (work.cos, work.sin))
    # nothing here is work for torch's threads: they would spin beside those that read the pages next
    tops, sums = torch.empty((2, rows // block * (block // stride), heads, work.pages))
    out = torch.empty((work.kv_heads, rows // block, work.pages))
    where = level(instructions), torch.get_num_threads()
    probe = NATIVE.Probe(
        queries.data_ptr(),
        *(rows, heads, work.kv_heads, dim, work.page),
        *(work.first, work.base, max(work.begin, work.base)),
        *(0 if cos is None else cos.shape[-1], address(cos), address(sin)),
        work.softcap or 0.0,
        *(work.dtype == torch.bfloat16, PAIRS),
        *(work.pages, stride, block, tops.data_ptr(), sums.data_ptr()),
    )
    start = 0
    for run in work.runs:
        for raw in run.raw():
            if raw.pages:
                probe.read(*where, *operands(raw, start, dim))
            start += raw.pages
    probe.shares(*where, out.data_ptr())
    return out
