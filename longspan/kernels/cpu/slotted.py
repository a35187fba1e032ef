"""Attention of many rows over gathered slots; the contract is that of `slots.attend`."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels import slots
from longspan.kernels.cpu.decode import address
from longspan.kernels.cpu.linear import KINDS
from longspan.kernels.cpu.native import NATIVE, level
from longspan.kernels.slots import Seen, Slots

UNIT = 16
"""Channels come in multiples of it."""
WIDTH = 64
"""Slots are laid out in multiples of it."""
NOTHING = 1e30
FAR = 1 << 23
"""Distances that float32 tells apart."""


def attend(work: Slots, seen: Seen | None = None, instructions: str | None = None) -> Tensor:
    """See `slots.attend`; what compiled kernels do not serve, torch does. instructions: see `native.level`."""
    if not serves(work):
        return slots.attend(work, seen)
    assert NATIVE is not None
    count, heads, dim = work.queries.shape
    lanes, size = work.positions.shape
    queries, start = work.queries.float().contiguous(), int(work.rows[0])
    at = (work.rows - start).float()
    keys, values = _side_by_side(work.keys.float()), _side_by_side(work.values)
    held = work.positions >= 0
    late = torch.full((lanes, -(-size // WIDTH) * WIDTH), NOTHING)
    late[:, :size] = torch.where(held, (work.positions - start).clamp(-FAR, FAR).float(), NOTHING)
    early = bias = None
    if work.window is not None:
        early = late.clone()
        early[:, :size][held & (work.positions < work.sinks)] = NOTHING
    if work.weights is not None:
        bias = torch.zeros_like(late)
        bias[:, :size] = work.weights.log().masked_fill(~held, 0)
    learned = None if work.learned is None else work.learned.float().contiguous()
    out = torch.empty(count, heads, dim)
    mass = recent = used = None
    since = page = 0
    if seen is not None:
        mass = torch.zeros(lanes, size) if seen.wants_mass else None
        if seen.since is not None:
            since, recent = int((work.rows < seen.since).sum()), torch.zeros(lanes, heads // lanes, size)
        if seen.page is not None:
            page, used = seen.page, torch.full((lanes, -(-size // seen.page)), -1)
    NATIVE.slotted(
        level(instructions),
        torch.get_num_threads(),
        *(queries.data_ptr(), at.data_ptr(), count, heads, lanes, dim, size),
        *(keys.data_ptr(), keys.stride(0), keys.stride(1)),
        *(KINDS[values.dtype], values.data_ptr(), values.stride(0), values.stride(1)),
        *(
            late.data_ptr(),
            address(early),
            address(bias),
            float(work.window or 0),
            work.softcap or 0.0,
            address(learned),
        ),
        *(
            out.data_ptr(),
            address(mass),
            address(recent),
            since,
            address(used),
            page,
            0.0 if seen is None else seen.share,
        ),
    )
    if seen is not None:
        last = None
        if used is not None:
            last = torch.where(used < 0, -1, work.rows[used.clamp_min(0)]).repeat_interleave(page, 1)[:, :size]
        seen.take(mass, recent, last)
    return out


def serves(work: Slots) -> bool:
    """Whether compiled kernels do it: rows in order, distances that float32 tells apart."""
    dim, rows = work.queries.shape[-1], work.rows
    if NATIVE is None or not work.keys.is_cpu or dim % UNIT or work.values.dtype not in KINDS:
        return False
    if work.queries.dtype == torch.float64 or work.keys.dtype == torch.float64 or not work.positions.numel():
        return False
    return bool((rows[1:] >= rows[:-1]).all()) and int(rows[-1] - rows[0]) + (work.window or 0) < FAR


def _side_by_side(x: Tensor) -> Tensor:
    """Channels that follow each other in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()
