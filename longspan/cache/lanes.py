"""The lanes of layers where eviction decides what stays: slots with positions of their own, packed in pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from longspan.cache.eviction.merging import merged
from longspan.cache.eviction.view import Keep, Policy, View
from longspan.cache.pages import Pages
from longspan.cache.pool import Pool
from longspan.kernels.slots import Seen

Turn = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""turn(x [..., n, D], by [..., n]): x turned further by so many tokens, multiples of P."""

NOTES = ("position", "weight", "mass", "used", "recent")


def _stay(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    return x


class Lanes:
    """L layers of G lanes each. Slot i of a lane lies in its page i // P, at i % P; the newest token is the last.

    table [L, G, columns]: page ids, −1 beyond a lane's pages. counts [L, G]: slots that hold a token. Per slot, with
    room to spare at the end: position [L, G, S] in the text, −1 where nothing is held; weight, the tokens that it
    stands for; and what attention gave it since it came (`mass`), from the newest queries (`recent`, per query head),
    and when last (`used`), each only where the policy asks for it.

    turns: for each layer, turn(x [..., n, D], by [..., n]) as if x stood so many tokens further on; whoever attends
    sets it. observed_from: text position of the first query that `recent` is to count.
    """

    def __init__(self, layers: tuple[int, ...], pool: Pool, policy: Policy) -> None:
        self.layers, self.pool, self.policy = layers, pool, policy
        layout = pool.layout
        self.groups = layout.heads // layout.kv_heads
        self.table = np.empty((len(layers), layout.kv_heads, 0), dtype=np.int64)
        self.counts = np.zeros((len(layers), layout.kv_heads), dtype=np.int64)
        self.turns: list[Turn] = [_stay] * len(layers)
        self.observed_from = self.query_count = 0
        self._notes = 0  # bytes of what is known of slots
        self._fresh(0)
        self.query_sum = self.query_square = None
        if "queries" in policy.needs:
            size = (len(layers), layout.heads, layout.head_dim)
            self.query_sum = torch.zeros(size, device=pool.device)
            self.query_square = torch.zeros((*size, layout.head_dim), device=pool.device)

    def _fresh(self, slots: int) -> None:
        size, device = (*self.counts.shape, slots), self.pool.device
        self.position = torch.full(size, -1, dtype=torch.int64, device=device)
        self.weight = torch.ones(size, device=device)
        self.mass = torch.zeros(size, device=device) if "mass" in self.policy.needs else None
        self.used = torch.full(size, -1, dtype=torch.int64, device=device) if "used" in self.policy.needs else None
        wide = (*self.counts.shape, self.groups, slots)
        self.recent = torch.zeros(wide, device=device) if "recent" in self.policy.needs else None

    def fork(self) -> Lanes:
        """A twin with pages of its own: slots move within a lane's pages, so these are not shared."""
        twin = Lanes(self.layers, self.pool, self.policy)
        twin.table = self.table.copy()
        held = self.table >= 0
        twin.table[held] = self.pool.claim(np.full(int(held.sum()), -1))
        old, new = (torch.from_numpy(table[held]).to(self.pool.device) for table in (self.table, twin.table))
        for buffer in (self.pool.keys, self.pool.values):
            buffer[new] = buffer[old]
        twin.counts, twin.turns = self.counts.copy(), list(self.turns)
        twin.observed_from, twin.query_count = self.observed_from, self.query_count
        for name in (*NOTES, "query_sum", "query_square"):
            tensor = getattr(self, name)
            setattr(twin, name, None if tensor is None else tensor.clone())
        twin._account()
        return twin

    def outline(self) -> list[Any]:
        """What `restore` needs to know before it is given the arrays."""
        return [self.table.shape[2], self.counts.tolist(), self.observed_from, self.query_count]

    def arrays(self) -> list[torch.Tensor]:
        """What is known of slots and queries, in a fixed order."""
        every = (getattr(self, name) for name in (*NOTES, "query_sum", "query_square"))
        return [array for array in every if array is not None]

    def held(self) -> list[tuple[Pages, np.ndarray]]:
        """Where the pages lie: ids [n] of each store, in the order of lanes and of slots."""
        return [(self.pool, self.table[self.table >= 0])]

    def restore(self, outline: list[Any], fill: Callable[[torch.Tensor], None]) -> None:
        """Own as many pages as lanes that were saved; whoever calls fills them. fill: reads an array in place."""
        columns, counts, self.observed_from, self.query_count = outline
        self.counts = np.asarray(counts, dtype=np.int64)
        self.table = np.full((*self.counts.shape, columns), -1, dtype=np.int64)
        wanted = np.arange(columns) < self._columns(self.counts)[..., None]
        self.table[wanted] = self.pool.claim(np.full(int(wanted.sum()), -1))
        self._fresh(columns * self.pool.layout.page)
        self._account()
        for array in self.arrays():
            fill(array)

    @property
    def owned(self) -> int:
        """Pages."""
        return int((self.table >= 0).sum())

    def missing(self, tokens: int) -> int:
        """Pages that have to be claimed for so many more tokens in every lane."""
        return int((self._columns(self.counts + tokens) - self._columns(self.counts)).sum())

    def append(self, first: int, tokens: int) -> None:
        """Make room for the tokens at text positions `first` and on; they are written by whoever attends."""
        page = self.pool.layout.page
        before, after = self._columns(self.counts), self._columns(self.counts + tokens)
        columns = int(after.max())
        if columns > self.table.shape[2]:
            room = max(columns, self.table.shape[2] * 3 // 2)
            wider = np.full((*self.table.shape[:2], room), -1, dtype=np.int64)
            wider[:, :, : self.table.shape[2]] = self.table
            self.table = wider
            self._widen(room * page)
        fresh = (np.arange(columns) >= before[..., None]) & (np.arange(columns) < after[..., None])
        self.table[:, :, :columns][fresh] = self.pool.claim(np.full(int(fresh.sum()), -1))
        at = self.targets(tokens, self.counts)
        index = torch.from_numpy(at).to(self.pool.device)
        positions = torch.arange(first, first + tokens, device=self.pool.device).expand(index.shape)
        self.position.scatter_(2, index, positions)
        self.weight.scatter_(2, index, 1.0)
        self.counts = self.counts + tokens
        self.query_count += tokens

    def targets(self, tokens: int, counts: np.ndarray) -> np.ndarray:
        """Slots [L, G, T] of the tokens that come after the first `counts` of each lane."""
        return counts[..., None] + np.arange(tokens)

    def _columns(self, counts: np.ndarray) -> np.ndarray:
        return -(-counts // self.pool.layout.page)

    def _widen(self, slots: int) -> None:
        old = {name: getattr(self, name) for name in NOTES}
        self._fresh(slots)
        for name, tensor in old.items():
            if tensor is not None:
                getattr(self, name)[..., : tensor.shape[-1]] = tensor
        self._account()

    def _account(self) -> None:
        """What is known of slots counts as memory of the cache too."""
        size = sum(x.nbytes for x in (getattr(self, name) for name in NOTES) if x is not None)
        self.pool.budget.take(size - self._notes)
        self._notes = size

    def stored(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values [G, S, D] of a layer as they are stored, and positions [G, S]; S: of the fullest lane."""
        columns = int(self._columns(self.counts[index]).max())
        ids = torch.from_numpy(np.maximum(self.table[index, :, :columns], 0)).to(self.pool.device)
        keys = self.pool.keys[ids].transpose(2, 3).flatten(1, 2)
        values = self.pool.values[ids].flatten(1, 2)
        slots = int(self.counts[index].max())
        return keys[:, :slots], values[:, :slots], self.position[index, :, :slots]

    def note(self, index: int, seen: Seen, slots: int) -> None:
        """Add what attention gave to the first `slots` slots of a layer."""
        if self.mass is not None and seen.mass is not None:
            self.mass[index, :, :slots] += seen.mass
        if self.recent is not None and seen.recent is not None:
            self.recent[index, :, :, :slots] += seen.recent
        if self.used is not None and seen.used is not None:
            self.used[index, :, :slots] = torch.maximum(self.used[index, :, :slots], seen.used)

    def ask(self, index: int, queries: torch.Tensor) -> None:
        """Add up the unrotated queries [T, H, D] of a layer, where the policy wants their mean and covariance."""
        if self.query_sum is not None and self.query_square is not None:
            self.query_sum[index] += queries.sum(0)
            self.query_square[index] += torch.einsum("thd,the->hde", queries, queries)

    def evict(self, following: int) -> None:
        """Let the policy decide for every layer what stays, move that together, and free the pages left over.

        following: text position of the next token.
        """
        for index in range(len(self.layers)):
            view = self._view(index, following)
            self._move(index, self.policy.decide(view), view)
        if self.recent is not None:
            self.recent.zero_()

    def _view(self, index: int, following: int) -> View:
        stored, values, positions = self.stored(index)
        slots = positions.shape[1]
        wanted = "keys" in self.policy.needs or self.policy.merge
        keys = self.turns[index](stored.float(), self._page_of(positions)) if wanted else None
        observed = following - self.observed_from
        mass, used, recent = (None if x is None else x[index, ..., :slots] for x in (self.mass, self.used, self.recent))
        mean = covariance = None
        if self.query_sum is not None and self.query_square is not None:
            dim = self.pool.layout.head_dim
            mean = (self.query_sum[index] / max(self.query_count, 1)).view(-1, self.groups, dim)
            square = (self.query_square[index] / max(self.query_count, 1)).view(-1, self.groups, dim, dim)
            covariance = square - mean[..., None] * mean[..., None, :]
        return View(
            layer=index,
            layers=len(self.layers),
            keys=keys,
            values=values.float(),
            positions=positions,
            length=following,
            weight=self.weight[index, :, :slots],
            mass=mass,
            seen=None if mass is None else (following - positions).clamp_min(1) * self.groups,
            recent=None if recent is None else recent / max(observed, 1),
            used=used,
            query_mean=mean,
            query_cov=covariance,
            turn=self.turns[index],
            page=self.pool.layout.page,
        )

    def _page_of(self, positions: torch.Tensor) -> torch.Tensor:
        """By how much stored keys must be turned to stand where they do in the text."""
        return positions.clamp_min(0) // self.pool.layout.page * self.pool.layout.page

    def _move(self, index: int, keep: Keep, view: View) -> None:
        """Pack what is kept into the lane's first pages. Nothing is turned or rounded unless slots merge."""
        page, pool = self.pool.layout.page, self.pool
        stored, values, positions = self.stored(index)
        held = keep.indices >= 0
        counts = held.sum(1).cpu().numpy()
        if bool((counts == self.counts[index]).all()):
            return
        at = keep.indices.clamp_min(0)
        wide = at[..., None].expand(-1, -1, stored.shape[2])
        weight = self.weight[index].gather(1, at)
        if keep.merge_into is None or view.keys is None:
            new_keys, new_values = stored.gather(1, wide), values.gather(1, wide)
        else:
            keys, means, weight = merged(view.keys, view.values, view.weight, keep)
            new_keys = self.turns[index](keys, -self._page_of(positions.gather(1, at))).to(stored.dtype)
            new_values = means.to(values.dtype)
        columns = self._columns(counts)
        for lane in range(len(counts)):
            row = self.table[index, lane]
            surplus = row[columns[lane] :]
            pool.release(surplus[surplus >= 0])
            surplus[:] = -1
            ids = torch.from_numpy(row[: columns[lane]].copy()).to(pool.device)
            room = (0, 0, 0, int(columns[lane]) * page - int(counts[lane]))
            for buffer, new in ((pool.keys, new_keys), (pool.values, new_values)):
                packed = torch.nn.functional.pad(new[lane, : counts[lane]], room).view(-1, page, new.shape[2])
                buffer[ids] = packed.transpose(1, 2) if buffer is pool.keys else packed
        for name, empty in (("position", -1), ("mass", 0), ("used", -1)):
            tensor = getattr(self, name)
            if tensor is not None:
                new = torch.where(held, tensor[index].gather(1, at), empty)
                tensor[index].fill_(empty)
                tensor[index, :, : new.shape[1]] = new
        self.weight[index].fill_(1.0)
        self.weight[index, :, : weight.shape[1]] = torch.where(held, weight, 1.0)
        self.counts[index] = counts

    def close(self) -> None:
        """Free every page."""
        self.pool.release(self.table[self.table >= 0])
        self.table = self.table[:, :, :0]
        self.counts = np.zeros_like(self.counts)
        self._fresh(0)
        self._account()
        self.query_count = 0
        for total in (self.query_sum, self.query_square):
            if total is not None:
                total.zero_()
