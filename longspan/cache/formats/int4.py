"""Four bits a number."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from longspan.cache.formats import affine
from longspan.cache.formats.format import Buffers, Stored, check_group, patch, total
from longspan.cache.formats.packing import narrow, unpack


@dataclasses.dataclass(frozen=True)
class Int4:
    """16 levels between the least and the greatest: keys per channel, values per token.

    Two codes share a byte, as `packing.pack` says: keys by slot, values by channel.

    group: channels of a value that share a scale; must divide head_dim, and is lowered to a smaller head_dim.
    hadamard: seal keys times an orthonormal Hadamard matrix over channels (QuaRot, https://arxiv.org/abs/2404.00456),
    for keys with single entries that stick out of their channel. A channel that sticks out as a whole has a Δ of
    its own already, and hadamard would spread it over the ordinary ones.
    """

    group: int = 32
    hadamard: bool = False

    def __post_init__(self) -> None:
        check_group("int4", self.group)

    @property
    def coded(self) -> str | None:
        return None if self.hadamard else "int4"

    def layout(self, page: int, head_dim: int, dtype: torch.dtype) -> Buffers:
        buffers = affine.layout("int4", self.group, page, head_dim)
        keys = ((head_dim, (page + 1) // 2), torch.uint8)
        return {**buffers, "keys": keys, "values": ((page, (head_dim + 1) // 2), torch.uint8)}

    def bytes(self, page: int, head_dim: int, dtype: torch.dtype) -> int:
        return total(self.layout(page, head_dim, dtype))

    def seal(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> Stored:
        keys, values = patch(keys, values, valid)
        if self.hadamard:
            keys = rotate(keys.float())
        return affine.seal("int4", self.group, 4, keys, values, None)

    def open(self, stored: Stored, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        head_dim, page = stored["key_min"].shape[1], stored["value_min"].shape[1]
        codes = {"keys": unpack(stored["keys"], page), "values": unpack(stored["values"], head_dim)}
        keys, values = affine.open_float({**stored, **codes})
        return narrow(rotate(keys) if self.hadamard else keys, dtype), narrow(values, dtype)

    def steps(self, stored: Stored) -> tuple[Tensor, Tensor]:
        """With hadamard, Δ of a key is Σ Δᵢ/√block over its block: the worst that rotating back can add up to."""
        keys, values = affine.steps(stored, stored["key_min"].shape[1])
        if self.hadamard:
            block = block_of(keys.shape[1])
            summed = torch.unflatten(keys, 1, (-1, block)).sum(dim=2, keepdim=True) / math.sqrt(block)
            keys = summed.expand(-1, -1, block, -1).flatten(1, 2)
        return keys, values


def block_of(head_dim: int) -> int:
    """The largest power of two that divides head_dim."""
    return head_dim & -head_dim


def rotate(keys: Tensor) -> Tensor:
    """Keys [n, D, P] times the orthonormal Hadamard matrix over channels, in blocks. It is its own inverse."""
    size, block = keys.shape, block_of(keys.shape[1])
    span = 1
    while span < block:
        a, b = keys.reshape(size[0], size[1] // (2 * span), 2, span, size[2]).unbind(2)
        keys = torch.stack((a + b, a - b), dim=2).reshape(size)
        span *= 2
    return keys / math.sqrt(block)
