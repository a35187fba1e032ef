"""Codes 0…2^b−1 between a minimum and a maximum: what int8 and int4 share.

Asymmetric, with keys per channel over the page and values per token in groups of channels (KIVI,
https://arxiv.org/abs/2402.02750): Δ = (max − min)/(2^b − 1) and x̂ = min + Δ·code. min and Δ are float16,
rounded outwards, so that the codes cover the range and |x − x̂| ≤ Δ/2 holds with the Δ that is stored. Δ is
never finer than 2⁻²⁴, float16's smallest number.

Sealing again what was opened: in float32 the codes stay the same where a group's range is at least half its
largest magnitude (int8; a thirtieth for int4) and 2⁻⁷. Elsewhere, after rounding to a narrower dtype and after
a Hadamard transform, each sealing moves a number by up to its Δ/2. So a page is sealed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.cache.formats.format import Buffers, Stored, group_width, patch
from longspan.cache.formats.packing import half_above, half_below, narrow, pack
from longspan.errors import NumericalError
from longspan.kernels import cpu

PACKED = 4  # bits
LIMIT = 65504.0  # float16's largest number


def layout(name: str, group: int, page: int, head_dim: int) -> Buffers:
    """Buffers of one page with a code to the byte."""
    groups = head_dim // group_width(name, group, head_dim)
    return {
        "keys": ((head_dim, page), torch.uint8),
        "key_min": ((head_dim,), torch.float16),
        "key_step": ((head_dim,), torch.float16),
        "values": ((page, head_dim), torch.uint8),
        "value_min": ((page, groups), torch.float16),
        "value_step": ((page, groups), torch.float16),
    }


def seal(name: str, group: int, bits: int, keys: Tensor, values: Tensor, valid: Tensor | None) -> Stored:
    """The buffers of `layout`, with codes below 2^bits; 4 bits are packed (`packing.pack`)."""
    width = group_width(name, group, values.shape[-1])
    keys, values = patch(keys, values, valid)
    one, several = cpu.seal(keys, 1, bits), cpu.seal(values, values.shape[-1] // width, bits)
    if one is not None and several is not None:
        codes, low, step = one
        made = {"keys": codes, "key_min": low.flatten(1), "key_step": step.flatten(1)}
        return {**made, **dict(zip(("values", "value_min", "value_step"), several, strict=True))}
    return by_torch(name, width, bits, keys, values)


def by_torch(name: str, width: int, bits: int, keys: Tensor, values: Tensor) -> Stored:
    """The same where compiled kernels do not serve, and the definition of what they do."""
    key_codes, key_min, key_step = quantize(name, "key", keys.float(), bits)
    grouped = torch.unflatten(values.float(), -1, (-1, width))
    value_codes, value_min, value_step = quantize(name, "value", grouped, bits)
    value_codes = value_codes.flatten(-2)
    return {
        "keys": pack(key_codes) if bits == PACKED else key_codes,
        "key_min": key_min,
        "key_step": key_step,
        "values": pack(value_codes) if bits == PACKED else value_codes,
        "value_min": value_min,
        "value_step": value_step,
    }


def open_float(stored: Stored) -> tuple[Tensor, Tensor]:
    """keys [n, D, P] and values [n, P, D] in float32."""
    keys = _dequantize(stored["keys"], stored["key_min"], stored["key_step"])
    groups = stored["value_min"].shape[-1]
    codes = torch.unflatten(stored["values"], -1, (groups, -1))
    return keys, _dequantize(codes, stored["value_min"], stored["value_step"]).flatten(-2)


def open(stored: Stored, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    keys, values = open_float(stored)
    return narrow(keys, dtype), narrow(values, dtype)


def steps(stored: Stored, head_dim: int) -> tuple[Tensor, Tensor]:
    """Δ in float32 of keys [n, D, 1] and values [n, P, D]."""
    step = stored["value_step"].float()
    return stored["key_step"].float().unsqueeze(-1), step.repeat_interleave(head_dim // step.shape[-1], dim=-1)


def quantize(name: str, what: str, x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of float32 x [..., K], with one minimum and one Δ [...] for each row of K."""
    top = 2**bits - 1
    low, high = x.amin(dim=-1), x.amax(dim=-1)
    if not bool(((low >= -LIMIT) & (high <= LIMIT)).all()):  # NaN fails both
        raise NumericalError(
            f"{name}: a {what} is NaN or beyond ±65504, the range of the float16 numbers that scale a page; "
            "if the model means such numbers, choose format=dense"
        )
    minimum = half_below(low)
    step = half_above((high - minimum.float()) / top)
    divisor = torch.where(step == 0, 1, step.float())  # a row that is constant and equal to its minimum: code 0
    codes = x.sub(minimum.float().unsqueeze(-1)).div_(divisor.unsqueeze(-1)).round_().clamp_(0, top)
    return codes.to(torch.uint8), minimum, step


def _dequantize(codes: Tensor, minimum: Tensor, step: Tensor) -> Tensor:
    return torch.addcmul(minimum.float().unsqueeze(-1), codes.float(), step.float().unsqueeze(-1))
