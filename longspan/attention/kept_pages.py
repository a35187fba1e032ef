"""Attention where eviction decides what stays, and each query reads a few pages of that."""

from __future__ import annotations

import numpy as np
import torch

from longspan.attention.kept import Asked, turned
from longspan.attention.placement import Placement, Slot, ranks
from longspan.attention.rotation import Rotation
from longspan.cache.lanes import Lanes
from longspan.cache.summaries.choose import choose
from longspan.kernels import slots
from longspan.kernels.cpu import slotted
from longspan.rope.rotate import turn

NEVER = 1 << 40


class LaneReader:
    """One segment in one layer of the lanes; the counterpart of `select.Reader`, whose pages follow the text."""

    def __init__(self, lanes: Lanes, index: int, start: int, rotation: Rotation | None, placement: Placement) -> None:
        assert lanes.pool.select is not None
        self.lanes, self.index, self.start, self.rotation = lanes, index, start, rotation
        self.placement, self.selection = placement, lanes.pool.select
        self.page, self.device = lanes.pool.layout.page, lanes.pool.device
        self.positions = lanes.notes.positions(index)  # [G, S]
        self.columns = int(-(-lanes.counts[index].max() // self.page))

    def attend(self, asked: Asked, choosing: np.ndarray) -> torch.Tensor:
        """[R, H, D] in float32; the lanes are told what attention gave. choosing [R]: whether a query chooses pages."""
        if self.selection.reading == "token":
            choosing = np.ones_like(choosing)
        own = self.lanes.targets(len(asked.rows), self.lanes.counts - len(asked.rows))[self.index]
        self.own = torch.from_numpy(own).to(self.device)
        rows = asked.rows.tolist()
        cuts = [0]
        for i in range(1, len(rows)):
            if rows[i] % self.page == 0 or choosing[i] or choosing[i - 1]:
                cuts.append(i)
        outputs = []
        for a, b in zip(cuts, [*cuts[1:], len(rows)], strict=True):
            part = Asked(asked.queries[a:b], asked.rows[a:b], asked.softcap, asked.learned)
            always = self._always(rows[a])
            if choosing[a] and self.selection.pages is not None and self.lanes.sums.shape[2]:
                always |= self._chosen(part, always, self.own[:, a:b])
            outputs.append(self._read(part, always, self.own[:, a:b]))
        self.lanes.ask(self.index, asked.queries)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _paged(self, x: torch.Tensor, empty: int) -> torch.Tensor:
        """[G, S] of slots as [G, C, P] of the pages that any lane has."""
        missing = self.columns * self.page - x.shape[1]
        whole = torch.nn.functional.pad(x, (0, missing), value=empty) if missing > 0 else x
        return torch.unflatten(whole[:, : self.columns * self.page], 1, (self.columns, self.page))

    def _always(self, row: int) -> torch.Tensor:
        """bool [G, C]: pages that queries in the text page of `row` read in any case: those with a near token or one of
        the first, and those that nothing is known of."""
        positions = self._paged(self.positions, -1)
        near = row // self.page * self.page - self.selection.near + 1
        read = (positions >= near) | ((positions >= 0) & (positions < self.start + self.selection.sinks))
        summed = torch.from_numpy((self.lanes.sums[self.index] >= 0).sum(1)).to(self.device)
        known = torch.arange(self.columns, device=self.device) < summed[:, None]
        return read.any(2) | ~known

    def _chosen(self, asked: Asked, always: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """bool [G, C]: the best of the other pages for one query."""
        lanes, index = self.lanes, self.index
        assert lanes.pool.summaries is not None
        sums = torch.from_numpy(lanes.sums[index, :, : self.columns].copy()).to(self.device)  # others may have more
        ids = sums.clamp_min(0)
        kv_heads, known = ids.shape
        dim = asked.queries.shape[2]
        q = asked.queries[0].view(kv_heads, 1, -1, dim)  # [G, 1, g, D]
        if self.rotation is not None:
            rank = ranks(self.positions).gather(1, own)
            by = self.placement.toward(lanes.references[index, :, :known], asked.rows, rank, self.page)[
                ..., 0
            ]  # [G, C]
            cos, sin = self.rotation.by_tokens(by)
            square = self.rotation.angles.attention_factor**2
            q = turn(q, cos[:, :, None] * square, sin[:, :, None] * square)
        q = q.expand(-1, known, -1, -1).reshape(kv_heads * known, -1, dim)
        stored = {name: x.flatten(0, 1)[:, None] for name, x in lanes.pool.summaries.take(ids).items()}
        scores = self.selection.score(q, stored).view(kv_heads, known, -1).amax(2)  # over the query heads
        best = choose(scores[:, None], self.selection.pages or 0, always[:, :known] | (sums < 0))[:, 0]
        out = torch.zeros((kv_heads, self.columns + 1), dtype=torch.bool, device=self.device)
        return out.scatter(1, torch.where(best < 0, self.columns, best), True)[:, :-1]

    def _read(self, asked: Asked, read: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """All queries read the same pages, bool [G, C]."""
        lanes, index, policy = self.lanes, self.index, self.lanes.policy
        most = int(read.sum(1).max())
        numbers = torch.where(read, torch.arange(self.columns, device=self.device), NEVER).sort(1).values[:, :most]
        keys, values, at = lanes.pick(index, numbers.masked_fill(numbers >= NEVER, -1))
        positions = torch.nn.functional.pad(self.positions, (0, 1), value=-1).gather(1, at)
        weights = None
        if lanes.notes.weight is not None:
            weights = torch.nn.functional.pad(lanes.notes.weight[index], (0, 1), value=1.0).gather(1, at)
        q, k = asked.queries, keys
        if self.rotation is not None:
            if isinstance(self.placement, Slot):  # the distance in all that is kept, read or not
                placed = self.placement.place(self.positions, own, asked.rows, self.page)
                by = torch.nn.functional.pad(placed.keys, (0, 1)).gather(1, at)
            else:
                placed = self.placement.place(positions, own, asked.rows, self.page)
                by = placed.keys
            k = turn(k, *self.rotation.by(by, placed.unit))
            q = turned(q, placed.queries, self.rotation, lanes.groups)
        seen = slots.Seen(
            since=lanes.observed_from if "recent" in policy.needs else None,
            page=self.page if "used" in policy.needs else None,
            wants_mass="mass" in policy.needs,
        )
        work = slots.Slots(
            q, asked.rows, k, values, positions, weights, policy.window, policy.sinks, asked.softcap, asked.learned
        )
        out = slotted.attend(work, seen)
        lanes.notes.add(index, self._spread(seen, at), self.positions.shape[1])
        return out

    def _spread(self, seen: slots.Seen, at: torch.Tensor) -> slots.Seen:
        """What attention gave, by slot; what was not read got nothing."""
        room = self.positions.shape[1] + 1  # the last for pages that are none
        whole = slots.Seen()
        if seen.mass is not None:
            whole.mass = seen.mass.new_zeros((len(at), room)).scatter(1, at, seen.mass)[:, :-1]
        if seen.recent is not None:
            wide = at[:, None].expand(-1, seen.recent.shape[1], -1)
            whole.recent = seen.recent.new_zeros((*wide.shape[:2], room)).scatter(2, wide, seen.recent)[..., :-1]
        if seen.used is not None:
            whole.used = seen.used.new_full((len(at), room), -1).scatter(1, at, seen.used)[:, :-1]
        return whole
