"""Attention of few rows over what eviction left in the lanes of a layer, pages read where they lie.

The contract is that of `slots.attend`; keys are turned here, one by one, instead of before.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from longspan.kernels.cpu.decode import CODED, DENSE, UNIT, address, operands
from longspan.kernels.cpu.native import NATIVE, level
from longspan.kernels.slots import Seen
from longspan.kernels.work import Raw


@dataclasses.dataclass(frozen=True)
class Turns:
    """Keys turn by row `counts` [G, S] of cos, sin [·, d/2], backwards where it is negative."""

    counts: Tensor
    cos: Tensor
    sin: Tensor


@dataclasses.dataclass(frozen=True)
class Kept:
    """Lanes of pages. table [G, columns]: ids; of each lane the first `sealed` [G] are pages of `coded`, the rest of
    keys [N, D, P] and values [N, P, D]. counts [G]: slots of each lane. positions, weights [G, ≥ S]: as in
    `slots.Slots`, S the slots of the fullest lane. turns: how each key is turned; None: not."""

    table: Tensor
    sealed: Tensor
    counts: Tensor
    keys: Tensor
    values: Tensor
    coded: Raw | None
    positions: Tensor
    weights: Tensor | None
    turns: Turns | None


def attend(
    kept: Kept,
    queries: Tensor,
    rows: Tensor,
    window: int | None = None,
    sinks: int = 0,
    softcap: float | None = None,
    learned: Tensor | None = None,
    seen: Seen | None = None,
    instructions: str | None = None,
) -> Tensor:
    """[R, H, D] in float32 of queries [R, H, D], turned and scaled, at text positions rows [R]; the rest as in
    `slots.Slots` and `slots.attend`. instructions: see `native.level`."""
    assert NATIVE is not None, "compiled kernels"
    queries, rows = queries.float().contiguous(), rows.contiguous()
    count, heads, dim = queries.shape
    page, lanes = kept.keys.shape[2], kept.table.shape[0]
    slots, group = int(kept.counts.max()), heads // lanes
    assert kept.positions.stride(1) == 1
    assert kept.weights is None or kept.weights.stride() == kept.positions.stride()
    tensors = [kept.table, kept.sealed, kept.counts]
    assert all(x.is_contiguous() and x.dtype == torch.int64 for x in tensors)
    turn: tuple[int, int, int, int] = (0, 0, 0, 0)
    if kept.turns is not None:
        counts, cos, sin = kept.turns.counts.contiguous(), kept.turns.cos, kept.turns.sin
        assert counts.shape == (lanes, slots)
        assert cos.is_contiguous()
        assert sin.is_contiguous()
        turn = cos.shape[1], cos.data_ptr(), sin.data_ptr(), counts.data_ptr()
    learned = None if learned is None else learned.float().contiguous()
    out = torch.empty(count, heads, dim)
    scores = torch.empty(lanes * count * group * (-(-slots // page) * page))
    mass = recent = used = None
    if seen is not None:
        mass = torch.zeros(lanes, slots) if seen.wants_mass else None
        recent = None if seen.since is None else torch.zeros(lanes, group, slots)
        used = None if seen.page is None else torch.full((lanes, slots), -1, dtype=torch.int64)
        assert seen.page in (None, page)
    NATIVE.kept(
        level(instructions),
        torch.get_num_threads(),
        *(queries.data_ptr(), rows.data_ptr(), count, heads, lanes, dim, page, slots, kept.table.shape[1]),
        *(x.data_ptr() for x in tensors),
        *(DENSE[kept.keys.dtype], kept.keys.data_ptr(), kept.values.data_ptr()),
        [] if kept.coded is None else list(operands(kept.coded, 0, dim)),
        *(kept.positions.data_ptr(), address(kept.weights), kept.positions.stride(0)),
        *turn,
        *(window or 0, sinks, softcap or 0.0, address(learned), out.data_ptr()),
        *(address(mass), address(recent), 0 if seen is None else seen.since or 0),
        *(address(used), 0.0 if seen is None else seen.share, scores.data_ptr()),
    )
    if seen is not None:
        seen.take(mass, recent, used)
    return out


def serves(dtype: torch.dtype, dim: int, page: int, rows: int, coded: str | None) -> bool:
    """Whether this kernel does such lanes. coded: the format of sealed pages, which may be as dense as the others;
    None: there are none."""
    fits = dtype in DENSE and dim % UNIT == 0 and page % UNIT == 0 and rows <= UNIT
    return NATIVE is not None and fits and (coded in (None, "dense") or coded in CODED)
