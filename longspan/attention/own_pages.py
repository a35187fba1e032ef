"""Attention of queries of which each reads pages of its own: where they lie, or gathered."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from longspan.attention.kept import Asked
from longspan.attention.placement import Placed
from longspan.attention.rotation import Rotation
from longspan.cache.group import Group
from longspan.cache.pool import Pool
from longspan.kernels import slots
from longspan.kernels.cpu import kept, slotted
from longspan.rope.rotate import turn


@dataclasses.dataclass(frozen=True)
class OwnPages:
    """What one query of each of B lanes reads of a layer of the group. columns [B, n]: ascending, −1 at the end where
    they are fewer. lanes [B]: of which KV head. positions [B, n·P]: of their slots in the text; −1: the query does not
    see it. placed: where these stand; None: nothing turns."""

    pool: Pool
    group: Group
    index: int
    rotation: Rotation | None
    columns: torch.Tensor
    lanes: torch.Tensor
    positions: torch.Tensor
    placed: Placed | None

    def gathered(self, asked: Asked, seen: slots.Seen) -> torch.Tensor:
        """[1, B·g, D] in float32. asked: the queries [1, B·g, D], turned. seen: is told what each slot was given."""
        keys, values = self.group.open(self.pool, self.index, self.columns, self.lanes)
        if self.placed is not None and self.rotation is not None:
            keys = turn(keys, *self.rotation.by(self.placed.keys, self.placed.unit))
        work = slots.Slots(
            *(asked.queries, asked.rows, keys, values, self.positions), softcap=asked.softcap, learned=asked.learned
        )
        return slotted.attend(work, seen)

    def where_they_lie(self, asked: Asked, seen: slots.Seen) -> torch.Tensor:
        """As `gathered`, by the compiled kernel; pages in a file are taken out of it, each once for all queries."""
        columns, placed = self.columns, self.placed
        ids = torch.from_numpy(np.ascontiguousarray(self.group.live[self.index]))
        table = ids[self.lanes[:, None], columns.clamp_min(0)]
        old, coded = (columns >= 0) & (columns < self.group.sealed), self.pool.coded()
        if coded is None and bool(old.any()):
            coded, table[old] = self.pool.taken(table[old])
        counts = (columns >= 0).sum(1) * self.pool.layout.page
        most, turns = int(counts.max()), None
        if placed is not None and self.rotation is not None:
            turns = kept.Turns(placed.keys[:, :most], *self.rotation.table(placed.keys, placed.unit))
        pages = kept.Kept(
            table=table,
            sealed=old.sum(1),
            counts=counts,
            keys=self.pool.keys,
            values=self.pool.values,
            coded=coded,
            positions=self.positions,
            weights=None,
            turns=turns,
        )
        out = kept.attend(pages, asked.queries, asked.rows, softcap=asked.softcap, learned=asked.learned, seen=seen)
        if seen.mass is not None:
            seen.mass = torch.nn.functional.pad(seen.mass, (0, self.positions.shape[1] - most))
        return out
