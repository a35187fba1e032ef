"""Eight bits a number, as a small float."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.cache.formats.format import Buffers, Stored, check_group, group_width, patch, total
from longspan.cache.formats.packing import half_above, narrow
from longspan.errors import NumericalError

TOP = 448.0  # the largest float8_e4m3fn


@dataclasses.dataclass(frozen=True)
class Fp8:
    """float8_e4m3fn times a float16 scale per key channel and value group (E4M3, https://arxiv.org/abs/2209.05433).

    Three bits of mantissa: the error is up to 1/16 of each number, however small it is beside the others,
    where that of int8 is the same for all numbers of a group. Keys with a large mean are better off in int8.

    group: channels of a value that share a scale; must divide head_dim, and is lowered to a smaller head_dim.
    """

    group: int = 32

    def __post_init__(self) -> None:
        check_group("fp8", self.group)

    @property
    def coded(self) -> None:
        return None

    def layout(self, page: int, head_dim: int, dtype: torch.dtype) -> Buffers:
        return {
            "keys": ((head_dim, page), torch.float8_e4m3fn),
            "key_scale": ((head_dim,), torch.float16),
            "values": ((page, head_dim), torch.float8_e4m3fn),
            "value_scale": ((page, head_dim // group_width("fp8", self.group, head_dim)), torch.float16),
        }

    def bytes(self, page: int, head_dim: int, dtype: torch.dtype) -> int:
        return total(self.layout(page, head_dim, dtype))

    def seal(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> Stored:
        width = group_width("fp8", self.group, values.shape[-1])
        keys, values = patch(keys, values, valid)
        key_codes, key_scale = _quantize("key", keys.float())
        value_codes, value_scale = _quantize("value", torch.unflatten(values.float(), -1, (-1, width)))
        return {
            "keys": key_codes,
            "key_scale": key_scale,
            "values": value_codes.flatten(-2),
            "value_scale": value_scale,
        }

    def open(self, stored: Stored, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        keys, values = _scales(stored)
        return narrow(stored["keys"].float() * keys, dtype), narrow(stored["values"].float() * values, dtype)

    def steps(self, stored: Stored) -> tuple[Tensor, Tensor]:
        """The gap between neighbouring float8 numbers at each code, scaled: it grows with the number."""
        keys, values = _scales(stored)
        return _gap(stored["keys"].float()) * keys, _gap(stored["values"].float()) * values


def _quantize(what: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of float32 x [..., K] and one scale [...] for each row of K, rounded up so that no code overflows."""
    most = x.abs().amax(dim=-1)
    if not bool((most <= 65504 * TOP).all()):  # NaN fails too
        raise NumericalError(
            f"fp8: a {what} is NaN or beyond ±{65504 * TOP:,.0f}, what a float16 scale can reach; "
            "if the model means such numbers, choose format=dense"
        )
    scale = half_above(most / TOP)
    divisor = torch.where(scale == 0, 1, scale.float())
    return (x / divisor.unsqueeze(-1)).to(torch.float8_e4m3fn), scale


def _scales(stored: Stored) -> tuple[Tensor, Tensor]:
    """Scales in float32 of keys [n, D, 1] and values [n, P, D]."""
    scale = stored["value_scale"].float()
    width = stored["values"].shape[-1] // scale.shape[-1]
    return stored["key_scale"].float().unsqueeze(-1), scale.repeat_interleave(width, dim=-1)


def _gap(code: Tensor) -> Tensor:
    """Distance to the next float8 number: 2^(exponent − 3), and 2⁻⁹ for those below 2⁻⁶."""
    exponent = torch.where(code == 0, -6, torch.frexp(code).exponent - 1).clamp(min=-6)
    return torch.ldexp(torch.ones_like(code), exponent - 3)
