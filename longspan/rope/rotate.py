"""Turning vectors by angles: apply at positions, and re-rotate by a difference of positions.

Channel pairs are halves of the rotated part, (i, i + d/2), as in Llama. Angles are formed in float64, so a
position of ten million is as exact as ten; cos and sin are then kept in float32.
"""

from __future__ import annotations

import numpy as np
import torch

from longspan.rope.angles import Angles


def table(
    angles: Angles, positions: np.ndarray, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin at `positions` (any shape S, integers of any sign): two float32 tensors [*S, d/2]."""
    turned = np.asarray(positions, dtype=np.float64)[..., None] * np.asarray(angles.inv_freq, dtype=np.float64)
    return (
        torch.from_numpy(np.cos(turned).astype(np.float32)).to(device),
        torch.from_numpy(np.sin(turned).astype(np.float32)).to(device),
    )


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """x with its first d channels along `dim` turned (pairs are halves), in the wider of both dtypes.

    cos, sin: d/2 entries along `dim`, broadcastable to the half of x.
    """
    half = cos.shape[dim]
    size = x.shape[dim]
    a, b = x.narrow(dim, 0, half), x.narrow(dim, half, half)
    whole = list(np.broadcast_shapes(a.shape, cos.shape))
    whole[dim] = size
    out = torch.empty(whole, dtype=torch.promote_types(x.dtype, cos.dtype), device=x.device)
    torch.mul(a, cos, out=out.narrow(dim, 0, half)).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=out.narrow(dim, half, half)).addcmul_(a, sin)
    if size > 2 * half:
        out.narrow(dim, 2 * half, size - 2 * half).copy_(x.narrow(dim, 2 * half, size - 2 * half))
    return out


def apply(x: torch.Tensor, angles: Angles, positions: np.ndarray) -> torch.Tensor:
    """x [..., T, D] rotated at text positions [T], without the attention factor."""
    cos, sin = table(angles, positions, x.device)
    return turn(x, cos, sin).to(x.dtype)


def rerotate(x: torch.Tensor, angles: Angles, delta: int) -> torch.Tensor:
    """x, already rotated at some position, as if rotated `delta` further (rotations compose)."""
    return apply(x, angles, np.asarray(delta))
