"""What eviction leaves of lanes, packed anew: written slots side by side, sealed pages with holes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from longspan.cache.bytes import Layout
from longspan.cache.digest import page_of
from longspan.cache.eviction.merging import merged
from longspan.cache.eviction.view import Keep, View

if TYPE_CHECKING:
    from longspan.cache.lanes import Lanes

REWRITES = 2
"""How often a slot may be sealed anew. Each time its number moves by up to half a step again."""


@dataclasses.dataclass
class Column:
    """A sealed page to be. sources [P]: old slots, −1 for holes. page: the column that stays as it is; None: it is made
    anew. rewrites: the most that any of its slots was sealed anew."""

    sources: np.ndarray
    page: int | None
    rewrites: int

    @property
    def held(self) -> int:
        return int((self.sources >= 0).sum())


def pack(lanes: Lanes, index: int, keep: Keep, view: View) -> None:
    """Pack what is kept into the lane's first pages. Nothing is turned or rounded but slots that others join."""
    page, pool = lanes.pool.layout.page, lanes.pool
    stored, values, positions = lanes.stored(index)
    held = keep.indices >= 0
    counts = held.sum(1).cpu().numpy()
    if bool((counts == lanes.counts[index]).all()):
        return
    at = keep.indices.clamp_min(0)
    wide = at[..., None].expand(-1, -1, stored.shape[2])
    weight = None if lanes.notes.weight is None else lanes.notes.weight[index].gather(1, at)
    new_keys, new_values = stored.gather(1, wide), values.gather(1, wide)
    if keep.merge_into is not None and view.keys is not None:
        keys, means, weight = merged(view.keys, view.values, view.weight, keep)
        keys = lanes.turns[index](keys, -page_of(lanes, positions.gather(1, at)))
        joins = keep.merge_into >= 0
        joined = torch.zeros_like(positions).scatter_add(1, keep.merge_into.clamp_min(0), joins.long())
        anew = (joined.gather(1, at) > 0)[..., None]
        new_keys = torch.where(anew, keys.to(stored.dtype), new_keys)
        new_values = torch.where(anew, means.to(values.dtype), new_values)
    columns = lanes.columns(counts)
    for lane in range(len(counts)):
        row = lanes.table[index, lane]
        surplus = row[columns[lane] :]
        pool.release(surplus[surplus >= 0])
        surplus[:] = -1
        ids = torch.from_numpy(row[: columns[lane]].copy()).to(pool.device)
        room = (0, 0, 0, int(columns[lane]) * page - int(counts[lane]))
        for buffer, new in ((pool.keys, new_keys), (pool.values, new_values)):
            packed = torch.nn.functional.pad(new[lane, : counts[lane]], room).view(-1, page, new.shape[2])
            buffer[ids] = packed.transpose(1, 2) if buffer is pool.keys else packed
    lanes.rearrange(index, [row[row >= 0] for row in keep.indices.cpu().numpy()])
    if lanes.notes.weight is not None and weight is not None:
        lanes.notes.weight[index, :, : weight.shape[1]] = torch.where(held, weight, 1.0)


