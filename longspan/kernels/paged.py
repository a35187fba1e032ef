"""The fastest plain-torch path: no repeated heads, and the cache is not copied to decode a token.

Few rows (decode): the query turns towards each page, and pages are read where they lie, as a batch of small
matrix products. Many rows (prefill): blocks of keys are turned to the reference page once and given to torch's
flash attention; partial results are merged by their log-sum-exp.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from longspan.kernels.work import Work
from longspan.rope.rotate import turn

FEW = 8
"""Rows up to which the query turns; above it turning the keys costs less."""
BLOCK_SLOTS = 8192
"""Keys turned and held at a time in prefill, so that the buffers stay bounded at any length."""
WINDOW_ROWS = 256
"""Queries per block where a window needs a mask, or scores are formed explicitly."""

BLIND = -1e30
"""Log-sum-exp of no keys at all; finite, so that merging two such rows gives no NaN."""

Partial = tuple[torch.Tensor, torch.Tensor]  # outputs [G, g, R, D] and log-sum-exp [G, g, R], float32


def attend(work: Work) -> torch.Tensor:
    """Attention over pages; see `Work`."""
    return _few(work) if work.queries.shape[0] <= FEW and work.subset is None else _many(work)


def _few(work: Work) -> torch.Tensor:
    rows, heads, dim = work.queries.shape
    g, kv_heads = work.groups, work.kv_heads
    q = work.queries.view(rows, kv_heads, g, dim).transpose(0, 1).reshape(1, kv_heads, rows * g, dim)
    hidden = _hidden(
        work.first, work.base, work.begin, rows, work.window, g, work.pages, work.page, work.queries.device
    )
    sums: torch.Tensor | None = None
    top = total = q.new_zeros(())
    if work.sinks is not None:  # a start with weight 1 and no value
        top = work.sinks.float().view(kv_heads, 1, g).expand(kv_heads, rows, g).reshape(kv_heads, rows * g)
        total = torch.ones_like(top)
        sums = top.new_zeros((kv_heads, rows * g, dim))
    n = 0
    for keys, values in (block for run in work.runs for block in run.blocks()):
        here = _scores(work, q, keys, n)  # [n, G, R·g, P]
        for a, b, mask in hidden:
            if max(a, n) < min(b, n + keys.shape[0]):
                here[max(a - n, 0) : b - n].masked_fill_(mask[max(n - a, 0) : n + keys.shape[0] - a], -torch.inf)
        highest = here.amax(dim=(0, 3)).clamp_min_(BLIND)
        if sums is not None:
            highest = torch.maximum(top, highest)
        weights = here.sub_(highest[:, :, None]).exp_()
        seen = weights.sum(dim=(0, 3))
        found = torch.matmul(weights.to(work.dtype), values).sum(0, dtype=torch.float32)
        if sums is not None:
            past = torch.exp(top - highest)
            found, seen = found + sums * past[..., None], seen + total * past
        sums, top, total, n = found, highest, seen, n + keys.shape[0]
    assert sums is not None, "a text without pages"
    out = sums / total[..., None]
    return out.view(kv_heads, rows, g, dim).transpose(0, 1).reshape(rows, heads, dim).to(work.queries.dtype)


def _scores(work: Work, q: torch.Tensor, keys: torch.Tensor, n: int) -> torch.Tensor:
    """Scores of the rows q [1, G, R·g, D] with pages n… of the work, float32 [pages, G, R·g, P]."""
    pages = keys.shape[0]
    if work.cos is not None and work.sin is not None:
        cos, sin = (t[n : n + pages, None, None] for t in (work.cos, work.sin))
        q = turn(q, cos, sin)
    else:
        q = q.expand(pages, -1, -1, -1)
    scores = torch.matmul(q.to(work.dtype), keys).float()
    return scores if work.softcap is None else work.softcap * torch.tanh(scores / work.softcap)


@functools.lru_cache(maxsize=32)  # the layers of a step ask for the same; a step of many texts asks for a few
def _hidden(
    first: int,
    base: int,
    begin: int,
    rows: int,
    window: int | None,
    g: int,
    pages: int,
    page: int,
    device: torch.device,
) -> list[tuple[int, int, torch.Tensor]]:
    """Page spans (from, to, hidden [to − from, 1, R·g, P]) that hold slots which some row must not see: at the two
    ends of the text, or of the window."""
    at = first + torch.arange(rows, device=device)
    last = max((first + 1 - base) // page, 0)
    low = begin if window is None else max(begin, first + rows - window)
    spans = [(0, min(-((base - low) // page), last)), (last, pages)]
    found = []
    for a, b in spans:
        if a < b:
            slot = base + torch.arange(a * page, b * page, device=device).view(b - a, 1, page)
            hidden = (slot > at[:, None]) | (slot < begin)
            if window is not None:
                hidden |= slot <= at[:, None] - window
            found.append((a, b, hidden.repeat_interleave(g, 1)[:, None]))
    return found


def _many(work: Work) -> torch.Tensor:
    rows, heads, dim = work.queries.shape
    g, kv_heads = work.groups, work.kv_heads
    q = work.queries.to(work.dtype).view(rows, kv_heads, g, dim).permute(1, 2, 0, 3)  # [G, g, R, D]
    reads = work.reads()
    bounded = reads is not None or (work.window is not None and work.first + rows - work.base > work.window)
    step = min(WINDOW_ROWS, rows) if bounded or not _fused(work) else rows
    blocks = [(r, min(r + step, rows)) for r in range(0, rows, step)]
    result: list[Partial | None] = [None] * len(blocks)
    for start, keys, values in turned(work):
        stop = start + keys.shape[1]
        for i, (a, b) in enumerate(blocks):
            low = work.begin if work.window is None else max(work.begin, work.first + a - work.window + 1)
            for x, y, causal in _spans(max(start, low), min(stop, work.first + b), work.first + a, bounded):
                k, v = keys[:, x - start : y - start], values[:, x - start : y - start]
                some = None
                if reads is not None:
                    some = reads[:, a:b, torch.arange(x - work.base, y - work.base, device=q.device) // work.page]
                    if not bool(some.any()):
                        continue
                part = _partial(work, q[:, :, a:b], k, v, work.first + a, x, causal, bounded, some)
                result[i] = _merge(result[i], part)
    parts = []
    for done in result:
        assert done is not None, "a block of queries saw no key at all"
        out, lse = done
        if work.sinks is not None:
            out = out * torch.sigmoid(lse - work.sinks.float().view(kv_heads, g, 1))[..., None]
        parts.append(out)
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return whole.permute(2, 0, 1, 3).reshape(rows, heads, dim).to(work.queries.dtype)


def turned(work: Work) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Blocks of (position of the first slot, keys [G, S, D] turned to the reference page, values [G, S, D])."""
    page, at, n = work.page, work.base, 0
    per_block = max(BLOCK_SLOTS // page, 1)
    end = work.first + work.queries.shape[0]
    low = work.base if work.window is None else work.first - work.window + 1
    for run in work.runs:
        for keys, values in run.blocks(per_block):
            pages, kv_heads, dim, _ = keys.shape
            if at + pages * page > low and at < end:
                turned = torch.empty((kv_heads, pages, page, dim), dtype=keys.dtype, device=keys.device)
                if work.cos is not None and work.sin is not None:
                    cos, sin = (t[n : n + pages, None, :, None] for t in (work.cos, work.sin))
                    turned.copy_(turn(keys, cos, -sin, dim=2).permute(1, 0, 3, 2))
                else:
                    turned.copy_(keys.permute(1, 0, 3, 2))
                slots = pages * page
                yield (
                    at,
                    turned.view(kv_heads, slots, dim),
                    values.transpose(0, 1).reshape(kv_heads, slots, dim),
                )
            at += pages * page
            n += pages


def _spans(low: int, high: int, first: int, bounded: bool) -> Iterator[tuple[int, int, bool]]:
    """Key spans (from, to, causal): what all rows see, then the triangle of the rows' own positions."""
    if low >= high:
        return
    if bounded:
        yield low, high, True
        return
    if low < min(high, first):
        yield low, min(high, first), False
    if max(low, first) < high:
        yield max(low, first), high, True


def _partial(
    work: Work,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    first: int,
    start: int,
    causal: bool,
    bounded: bool,
    reads: torch.Tensor | None,
) -> Partial:
    """Attention of rows at first… over keys at start…, normalised over these keys alone; reads [G, R, S] or None."""
    kv_heads, g, rows, dim = q.shape
    slots = k.shape[1]
    aligned = causal and not bounded and start == first and rows == slots
    mask = blind = None
    if causal and not aligned:
        at = first + torch.arange(rows, device=q.device)[:, None]
        slot = start + torch.arange(slots, device=q.device)[None, :]
        hidden = slot > at
        if work.window is not None:
            hidden |= slot <= at - work.window
        if reads is not None:
            hidden = (hidden | ~reads)[:, None]
        mask = torch.zeros(hidden.shape, dtype=torch.float32, device=q.device).masked_fill_(hidden, -torch.inf)
        blind = hidden.all(-1)  # rows that see none of these keys: no share in the merged result
    if not _fused(work):
        out, lse = _explicit(q, k, v, mask, aligned, work.softcap)
    elif causal:
        shape = (kv_heads, g, slots, dim)
        out, lse = _flash(q, k[:, None].expand(shape), v[:, None].expand(shape), aligned, mask)
    else:
        out, lse = _flash(q.reshape(1, kv_heads, g * rows, dim), k[None], v[None], False, None)
    out, lse = out.view(kv_heads, g, rows, dim), lse.view(kv_heads, g, rows)
    out = out.to(lse.dtype)
    if blind is not None and bool(blind.any()):
        out = out.masked_fill(blind[..., None], 0.0)
        lse = lse.masked_fill(blind, BLIND)
    return out, lse


def _fused(work: Work) -> bool:
    """Whether torch's flash attention for CPUs serves; elsewhere scores are formed explicitly, block by block."""
    return work.softcap is None and work.queries.device.type == "cpu" and work.dtype != torch.float64


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    # the public scaled_dot_product_attention does not return the log-sum-exp, which merging needs
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = op(q, k, v, 0.0, causal, attn_mask=None if mask is None else mask.to(q.dtype), scale=1.0)
    return out, lse


def _explicit(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, aligned: bool, softcap: float | None
) -> Partial:
    kv_heads, g, rows, dim = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = torch.matmul(q.reshape(kv_heads, g * rows, dim).to(wide), k.to(wide).transpose(1, 2))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.view(kv_heads, g, rows, -1)
    if aligned:
        scores.masked_fill_(torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu_(1), -torch.inf)
    elif mask is not None:
        scores += mask
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse[..., None])
    out = torch.matmul(weights.view(kv_heads, g * rows, -1), v.to(wide)).view(kv_heads, g, rows, dim)
    return out, lse


def _merge(old: Partial | None, new: Partial) -> Partial:
    if old is None:
        return new
    lse = torch.logaddexp(old[1], new[1])
    out = old[0] * torch.exp(old[1] - lse)[..., None] + new[0] * torch.exp(new[1] - lse)[..., None]
    return out, lse
