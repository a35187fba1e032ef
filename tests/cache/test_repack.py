"""Sealed pages under eviction: holes, pages sealed anew, and what follows its token through both."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.cache.bytes import Layout, evicting
from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View
from longspan.cache.formats import FORMATS
from longspan.cache.pool import Pool
from longspan.cache.repack import REWRITES, settled
from longspan.cache.sequence import Sequence

P, D, G, TOKENS = 16, 8, 2, 3000
PACKED = [name for name in FORMATS if name != "dense"]
#: of numbers in [−1, 1]: the most that one sealing moves any
STEP = {"int8": 1.01 / 255, "fp8": 1.01 / 16, "int4": 1.01 / 15}


@dataclasses.dataclass(frozen=True)
class Fading(Budgeted):
    """Chance decides anew at every eviction; so tokens of a page go one after the other."""

    recent: int = 16
    constant: bool = False
    needs: ClassVar[tuple[str, ...]] = ("mass", "used", "keys")

    def score(self, view: View) -> torch.Tensor:
        assert view.keys is not None
        assert torch.isfinite(view.keys).all()
        assert torch.isfinite(view.values).all()
        chance = torch.rand(G, TOKENS, generator=torch.Generator().manual_seed(0 if self.constant else view.length))
        return forced(chance.gather(1, view.positions.clamp_min(0)), view, 0, self.recent)


class Lane:
    """A cache with one layer whose keys and values are known by text position."""

    def __init__(self, format: str, policy: Budgeted) -> None:
        self.format = FORMATS[format]()
        plain = Layout((None,), G, D, 4, P, self.format.bytes(P, D, torch.float32), heads=G)
        self.pool = Pool(evicting(plain, policy), 1 << 20, torch.float32, format=self.format, policy=policy)
        for slab in (self.pool, self.pool.sealed):
            assert slab is not None
            for buffer in slab.buffers.values():  # type: ignore[union-attr]
                if buffer.is_floating_point():
                    buffer.copy_(torch.full(buffer.shape, torch.nan))
        self.text = Sequence(self.pool)
        r = torch.Generator().manual_seed(1)
        self.keys, self.values = (torch.rand(G, TOKENS, D, generator=r) * 2 - 1 for _ in range(2))

    def read(self, tokens: int) -> None:
        lanes, first = self.text.lanes, self.text.length
        assert lanes is not None
        self.text.grow(tokens)
        at = lanes.targets(tokens, lanes.counts - tokens)[0]
        for lane in range(G):
            ids = torch.from_numpy(lanes.table[0, lane][at[lane] // P])
            self.pool.keys[ids, :, at[lane] % P] = self.keys[lane, first : first + tokens]
            self.pool.values[ids, at[lane] % P] = self.values[lane, first : first + tokens]
            slots = torch.from_numpy(at[lane])
            lanes.notes.mass[0, lane, slots] = torch.arange(first, first + tokens).float()  # type: ignore[index]
            lanes.notes.used[0, lane, slots] = torch.arange(first, first + tokens)  # type: ignore[index]
        self.text.tidy()
        for lane in range(G):  # what is left of a last page holds anything
            count = int(lanes.counts[0, lane])
            if count % P:
                self.pool.keys[int(lanes.table[0, lane, count // P]), :, count % P :] = torch.nan


@pytest.mark.parametrize("format", PACKED)
@pytest.mark.parametrize("constant", [False, True])
def test_everything_follows_its_token_and_codes_never_change(format: str, constant: bool, monkeypatch):
    lane = Lane(format, Fading(budget=160, constant=constant))
    pool, lanes = lane.pool, lane.text.lanes
    assert lanes is not None
    assert pool.sealed is not None
    fresh: set[int] = set()

    def claim(wanted: np.ndarray, real=pool.sealed.claim) -> np.ndarray:
        ids = real(wanted)
        fresh.update(ids.ravel().tolist())
        return ids

    def put(ids: np.ndarray, stored: dict[str, torch.Tensor], real=pool.sealed.put) -> None:
        for page in ids.tolist():
            fresh.remove(page)  # written once, when it is claimed, and never again
        real(ids, stored)

    monkeypatch.setattr(pool.sealed, "claim", claim)
    monkeypatch.setattr(pool.sealed, "put", put)
    while lane.text.length + 64 <= TOKENS:
        lane.read(64)
        sealed_pages = int(lanes.sealed.sum())
        keys, values, positions = lanes.stored(0)
        held = positions >= 0
        for g in range(G):
            at = positions[g][held[g]]
            assert (at.diff() > 0).all()
            times = lanes.notes.rewrites[0, g, : held.shape[1]][held[g]]  # type: ignore[index]
            assert times.max() <= REWRITES
            sealed = torch.arange(held.shape[1])[held[g]] < int(lanes.sealed[0, g]) * P
            moved = (keys[g][held[g]] - lane.keys[g, at]).abs().amax(-1)
            assert moved[~sealed].max() == 0.0
            assert (moved[sealed] <= (times[sealed] + 1) * STEP[format]).all()
            assert ((values[g][held[g]] - lane.values[g, at]).abs().amax(-1) <= (times + 1) * STEP[format]).all()
            assert torch.equal(lanes.notes.mass[0, g, : held.shape[1]][held[g]], at.float())  # type: ignore[index]
            assert torch.equal(lanes.notes.used[0, g, : held.shape[1]][held[g]], at)  # type: ignore[index]
            inside = int(held[g, : int(lanes.sealed[0, g]) * P].sum())
            assert int(lanes.sealed[0, g]) <= pool.layout.most_sealed(inside)
            assert P <= int(lanes.counts[0, g]) - int(lanes.sealed[0, g]) * P < 2 * P  # a page late
            whole = torch.unflatten(held[g, : int(lanes.sealed[0, g]) * P], 0, (-1, P))
            assert whole.any(1).all()  # a page without tokens is free
        assert pool.owned == int((lanes.table >= 0).sum()) - sealed_pages
        assert pool.sealed.owned == sealed_pages
        assert pool.owned_bytes == lane.text.bytes + lanes.notes.bytes
    if not constant:
        assert lanes.rewritten > 0
    assert pool.budget.peak <= pool.layout.bytes(TOKENS)
    twin = lane.text.fork()
    assert pool.sealed.owned == 2 * sealed_pages
    assert twin.lanes is not None
    for one, other in zip(lanes.stored(0), twin.lanes.stored(0), strict=True):
        assert torch.equal(one[held], other[held])
    twin.clear()
    lane.text.clear()
    assert pool.owned_bytes == 0
    assert pool.free == pool.budget.limit // pool.page_bytes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), gone=st.floats(0.1, 0.9), sinks=st.integers(0, 4))
def test_slots_stay_in_order_within_the_bound_and_are_sealed_anew_twice_at_most(seed: int, gone: float, sinks: int):
    """Pages are added and lose tokens for ever; those of the first page, few as they are, are never given up."""
    layout = Layout((None,), 1, D, 4, P)
    r = np.random.default_rng(seed)
    names = np.empty(0, dtype=np.int64)  # of the token in each slot; −1: none
    times = np.empty(0, dtype=np.int64)
    lost = made = 0
    for number in range(60):
        names = np.concatenate((names, np.arange(number * P, (number + 1) * P)))
        times = np.concatenate((times, np.zeros(P, dtype=np.int64)))
        stays = (names >= 0) & ((r.random(len(names)) >= gone * r.random()) | (names < sinks))
        kept = np.flatnonzero(stays)
        columns = settled(kept, len(names) // P, layout, times)
        slots = np.concatenate([np.empty(0, dtype=np.int64), *(column.sources for column in columns)])
        lost += len(kept) - int((slots >= 0).sum())
        assert len(columns) <= layout.most_sealed(int((slots >= 0).sum()))
        assert (np.diff(slots[slots >= 0]) > 0).all()
        assert set(slots[slots >= 0]) <= set(kept)
        for column in columns:
            assert column.held > 0
            if column.page is None:
                made += 1
                assert column.rewrites < REWRITES
            else:
                assert set(column.sources) - {-1} == set(kept[kept // P == column.page])
        known = np.repeat([column.rewrites + (column.page is None) for column in columns], P).astype(np.int64)
        names, times = np.where(slots >= 0, names[slots], -1), np.where(slots >= 0, known, 0)
        assert set(range(sinks)) <= set(names)
    assert made or not lost
    assert times.max(initial=0) <= REWRITES


def test_the_emptiest_neighbours_are_sealed_together_first():
    layout = Layout((None,), 1, D, 4, P)
    held = [10, 3, 16, 4, 4, 9, 2]  # 48 tokens may have 6 pages
    kept = np.concatenate([np.arange(n) + P * at for at, n in enumerate(held)])
    columns = settled(kept, len(held), layout, np.zeros(len(held) * P, dtype=np.int64))
    assert [column.held for column in columns] == [10, 3, 16, 8, 9, 2]
    assert [column.page for column in columns] == [0, 1, 2, None, 5, 6]
    tired = np.zeros(len(held) * P, dtype=np.int64)
    tired[P * 3 : P * 5] = REWRITES  # what was sealed anew twice stays, and others must do
    columns = settled(kept, len(held), layout, tired)
    assert [column.held for column in columns] == [10, 3, 16, 4, 4, 11]
    everything = np.full(len(held) * P, REWRITES)
    columns = settled(kept, len(held), layout, everything)
    assert [column.held for column in columns] == [10, 3, 16, 4, 4, 9]  # the emptiest goes