def repack(lanes: Lanes, index: int, keep: Keep) -> None:
    """Keep what is to stay of a layer: written slots move together, and full pages of them are sealed, one page late.

    What goes from a sealed page leaves a hole; a page without tokens is freed. Where fewer than two thirds of the slots
    are held (`Layout.most_sealed`), neighbours that fit in one page less are sealed anew, the emptiest first. A slot is
    sealed anew at most twice; where only a third time would help, the emptiest page's tokens go too, so that a lane may
    keep fewer tokens than its policy asked for. The lane's first page stays: attention rests on a text's first tokens.
    """
    pool, page = lanes.pool, lanes.pool.layout.page
    assert pool.sealed is not None
    assert pool.format is not None
    assert lanes.notes.rewrites is not None
    keys, values, _ = lanes.stored(index)
    sources: list[np.ndarray] = []
    again: list[np.ndarray] = []
    for lane, indices in enumerate(keep.indices.cpu().numpy()):
        kept, sealed = indices[indices >= 0], int(lanes.sealed[index, lane])
        columns = settled(kept, sealed, pool.layout, lanes.notes.rewrites[index, lane].cpu().numpy())
        loose = kept[kept >= sealed * page]
        fresh = max(len(loose) // page - 1, 0)
        columns += [Column(loose[n * page : (n + 1) * page], None, -1) for n in range(fresh)]
        loose = loose[fresh * page :]
        made = [column for column in columns if column.page is None]
        stored = None
        if made:
            at = torch.from_numpy(np.stack([column.sources for column in made])).to(pool.device)
            valid = at >= 0
            # may find a number that the format cannot hold, so nothing is changed before
            stored = pool.format.seal(
                keys[lane][at.clamp_min(0)].transpose(1, 2).contiguous(), values[lane][at.clamp_min(0)], valid
            )
        row = lanes.table[index, lane]
        written = row[sealed:][row[sealed:] >= 0].copy()
        needed = -(-len(loose) // page)
        stay = {column.page for column in columns}
        pool.release(written[needed:])
        pool.sealed.release(row[[n for n in range(sealed) if n not in stay]])
        ids = np.full(len(columns), -1, dtype=np.int64)
        ids[[n for n, column in enumerate(columns) if column.page is not None]] = [
            row[column.page] for column in columns if column.page is not None
        ]
        if stored is not None:
            taken = pool.sealed.claim(np.full(len(made), -1))
            pool.sealed.put(taken, stored)
            ids[ids < 0] = taken
        reused = written[:needed]
        _write(lanes, keys[lane], values[lane], loose, reused)
        row[:] = -1
        row[: len(ids)] = ids
        row[len(ids) : len(ids) + needed] = reused
        lanes.sealed[index, lane] = len(columns)
        sources.append(np.concatenate([*(column.sources for column in columns), loose]))
        times = [column.rewrites + 1 if column.page is None else 0 for column in columns]
        again.append(np.repeat(np.asarray(times, dtype=np.uint8), page))
        lanes.rewritten += sum(column.held for column in made if column.rewrites >= 0)
    lanes.rearrange(index, sources)
    for lane, new in enumerate(again):
        noted = lanes.notes.rewrites[index, lane, : len(new)]
        noted.copy_(torch.maximum(noted, torch.from_numpy(new).to(pool.device)))


def settled(kept: np.ndarray, sealed: int, layout: Layout, rewrites: np.ndarray) -> list[Column]:
    """The pages that hold what stays of the first `sealed` of a lane. kept: slots. rewrites: of each slot."""
    page, columns = layout.page, []
    for number in range(sealed):
        here = kept[(kept >= number * page) & (kept < (number + 1) * page)]
        if len(here):
            sources = np.full(page, -1, dtype=np.int64)
            sources[here - number * page] = here
            columns.append(Column(sources, number, int(rewrites[here].max())))
    while len(columns) > layout.most_sealed(sum(column.held for column in columns)):
        fitting = []
        for size in (2, 3):
            for at in range(len(columns) - size + 1):
                some = columns[at : at + size]
                held = sum(column.held for column in some)
                if held <= (size - 1) * page and all(column.rewrites < REWRITES for column in some):
                    fitting.append((held, at, size))
        if fitting:
            _, at, size = min(fitting)
            columns[at : at + size] = _joined(columns[at : at + size], page)
        else:
            del columns[min(range(1, len(columns)), key=lambda n: columns[n].held)]
    return columns


def _joined(columns: list[Column], page: int) -> list[Column]:
    """The same slots side by side, in as few pages as they need."""
    slots = np.concatenate([column.sources[column.sources >= 0] for column in columns])
    rewrites = max(column.rewrites for column in columns)
    filled = np.pad(slots, (0, -len(slots) % page), constant_values=-1)
    return [Column(sources, None, rewrites) for sources in filled.reshape(-1, page)]


def _write(lanes: Lanes, keys: torch.Tensor, values: torch.Tensor, slots: np.ndarray, ids: np.ndarray) -> None:
    """Pack slots of keys and values [S, D] into written pages."""
    pool, page = lanes.pool, lanes.pool.layout.page
    at, pages = torch.from_numpy(slots).to(pool.device), torch.from_numpy(ids).to(pool.device)
    room = (0, 0, 0, len(ids) * page - len(slots))
    for buffer, new in ((pool.keys, keys[at]), (pool.values, values[at])):
        packed = torch.nn.functional.pad(new, room).view(-1, page, new.shape[1])
        buffer[pages] = packed.transpose(1, 2) if buffer is pool.keys else packed
