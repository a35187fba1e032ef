"""A step's keys and values to their pages, and its queries ready for attention, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.cpu.native import NATIVE

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
Turn = tuple[Tensor, Tensor]


def place(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    turn_keys: Turn | None,
    turn_queries: Turn | None,
    scale: float,
    pages: Tensor,
    places: Tensor,
    page_keys: Tensor,
    page_values: Tensor,
) -> Tensor | None:
    """Write turned keys and values [T, G, D] to pages; give the queries [T, H, D] turned and scaled, in float32.

    turn_keys, turn_queries: cos and sin, float32 [T, 1, d/2]; None: not turned. pages [G, T] and places [T] or [G, T],
    int64: where the keys go, column place of page_keys [N, D, P] and row place of page_values [N, P, D]. None: these
    kernels do not serve, for want of compiled ones, or on such a device or dtype.
    """
    if NATIVE is None or not page_keys.is_cpu or queries.dtype not in DTYPES or queries.dtype != page_keys.dtype:
        return None
    rows, heads, dim = queries.shape
    strides: list[int] = []
    if any(x.stride(2) != 1 for x in (queries, keys, values)):
        queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    for x in (queries, keys, values):
        strides += x.stride()[:2]
    key_half, key_cos, key_sin = _table(turn_keys)
    query_half, query_cos, query_sin = _table(turn_queries)
    assert pages.is_contiguous()
    assert places.is_contiguous()
    out = torch.empty((rows, heads, dim))
    NATIVE.place(
        torch.get_num_threads(),
        DTYPES[queries.dtype],
        *(rows, heads, keys.shape[1], dim, page_keys.shape[2], key_half, query_half),
        *(queries.data_ptr(), keys.data_ptr(), values.data_ptr(), *strides),
        *(key_cos, key_sin, query_cos, query_sin, scale),
        *(pages.data_ptr(), places.data_ptr(), 0 if places.dim() == 1 else rows),
        *(page_keys.data_ptr(), page_values.data_ptr(), out.data_ptr()),
    )
    return out


def _table(turn: Turn | None) -> tuple[int, int, int]:
    """Entries of a row, and where cos and sin lie."""
    if turn is None:
        return 0, 0, 0
    cos, sin = turn
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    assert cos.dtype == sin.dtype == torch.float32
    return cos.shape[-1], cos.data_ptr(), sin.data_ptr()
