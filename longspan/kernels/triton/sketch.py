"""Scores of 2-bit copies of keys, read once for up to 16 query rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from longspan.kernels.triton.product import product

TILE = tl.constexpr(16)
"""Query rows of a program."""
PAGES = 8
"""Pages of a program."""


@triton.jit(do_not_specialize=["rows", "pages", "span"])
def best(
    queries, codes, low, step, out, rows, pages, span,
    codes_lane, codes_page, low_lane, low_page, step_lane, step_page,
    D: tl.constexpr, SLOTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out [B, rows, pages]; grid (pages / span, B, rows / TILE). COLUMNS: D/4, rounded up to a power of 2."""
    lane = tl.program_id(1).to(tl.int64)
    m = tl.program_id(2) * TILE + tl.arange(0, TILE)
    slot = tl.arange(0, SLOTS)
    g = tl.arange(0, COLUMNS)
    QUARTER: tl.constexpr = D // 4
    held = g < QUARTER
    begun = tl.program_id(0).to(tl.int64) * span
    for page in range(begun, tl.minimum(begun + span, pages)):
        packed = tl.load(
            codes + lane * codes_lane + page * codes_page + g[:, None] * SLOTS + slot[None, :],
            mask=held[:, None],
            other=0,
        )
        scores = tl.zeros((TILE, SLOTS), tl.float32)
        least = tl.zeros((TILE,), tl.float32)
        for j in tl.static_range(4):
            d = j * QUARTER + g
            q = tl.load(
                queries + (lane * rows + m)[:, None] * D + d[None, :],
                mask=(m < rows)[:, None] & held[None, :],
                other=0.0,
            )
            bottom = tl.load(low + lane * low_lane + page * low_page + d, mask=held, other=0.0)
            unit = tl.load(step + lane * step_lane + page * step_page + d, mask=held, other=0.0)
            least += tl.sum(q * bottom.to(tl.float32)[None, :], 1)
            code = ((packed >> (2 * j)) & 3).to(tl.float32).to(tl.bfloat16)
            scores += product(q * unit.to(tl.float32)[None, :], code, 3)
        score = least + tl.max(scores, 1)
        score = tl.where(score == score, score, float("-inf"))
        tl.store(out + (lane * rows + m) * pages + page, score, mask=m < rows)


def score(queries: Tensor, codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
    """See `kernels.cpu.score_sketch`."""
    lanes, rows, dim = queries.shape
    pages, _, slots = codes.shape[1:]
    codes, low, step = (_inner(x) for x in (codes, low, step))
    queries = queries.contiguous()
    assert queries.dtype == torch.float32
    assert low.dtype == step.dtype == torch.float16
    assert codes.dtype == torch.uint8
    out = queries.new_empty((lanes, rows, pages))
    if out.numel() == 0:
        return out
    strides = [x.stride(i) for x in (codes, low, step) for i in (0, 1)]
    columns = max(triton.next_power_of_2(dim // 4), 16)
    best[(triton.cdiv(pages, PAGES), lanes, triton.cdiv(rows, TILE.value))](
        queries, codes, low, step, out, rows, pages, PAGES, *strides, D=dim, SLOTS=slots, COLUMNS=columns
    )
    return out


def _inner(x: Tensor) -> Tensor:
    """x, copied only where what belongs to one page is not contiguous."""
    return x if x.numel() == 0 or x[0, 0].is_contiguous() else x.contiguous()
