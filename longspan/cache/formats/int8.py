"""Eight bits a number."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.cache.formats import affine
from longspan.cache.formats.format import Buffers, Stored, check_group, total


@dataclasses.dataclass(frozen=True)
class Int8:
    """256 levels between the least and the greatest: keys per channel, values per token.

    The axes are those of KIVI (https://arxiv.org/abs/2402.02750); `affine` has the arithmetic.

    group: channels of a value that share a scale; must divide head_dim, and is lowered to a smaller head_dim.
    """

    group: int = 32

    def __post_init__(self) -> None:
        check_group("int8", self.group)

    @property
    def coded(self) -> str:
        return "int8"

    def layout(self, page: int, head_dim: int, dtype: torch.dtype) -> Buffers:
        return affine.layout("int8", self.group, page, head_dim)

    def bytes(self, page: int, head_dim: int, dtype: torch.dtype) -> int:
        return total(self.layout(page, head_dim, dtype))

    def seal(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> Stored:
        return affine.seal("int8", self.group, 8, keys, values, valid)

    def open(self, stored: Stored, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return affine.open(stored, dtype)

    def steps(self, stored: Stored) -> tuple[Tensor, Tensor]:
        return affine.steps(stored, stored["values"].shape[-1])
