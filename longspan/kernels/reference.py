"""The specification: attention over pages in float64, one formula, nothing clever."""

from __future__ import annotations

import torch

from longspan.kernels.work import Work
from longspan.rope.rotate import turn


def attend(work: Work) -> torch.Tensor:
    """softmax over all visible slots of (query · key turned to the reference page), times values. See `Work`."""
    queries = work.queries.double()
    rows, heads, dim = queries.shape
    blocks = [block for run in work.runs for block in run.blocks()]
    keys = torch.cat([k for k, _ in blocks]).double()  # [N, G, D, P]
    values = torch.cat([v for _, v in blocks]).double()  # [N, G, P, D]
    if work.cos is not None and work.sin is not None:
        # the query turns by +P·j towards a page j pages back; turning its keys by −P·j is the same product
        cos, sin = (t.double()[:, None, :, None] for t in (work.cos, work.sin))
        keys = turn(keys, cos, -sin, dim=2)
    slots = keys.shape[0] * keys.shape[3]
    keys = keys.permute(1, 0, 3, 2).reshape(-1, slots, dim).repeat_interleave(work.groups, 0)  # [H, slots, D]
    values = values.permute(1, 0, 2, 3).reshape(-1, slots, dim).repeat_interleave(work.groups, 0)
    at = work.first + torch.arange(rows, device=queries.device)[:, None]
    slot = work.base + torch.arange(slots, device=queries.device)[None, :]
    visible = (slot <= at) & (slot >= work.begin)
    if work.window is not None:
        visible &= slot > at - work.window
    reads = work.reads()
    if reads is not None:
        visible = visible & reads.repeat_interleave(work.page, 2).repeat_interleave(work.groups, 0)  # [H, R, slots]
    scores = torch.einsum("rhd,hsd->hrs", queries, keys)
    if work.softcap is not None:
        scores = work.softcap * torch.tanh(scores / work.softcap)
    scores = scores.masked_fill(~visible, -torch.inf)
    if work.sinks is not None:
        sinks = work.sinks.double()[:, None, None].expand(heads, rows, 1)
        weights = torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1]
    else:
        weights = torch.softmax(scores, -1)
    values = values.masked_fill(~visible.flatten(0, -2).any(0)[None, :, None], 0)
    return torch.einsum("hrs,hsd->rhd", weights, values).to(work.queries.dtype)
