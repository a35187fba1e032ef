"""Reading all summaries block by block, so that working buffers stay small however many pages there are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 4 << 20
"""Bytes of the largest working buffer; larger blocks are slower, since they leave the processor's caches. Buffers are
made once and used for all blocks: fresh ones for each block would take as long as the work itself."""


def per_block(size: int) -> int:
    """How many pages of `size` bytes each a buffer holds."""
    return max(BLOCK // size, 1)


def blocks(lanes: int, pages: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of lanes and of their pages that cover all pages once, at most BLOCK bytes each with `size` a page."""
    if lanes == 0 or pages == 0:
        return
    high = min(pages, per_block(size))
    wide = per_block(size) // high
    for lane in range(0, lanes, wide):
        for page in range(0, pages, high):
            yield slice(lane, lane + wide), slice(page, page + high)


def largest_dot(queries: Tensor, vectors: Tensor) -> Tensor:
    """float32 [B, R, N]: the largest product of queries [B, R, D] with each page's vectors [B, N, K, D]."""
    (lanes, rows, dim), (pages, count) = queries.shape, vectors.shape[1:3]
    queries = queries.float()
    out = queries.new_empty(lanes, rows, pages)
    size = 4 * count * max(dim, rows)
    held = queries.new_empty(min(per_block(size), lanes * pages), count, dim)
    for lane, page in blocks(lanes, pages, size):
        part = vectors[lane, page]
        n = part.shape[:2].numel()
        wide = torch.unflatten(held[:n], 0, part.shape[:2]).copy_(part)
        products = torch.matmul(queries[lane], wide.flatten(1, 2).transpose(1, 2))
        out[lane, :, page] = products if count == 1 else torch.unflatten(products, 2, (-1, count)).amax(-1)
    return out
