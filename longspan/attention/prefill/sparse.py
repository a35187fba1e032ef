"""The pages that hold most of a block's attention."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.errors import UsageError
from longspan.kernels import page_shares
from longspan.kernels.work import Subset, Work


@dataclasses.dataclass(frozen=True)
class Sparse:
    """A block of rows reads the fewest pages that hold `mass` of its attention, by an estimate from a few of its rows.

    The estimate is exact attention of one row in `stride`, the mean over a lane's query heads, as MInference
    (arXiv:2407.02490) and FlexPrefill (arXiv:2502.20766) do it with the newest rows; rows all over a block judge
    better (docs/measurements.md). The text's first page, the block's own and the `near` pages before it are always
    read.

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
        shares = page_shares(work, self.stride, self.block)
        pages = self.keep(shares, work.first - work.base, work.page) | ~leaves[:, None]
        if rows > blocks * self.block:  # a block that is not whole
            pages = torch.cat([pages, pages.new_ones(work.kv_heads, 1, work.pages)], 1)
        return Subset(self.block, pages.contiguous())

    def keep(self, shares: Tensor, first: int, page: int) -> Tensor:
        """[G, blocks, N] bool. shares [G, blocks, N]: the mean over a block's rows and heads. first: position of the
        first row, from the first slot."""
        blocks, pages = shares.shape[1:]
        n = torch.arange(pages, device=shares.device)
        own = (first + self.block * torch.arange(blocks, device=shares.device)[:, None]) // page
        seen = n * page < first + self.block * torch.arange(1, blocks + 1, device=shares.device)[:, None]
        always = ((n == 0) | (n >= own - self.near)) & seen
        order = shares.masked_fill(always, 2.0).sort(stable=True, dim=-1, descending=True).indices
        if self.density:
            enough = torch.ceil(self.density * seen.sum(-1, keepdim=True)) > n
        else:
            best = shares.gather(-1, order)
            enough = best.cumsum(-1) - best < self.mass  # without it there is not enough
        return torch.zeros_like(shares, dtype=torch.bool).scatter_(-1, order, enough.expand_as(shares)) | always
