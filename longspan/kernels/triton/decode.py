"""Attention of few rows over pages where they lie, in whatever format.

A program reads a span of consecutive pages of one lane for up to 16 query rows (rows × heads of the group) and leaves
an unnormalised sum, its highest score and its sum of weights; a second kernel joins the spans.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from longspan.kernels.triton.product import product
from longspan.kernels.work import Raw, Work

TILE = tl.constexpr(16)
"""Query rows of a program; spans that are joined at a time."""
PROGRAMS = 1024
"""Into how many programs the pages are cut at least, where there are as many: several for each processor of a GPU. The
cut depends on the work alone, so that a result does not depend on the GPU."""
LONGEST = 32
"""Pages of the longest span."""
TILE_BYTES = 16384
"""Of the keys that a program holds at a time, and of the values; those read ahead come on top."""
WARPS, STAGES = 4, 3

BLIND = tl.constexpr(-1e30)
"""The highest of no scores at all; finite, so that differences are no NaN."""
KINDS = {"dense": 0, "int8": 1, "int4": 2}


@triton.jit(do_not_specialize=["rows", "skipped", "pages", "span", "start", "first", "base", "begin", "window"])
def read(
    queries, cos, sin, ids, keys, values, key_min, key_step, value_min, value_step, sums, tops, totals,
    rows, skipped, pages, span, start, first, base, begin, window, softcap,
    LANES: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr,
    SLOTS: tl.constexpr, KIND: tl.constexpr, PARTS: tl.constexpr, DTYPE: tl.constexpr,
    COLUMNS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr,
    GROUPS_UP: tl.constexpr, WIDTH_UP: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """sums [S, rows·H, D], tops and totals [S, rows·H] of pages `skipped`…`pages` of a `Raw` whose first page has the
    number `start`, `span` to a program; grid (S, lanes, tiles of query rows).

    queries [rows, H, D], cos and sin [N, HALF], all float32. COLUMNS: D, rounded up to a power of 2; GROUPS groups of
    WIDTH channels share a value's scale, and `_UP` of them are held. SLOTS: of a page, at a time. KIND: see KINDS.
    DTYPE: of values when they are open. PARTS: see `product`; of queries times codes.
    """
    lane = tl.program_id(1)
    m = tl.program_id(2) * TILE + tl.arange(0, TILE)
    live = m < rows * GROUP
    row = m // GROUP
    place = row * (LANES * GROUP) + lane * GROUP + m % GROUP
    at = first + row
    last = first + rows - 1
    low = begin
    if WINDOW:
        low = tl.maximum(begin, first - window + 1)

    d = tl.arange(0, COLUMNS)
    q = tl.load(queries + place[:, None] * D + d[None, :], mask=live[:, None] & (d < D)[None, :], other=0.0)
    if HALF > 0:
        other = tl.where(d < HALF, d + HALF, d - HALF)
        sign = tl.where(d < HALF, -1.0, 1.0)
        turns = live[:, None] & (d < 2 * HALF)[None, :]
        partner = tl.load(queries + place[:, None] * D + other[None, :], mask=turns, other=0.0) * sign[None, :]

    c = tl.arange(0, GROUPS_UP * WIDTH_UP)
    channel = c // WIDTH_UP * WIDTH + c % WIDTH_UP
    held = (c % WIDTH_UP < WIDTH) & (c // WIDTH_UP < GROUPS)
    g = tl.arange(0, GROUPS_UP)

    top = tl.full((TILE,), BLIND, tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    found = tl.zeros((TILE, GROUPS_UP * WIDTH_UP), tl.float32)
    PER: tl.constexpr = PAGE // SLOTS
    begun = skipped + tl.program_id(0) * span
    for i in range(begun * PER, tl.minimum(begun + span, pages) * PER):
        page = i // PER
        slot = i % PER * SLOTS + tl.arange(0, SLOTS)
        position = base + (start + page) * PAGE + slot
        entry = page.to(tl.int64) * LANES + lane
        if ids is not None:
            entry = tl.load(ids + entry)

        turned = q
        if HALF > 0:
            angle = (start + page) * HALF + d % HALF
            near = tl.load(cos + angle, mask=d < 2 * HALF, other=1.0)
            far = tl.load(sin + angle, mask=d < 2 * HALF, other=0.0)
            turned = q * near[None, :] + partner * far[None, :]
        inside = (d < D)[:, None]
        if KIND == 0:
            k = tl.load(keys + entry * (D * PAGE) + d[:, None] * PAGE + slot[None, :], mask=inside, other=0.0)
            scores = product(turned, k, 0 if k.dtype == tl.float32 else 2)
        else:
            if KIND == 1:
                k = tl.load(keys + entry * (D * PAGE) + d[:, None] * PAGE + slot[None, :], mask=inside, other=0)
            else:
                pair: tl.constexpr = PAGE // 2
                k = tl.load(
                    keys + entry * (D * pair) + d[:, None] * pair + (slot % pair)[None, :], mask=inside, other=0
                )
                k = (k >> (slot // pair * 4).to(tl.uint8)[None, :]) & 15
            least = tl.load(key_min + entry * D + d, mask=d < D, other=0.0).to(tl.float32)
            unit = tl.load(key_step + entry * D + d, mask=d < D, other=0.0).to(tl.float32)
            scores = product(turned * unit[None, :], k.to(tl.float32).to(tl.bfloat16), PARTS)
            scores += tl.sum(turned * least[None, :], 1)[:, None]
        if SOFTCAP:
            x = tl.exp(-2.0 * tl.abs(scores / softcap))
            scores = tl.where(scores < 0, -softcap, softcap) * ((1.0 - x) / (1.0 + x))
        visible = (position[None, :] <= at[:, None]) & (position >= low)[None, :]
        if WINDOW:
            visible = visible & (position[None, :] > at[:, None] - window)
        scores = tl.where(visible, scores, float("-inf"))

        highest = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - highest[:, None])
        past = tl.exp(top - highest)
        total = total * past + tl.sum(weights, 1)
        # weight 0 does not silence NaN, so what nobody sees is not read
        seen = (position >= low) & (position <= last)
        if KIND == 0:
            v = tl.load(
                values + entry * (PAGE * D) + slot[:, None] * D + channel[None, :],
                mask=seen[:, None] & held[None, :],
                other=0.0,
            )
        else:
            if KIND == 1:
                codes = tl.load(
                    values + entry * (PAGE * D) + slot[:, None] * D + channel[None, :],
                    mask=seen[:, None] & held[None, :],
                    other=0,
                )
            else:
                nibbles: tl.constexpr = (D + 1) // 2
                codes = tl.load(
                    values + entry * (PAGE * nibbles) + slot[:, None] * nibbles + (channel % nibbles)[None, :],
                    mask=seen[:, None] & held[None, :],
                    other=0,
                )
                codes = (codes >> (channel // nibbles * 4).to(tl.uint8)[None, :]) & 15
            scale = entry * (PAGE * GROUPS) + slot[:, None] * GROUPS + g[None, :]
            known = seen[:, None] & (g < GROUPS)[None, :]
            least = tl.load(value_min + scale, mask=known, other=0.0).to(tl.float32)
            unit = tl.load(value_step + scale, mask=known, other=0.0).to(tl.float32)
            grouped = tl.reshape(codes.to(tl.float32), (SLOTS, GROUPS_UP, WIDTH_UP))
            v = tl.reshape(least[:, :, None] + unit[:, :, None] * grouped, (SLOTS, GROUPS_UP * WIDTH_UP))
            if tl.float16 == DTYPE:  # a bound that was rounded outwards may lie above the range
                v = tl.minimum(tl.maximum(v, -65504.0), 65504.0)
            v = v.to(DTYPE)
        found = found * past[:, None] + product(weights, v, 0 if v.dtype == tl.float32 else 2)
        top = highest

    place += tl.program_id(0) * rows * (LANES * GROUP)
    tl.store(tops + place, top, mask=live)
    tl.store(totals + place, total, mask=live)
    tl.store(sums + place.to(tl.int64)[:, None] * D + channel[None, :], found, mask=live[:, None] & held[None, :])


@triton.jit(do_not_specialize=["spans", "heads"])
def join(sums, tops, totals, sinks, out, spans, heads, D: tl.constexpr, COLUMNS: tl.constexpr):
    """out [rows·H, D] from sums [S, rows·H, D], tops and totals [S, rows·H]; sinks [H] or None; grid (rows·H)."""
    row, count = tl.program_id(0), tl.num_programs(0)
    d = tl.arange(0, COLUMNS)
    top = BLIND
    total = 0.0
    if sinks is not None:  # a start with weight 1 and no value
        top = tl.load(sinks + row % heads)
        total = 1.0
    found = tl.zeros((COLUMNS,), tl.float32)
    for i in range(0, spans, TILE):
        s = i + tl.arange(0, TILE)
        tile_tops = tl.load(tops + s * count + row, mask=s < spans, other=BLIND)
        tile_totals = tl.load(totals + s * count + row, mask=s < spans, other=0.0)
        tile = tl.load(
            sums + (s * count + row).to(tl.int64)[:, None] * D + d[None, :],
            mask=(s < spans)[:, None] & (d < D)[None, :],
            other=0.0,
        )
        highest = tl.maximum(top, tl.max(tile_tops, 0))
        share = tl.exp(tile_tops - highest)
        past = tl.exp(top - highest)
        total = total * past + tl.sum(share * tile_totals, 0)
        found = found * past + tl.sum(share[:, None] * tile, 0)
        top = highest
    tl.store(out + row * D + d, (found / total).to(out.dtype.element_ty), mask=d < D)


def attend(work: Work) -> Tensor:
    """Attention over pages, of work that `why_not` has nothing against."""
    rows, heads, dim = work.queries.shape
    queries = work.queries.float().contiguous()
    cos, sin, sinks = (None if x is None else x.float().contiguous() for x in (work.cos, work.sin, work.sinks))
    parts, start = [], 0
    for run in work.runs:
        for raw in run.raw():
            part = _read(work, queries, cos, sin, raw, start)
            if part is not None:
                parts.append(part)
            start += raw.pages
    sums, tops, totals = parts[0] if len(parts) == 1 else (torch.cat(x) for x in zip(*parts, strict=True))
    out = torch.empty_like(work.queries, memory_format=torch.contiguous_format)
    columns = triton.next_power_of_2(dim)
    join[(rows * heads,)](sums, tops, totals, sinks, out, len(sums), heads, D=dim, COLUMNS=columns)
    return out


def _read(
    work: Work, queries: Tensor, cos: Tensor | None, sin: Tensor | None, raw: Raw, start: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """What `read` leaves of these pages, the first of which has the number `start`; None: no row sees any of them."""
    rows, heads, dim = queries.shape
    low = max(work.begin, work.base)
    if work.window is not None:
        low = max(low, work.first - work.window + 1)
    skipped = max((low - work.base) // work.page - start, 0)
    pages = min((work.first + rows - 1 - work.base) // work.page + 1 - start, raw.pages)
    if skipped >= pages:
        return None
    for name, buffer in raw.buffers.items():
        assert buffer.is_contiguous(), f"{name} of {raw.format} pages"
    assert raw.ids is None or (raw.ids.is_contiguous() and raw.ids.dtype == torch.int64), "ids of pages"
    tiles = triton.cdiv(rows * work.groups, TILE.value)
    span = min(max((pages - skipped) * work.kv_heads * tiles // PROGRAMS, 1), LONGEST)
    spans = triton.cdiv(pages - skipped, span)
    sums = queries.new_empty((spans, rows * heads, dim))
    tops, totals = queries.new_empty((2, spans, rows * heads))
    named = raw.buffers.get
    read[(spans, work.kv_heads, tiles)](
        queries, cos, sin, raw.ids, named("keys"), named("values"),
        named("key_min"), named("key_step"), named("value_min"), named("value_step"), sums, tops, totals,
        rows, skipped, pages, span, start, work.first, work.base, max(work.begin, work.base), work.window or 0,
        work.softcap or 0.0, **constants(work, raw), num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return sums, tops, totals


def constants(work: Work, raw: Raw) -> dict[str, object]:
    """What `read` is compiled for."""
    dim = work.queries.shape[-1]
    coded = raw.format != "dense"
    groups = raw.buffers["value_min"].shape[-1] if coded else 1
    held = raw.buffers["keys"].dtype
    columns = max(triton.next_power_of_2(dim), 16)
    width = dim // groups
    groups_up = triton.next_power_of_2(groups)
    return {
        "LANES": work.kv_heads,
        "GROUP": work.groups,
        "D": dim,
        "HALF": 0 if work.cos is None else work.cos.shape[-1],
        "PAGE": work.page,
        "SLOTS": min(max(TILE_BYTES // columns // (2 if coded else held.itemsize), 16), work.page),
        "KIND": KINDS[raw.format],
        "PARTS": 3 if work.dtype == torch.float32 else 2,
        "DTYPE": {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[work.dtype],
        "COLUMNS": columns,
        "GROUPS": groups,
        "WIDTH": width,
        "GROUPS_UP": groups_up,
        "WIDTH_UP": max(triton.next_power_of_2(width), 16 // groups_up),
        "WINDOW": work.window is not None,
        "SOFTCAP": work.softcap is not None,
    }
