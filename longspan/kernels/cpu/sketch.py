"""Scores of 2-bit copies of keys, read once for all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.cpu.native import NATIVE, level

UNIT = 16
"""Slots and channels come in multiples of so many: what a vector holds."""


def score_sketch(
    queries: Tensor, codes: Tensor, low: Tensor, step: Tensor, instructions: str | None = None
) -> Tensor | None:
    """float32 [B, R, N]: q · low + the largest Σ_d q_d·step_d·code_d over a page's slots; NaN becomes −inf.

    queries [B, R, D] float32; codes [B, N, D/4, P] uint8, where byte g of a slot holds the codes of channels
    g, g + D/4, …, two bits each, the first lowest; low, step [B, N, D] float16. The leading dimensions may have any
    strides. None: these kernels do not serve, for want of compiled ones, or on such a device or shape.
    """
    lanes, rows, dim = queries.shape
    pages, _, slots = codes.shape[1:]
    if NATIVE is None or queries.device.type != "cpu" or dim % UNIT or slots % UNIT:
        return None
    codes, low, step = (_inner(x) for x in (codes, low, step))
    queries = queries.contiguous()
    assert queries.dtype == torch.float32
    assert low.dtype == step.dtype == torch.float16
    assert codes.dtype == torch.uint8
    out = torch.empty((lanes, rows, pages))
    if out.numel() == 0:
        return out
    strides = [x.element_size() * x.stride(i) for x in (codes, low, step) for i in (0, 1)]
    NATIVE.sketch(
        level(instructions),
        torch.get_num_threads(),
        queries.data_ptr(),
        *(lanes, rows, pages, dim, slots),
        *(codes.data_ptr(), low.data_ptr(), step.data_ptr()),
        *strides,
        out.data_ptr(),
    )
    return out


def _inner(x: Tensor) -> Tensor:
    """x, copied only where what belongs to one page is not contiguous."""
    return x if x.numel() == 0 or x[0, 0].is_contiguous() else x.contiguous()
