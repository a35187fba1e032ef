"""The pages that hold most of a block's attention."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.errors import UsageError
from longspan.kernels import page_shares
from longspan.kernels.work import Subset, Work

PARTS = 4
"""Of the rows that are looked at in a block: each judges what the others choose."""


@dataclasses.dataclass(frozen=True)
class Sparse:
    """A block of rows reads the fewest pages that hold `mass` of its attention, by an estimate from a few of its rows.

    The estimate is exact attention of one row in `stride`, the mean over a lane's query heads, as MInference
    (arXiv:2407.02490) and FlexPrefill (arXiv:2502.20766) do it with the newest rows; rows all over a block judge
    better (docs/measurements.md). Pages chosen by an estimate hold less than it says of them, as those come first
    that it makes too great. So how many are needed is told by what each `PARTS`-th of a block's rows says of the pages
    that the others put first. The text's first page, the block's own and the `near` pages before it are always read.

    mass: share of its attention that a block keeps. density: in place of it, the share of the pages before its end
    that a block reads; 0: by mass. block: rows, a power of two. least: tokens before a block that leaves pages out.
    """

    mass: float = 0.95
    density: float = 0.0
    block: int = 128
    stride: int = 16
    near: int = 2
    least: int = 4096

    def __post_init__(self) -> None:
        for name in ("mass", "density"):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (name == "mass" and value == 0):
                raise UsageError(f"prefill: sparse:{name}={value:g}; give a share, at most 1")
        for name in ("block", "stride"):
            value = getattr(self, name)
            if not 0 < value <= 256 or value & (value - 1):
                raise UsageError(f"prefill: sparse:{name}={value}; give a power of two up to 256")
        if self.stride > self.block:
            raise UsageError(f"prefill: sparse: stride {self.stride} > block {self.block}; lower stride")
        if min(self.near, self.least) < 0:
            raise UsageError("prefill: sparse: near and least are tokens or pages, not negative")

    def choose(self, work: Work, leaves: Tensor) -> Subset | None:
        """leaves [⌊R / B⌋] bool; pages [G, ⌈R / B⌉, N]."""
        if not bool(leaves.any()):
            return None
        rows, blocks = work.queries.shape[0], len(leaves)
        parts = 1 if self.density or self.stride == 1 else min(PARTS, self.block // self.stride)
        shares = page_shares(work, self.stride, self.block // parts)[:, : blocks * parts]
        shares = shares.reshape(work.kv_heads, blocks, parts, work.pages)
        pages = self.keep(shares, work.first - work.base, work.page) | ~leaves[:, None]
        if rows > blocks * self.block:  # a block that is not whole
            pages = torch.cat([pages, pages.new_ones(work.kv_heads, 1, work.pages)], 1)
        return Subset(self.block, pages.contiguous())

    def keep(self, shares: Tensor, first: int, page: int) -> Tensor:
        """[G, blocks, N] bool. shares [G, blocks, P, N]: the mean over the rows of each of a block's P parts, and over
        heads. first: position of the first row, from the first slot."""
        blocks, parts, pages = shares.shape[1:]
        n = torch.arange(pages, device=shares.device)
        own = (first + self.block * torch.arange(blocks, device=shares.device)[:, None]) // page
        seen = n * page < first + self.block * torch.arange(1, blocks + 1, device=shares.device)[:, None]
        always = ((n == 0) | (n >= own - self.near)) & seen
        total = shares.sum(2)
        order = _order(total, always)
        if self.density:
            needed = torch.ceil(self.density * seen.sum(-1))
        else:
            orders = order[:, :, None] if parts == 1 else _order(total[:, :, None] - shares, always[:, None])
            best = shares.gather(-1, orders)
            needed = (best.cumsum(-1) - best < self.mass).sum(-1).float().mean(-1).ceil()
        enough = (n < needed[..., None]).expand_as(total)
        return torch.zeros_like(total, dtype=torch.bool).scatter_(-1, order, enough) | always


def _order(shares: Tensor, always: Tensor) -> Tensor:
    """Pages as they are chosen: those that are always read, and then by their shares."""
    return shares.masked_fill(always, torch.inf).sort(stable=True, dim=-1, descending=True).indices
