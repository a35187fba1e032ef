"""Weights as codes of 8 or 4 bits: one scale for 64 input channels, codes around the middle of their range.

A matrix [N, K] becomes bytes [N, C]: of each row its codes, group after group, then its scales in bfloat16. Of a
group's 4-bit codes byte i holds channels i and i + 32, the first lowest. K is filled up to whole groups.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

GROUP = 64
BITS = {"int8": 8, "int4": 4}
AT_ONCE = 1 << 20
"""Weights that become codes at a time: on the way there they are several times as large as they were."""


def bytes_per_row(columns: int, bits: int) -> int:
    """Bytes of a row of so many columns."""
    return -(-columns // GROUP) * (GROUP * bits // 8 + 2)


def quantize(weight: Tensor, bits: int) -> Tensor:
    """uint8 [N, C] of weight [N, K]. Scales have the least squared error among a few for each group."""
    rows, columns = weight.shape
    packed = torch.empty((rows, bytes_per_row(columns, bits)), dtype=torch.uint8, device=weight.device)
    step = max(1, AT_ONCE // max(columns, 1))
    for n in range(0, rows, step):
        packed[n : n + step] = _packed(weight[n : n + step], bits)
    return packed


def _packed(weight: Tensor, bits: int) -> Tensor:
    rows = len(weight)
    groups = pad(weight.float(), (0, -weight.shape[1] % GROUP)).view(rows, -1, GROUP)
    middle = 1 << (bits - 1)
    top = groups.abs().amax(-1, keepdim=True)
    best = scale = None
    for part in (1.0,) if bits == 8 else torch.linspace(0.6, 1.0, 17).tolist():
        tried = (top * (part / (middle - 1))).to(torch.bfloat16).float()
        error = (_codes(groups, tried, middle).sub_(middle) * tried - groups).square().sum(-1, keepdim=True)
        if best is None or scale is None:
            best, scale = error, tried
        else:
            scale = torch.where(error < best, tried, scale)
            best = torch.minimum(error, best)
    assert scale is not None
    scale = torch.where(top.isfinite(), scale, torch.nan)  # a broken row must be noticed
    codes = _codes(groups, scale, middle).nan_to_num(middle).to(torch.uint8)
    if bits == 4:
        codes = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4
    scales = scale.squeeze(-1).to(torch.bfloat16).contiguous().view(torch.uint8)
    return torch.cat([codes.flatten(1), scales], 1)


def dequantize(packed: Tensor, columns: int, bits: int, dtype: torch.dtype) -> Tensor:
    """[N, K] in dtype of what `quantize` gave."""
    groups = -(-columns // GROUP)
    size = GROUP * bits // 8
    codes = packed[:, : groups * size].reshape(-1, groups, size)
    if bits == 4:
        codes = torch.cat([codes & 15, codes >> 4], -1)
    scale = packed[:, groups * size :].contiguous().view(torch.bfloat16).float().unsqueeze(-1)
    numbers: Tensor = (codes.float() - (1 << (bits - 1))) * scale
    return numbers.flatten(1)[:, :columns].to(dtype)


def _codes(groups: Tensor, scale: Tensor, middle: int) -> Tensor:
    """Codes as floats. A group of zeros has scale 0 and codes in the middle."""
    return (groups / scale).nan_to_num_(0.0).round_().clamp_(-middle, middle - 1).add_(middle)
