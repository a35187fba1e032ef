"""Pages as the model made them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.cache.formats.format import Buffers, Stored, patch, total


@dataclasses.dataclass(frozen=True)
class Dense:
    """Keys and values in the model's dtype: nothing is lost, 2·P·D numbers a page.

    With no holes, what is stored are the given tensors themselves, not copies.
    """

    @property
    def coded(self) -> str:
        return "dense"

    def layout(self, page: int, head_dim: int, dtype: torch.dtype) -> Buffers:
        return {"keys": ((head_dim, page), dtype), "values": ((page, head_dim), dtype)}

    def bytes(self, page: int, head_dim: int, dtype: torch.dtype) -> int:
        return total(self.layout(page, head_dim, dtype))

    def seal(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> Stored:
        keys, values = patch(keys, values, valid)
        return {"keys": keys, "values": values}

    def open(self, stored: Stored, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return stored["keys"].to(dtype), stored["values"].to(dtype)

    def steps(self, stored: Stored) -> None:
        return None
