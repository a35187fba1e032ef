"""From scores to pages."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.cache.summaries.scan import blocks


def choose(scores: Tensor, count: int, banned: Tensor | None = None) -> Tensor:
    """The `count` best pages of each row of scores [B, R, N]: int64 [B, R, count], ascending, so in the order of the
    text. Of equal scores the newer page wins. −1, at the end, where fewer pages may be read.

    banned: bool [B, N] or [1, N], pages that are not to be chosen (those read anyway). A page that scores −inf or
    NaN is never chosen.
    """
    lanes, rows, pages = scores.shape
    out = torch.full((lanes, rows, count), pages, dtype=torch.int64, device=scores.device)
    found = min(count, pages)
    for lane, row in blocks(lanes, rows, 8 * pages + 1) if found else ():
        ranks = _ranks(scores[lane, row], banned if banned is None or len(banned) == 1 else banned[lane])
        best = ranks.topk(found, sorted=False).values
        out[lane, row, :found] = torch.where(best < 0, pages, best & 0x7FFFFFFF)
    out = out.sort(-1).values
    return out.masked_fill_(out == pages, -1)


def among(scores: Tensor, count: int) -> Tensor:
    """bool [B, R, N]: whether `choose` would have the page among the `count` ≤ N best of its row."""
    lanes, rows, pages = scores.shape
    out = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    for lane, row in blocks(lanes, rows, 8 * pages + 1):
        ranks = _ranks(scores[lane, row], None)
        least = ranks.topk(count, sorted=False).values.amin(-1, keepdim=True)
        out[lane, row] = ranks >= least.clamp_(min=0)
    return out


def _ranks(scores: Tensor, banned: Tensor | None) -> Tensor:
    """int64 of the same shape, in the order of the scores and no two alike: the page's number fills the low half.
    −1 for pages that are never chosen."""
    bits = scores.float().add(0.0).view(torch.int32)  # adding 0 makes −0 the same as 0
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long() + (1 << 31)  # floats in their order, from 0 on
    ranks = order << 31 | torch.arange(scores.shape[-1], device=scores.device)
    never = (scores == -torch.inf) | scores.isnan()
    return ranks.masked_fill_(never if banned is None else never | banned[:, None], -1)
