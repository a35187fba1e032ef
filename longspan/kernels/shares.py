"""What some rows of a prompt give to each page: exact attention of one row in `stride`, summed over pages."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.paged import turned
from longspan.kernels.work import Work


def page_shares(work: Work, stride: int) -> Tensor:
    """float32 [R // stride, H, N]: the share of each page in the softmax of rows stride − 1, 2·stride − 1, …

    Over all slots that a row sees; windows, learned sinks and subsets are none of its business.
    """
    rows = torch.arange(stride - 1, work.queries.shape[0], stride, device=work.queries.device)
    kv_heads, g, dim = work.kv_heads, work.groups, work.queries.shape[2]
    wide = torch.promote_types(work.queries.dtype, torch.float32)
    q = work.queries[rows].to(work.dtype).to(wide).view(-1, kv_heads, g, dim).permute(1, 0, 2, 3).flatten(1, 2)
    tops, sums = q.new_full((2, len(rows), work.queries.shape[1], work.pages), -1e30)
    sums.zero_()
    for start, keys, _ in turned(work):
        scores = torch.matmul(q, keys.to(wide).transpose(1, 2)).view(kv_heads, len(rows), g, -1)
        if work.softcap is not None:
            scores = work.softcap * torch.tanh(scores / work.softcap)
        slots = start + torch.arange(keys.shape[1], device=q.device)
        hidden = (slots > work.first + rows[:, None]) | (slots < work.begin)
        scores = scores.masked_fill_(hidden[:, None], -torch.inf).transpose(0, 1).flatten(1, 2)
        scores = scores.unflatten(2, (-1, work.page))
        n = (start - work.base) // work.page
        top = scores.amax(-1).clamp_min_(-1e30)
        tops[..., n : n + top.shape[2]] = top
        sums[..., n : n + top.shape[2]] = (scores - top[..., None]).exp_().sum(-1)
    return shares(tops, sums)


def shares(tops: Tensor, sums: Tensor) -> Tensor:
    """tops, sums [..., N]: of each page the greatest score, and the sum of exp(score − top)."""
    weights = (tops - tops.amax(-1, keepdim=True)).exp_().mul_(sums)
    return weights.div_(weights.sum(-1, keepdim=True))
