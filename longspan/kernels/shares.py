"""What blocks of rows give to each page: exact attention of a few of their rows, summed over pages."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.paged import turned
from longspan.kernels.work import Work


def page_shares(work: Work, stride: int, block: int) -> Tensor:
    """float32 [G, R // block, N]: the share of each page in a block's softmax, the mean over one row in `stride` (the
    last of each) and the query heads of a lane.

    Over all slots that a row sees; windows, learned sinks and subsets are none of its business.
    """
    whole = work.queries.shape[0] // block * block
    rows = torch.arange(stride - 1, whole, stride, device=work.queries.device)
    kv_heads, g = work.kv_heads, work.groups
    wide = torch.promote_types(work.queries.dtype, torch.float32)
    q = (
        work.queries[rows]
        .to(work.dtype)
        .to(wide)
        .view(-1, kv_heads, g, work.queries.shape[2])
        .permute(1, 0, 2, 3)
        .flatten(1, 2)
    )
    weights = q.new_empty((kv_heads, len(rows), g, work.pages, work.page))
    weights.fill_(-torch.inf)
    for start, keys, _ in turned(work):
        scores = torch.matmul(q, keys.to(wide).transpose(1, 2)).view(kv_heads, len(rows), g, -1)
        if work.softcap is not None:
            scores = work.softcap * torch.tanh(scores / work.softcap)
        slots = start + torch.arange(keys.shape[1], device=q.device)
        hidden = (slots > work.first + rows[:, None]) | (slots < work.begin)
        scores.masked_fill_(hidden[:, None], -torch.inf)
        n = (start - work.base) // work.page
        weights[..., n : n + scores.shape[3] // work.page, :] = torch.unflatten(scores, 3, (-1, work.page))
    weights = torch.unflatten(torch.softmax(weights.flatten(3), -1), 3, (-1, work.page)).sum(-1)
    return torch.unflatten(weights, 1, (-1, block // stride)).mean((2, 3)).float()
