"""Numbers in few bits: codes two to a byte, and float16 bounds that are rounded to the outside."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(codes: Tensor) -> Tensor:
    """Two 4-bit codes to a byte: uint8 [..., K] with values below 16 → uint8 [..., ⌈K/2⌉].

    Byte i holds code i in its low half and code i + ⌈K/2⌉ in its high half, so that both halves unpack to
    consecutive codes. The last high half of an odd K is 0.
    """
    half = (codes.shape[-1] + 1) // 2
    low, high = codes[..., :half], codes[..., half:]
    return low | torch.nn.functional.pad(high << 4, (0, half - high.shape[-1]))


def unpack(packed: Tensor, size: int) -> Tensor:
    """The `size` codes that `pack` packed: uint8 [..., ⌈size/2⌉] → uint8 [..., size]."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)[..., :size]


def half_below(x: Tensor) -> Tensor:
    """The largest float16 ≤ x, for float32 x within ±65504."""
    rounded = x.half()
    bits = rounded.view(torch.int16)
    order = torch.where(bits < 0, -32768 - bits, bits)  # float16 numbers in their order; −0 and 0 are both 0
    order = order - (rounded.float() > x).to(torch.int16)
    return torch.where(order < 0, -32768 - order, order).view(torch.float16)


def half_above(x: Tensor) -> Tensor:
    """The smallest float16 ≥ x, for float32 x within ±65504."""
    return -half_below(-x)


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in `dtype`. A bound that was rounded outwards may lie just above float16's range, and must not become Inf."""
    return x.clamp(-65504, 65504).half() if dtype == torch.float16 else x.to(dtype)
