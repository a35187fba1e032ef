"""What a format is, and what every format does alike."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from longspan.errors import UsageError

Stored = dict[str, Tensor]
"""Named buffers of n pages; each has the leading dimension n."""

Buffers = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of each buffer of one page, without the leading dimension."""


class Format(Protocol):
    """How sealed pages are stored. n pages of one lane each; D head dim, P slots, dtype the model's.

    A format holds no state and loops over no pages. It works in float32, so sealing and opening need room
    for their n pages in float32 besides: hand over as many pages at a time as that allows.
    """

    @property
    def coded(self) -> str | None:
        """The name by which compiled kernels know these buffers; None: they are given opened pages."""

    def layout(self, page: int, head_dim: int, dtype: torch.dtype) -> Buffers:
        """The buffers of one page. Raises UsageError when the format cannot hold such a head."""

    def bytes(self, page: int, head_dim: int, dtype: torch.dtype) -> int:
        """Bytes of one page, scales included."""

    def seal(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> Stored:
        """Pages as they are stored. keys [n, D, P], values [n, P, D], valid [n, P] bool or None for all.

        Slots that are not valid may hold anything, NaN too: they influence nothing and open to finite
        numbers. Raises NumericalError when a valid number is NaN or too large for the format.
        """

    def open(self, stored: Stored, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """keys [n, D, P] and values [n, P, D] as near as the format kept them."""

    def steps(self, stored: Stored) -> tuple[Tensor, Tensor] | None:
        """Δ of keys and values, broadcastable to them: what was sealed differs from what opens by at most Δ/2.

        The rounding to the dtype that `open` returns comes on top. None: nothing was lost in sealing.
        """


def total(buffers: Buffers) -> int:
    """Bytes of one page with these buffers."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in buffers.values())


def patch(keys: Tensor, values: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pages without holes: keys of holes become the page's first valid key, which widens no range; values become 0.

    Pages with no valid slot become 0.
    """
    if valid is None:
        return keys, values
    first = valid.int().argmax(dim=-1)[:, None, None].expand(-1, keys.shape[1], 1)
    fill = torch.where(valid.any(dim=-1)[:, None, None], keys.gather(2, first), 0)
    return torch.where(valid[:, None, :], keys, fill), torch.where(valid[:, :, None], values, 0)


def check_group(name: str, group: int) -> None:
    if group < 1:
        raise UsageError(f"{name}: group={group}; it counts channels, so give 1 or more")


def group_width(name: str, group: int, head_dim: int) -> int:
    """Channels of a value that share a scale: `group`, or all of them when the head has fewer."""
    width = min(group, head_dim)
    if head_dim % width:
        legal = [d for d in range(1, head_dim + 1) if head_dim % d == 0]
        best = max(d for d in legal if d <= width)
        raise UsageError(
            f"{name}: group={group} does not divide head_dim {head_dim}; use {name}:group={best} "
            f"(any of {', '.join(map(str, legal))})"
        )
    return width
