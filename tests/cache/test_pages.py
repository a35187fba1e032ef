"""The pool and the sequences: nothing is lost, nothing is counted twice, the limit is hard."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longspan.cache.bytes import Layout
from longspan.cache.pages import Budget
from longspan.cache.pool import PAGE_SIZES, Pool, Slab
from longspan.cache.sequence import Sequence
from longspan.errors import DoesNotFit, UsageError


def layout(windows: tuple[int | None, ...] = (None, None), page: int = 16, kv_heads: int = 2) -> Layout:
    return Layout(windows=windows, kv_heads=kv_heads, head_dim=4, element=4, page=page)


def pool(pages: int = 200, **kwargs) -> Pool:
    shape = layout(**kwargs)
    return Pool(shape, pages * shape.page_bytes, torch.float32)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 160])
def test_bytes_equal_the_formula_rounded_up_to_pages(tokens: int):
    """2 · layers · KV heads · head_dim · tokens · bytes, and KV heads are stored as they are, never repeated."""
    p = pool()
    sequence = Sequence(p)
    sequence.grow(tokens)
    rounded = -(-tokens // 16) * 16
    assert p.owned_bytes == p.peak_bytes == 2 * 2 * 2 * 4 * rounded * 4 == p.layout.bytes(tokens)
    assert sequence.groups[0].live.shape == (2, 2, rounded // 16)


def test_a_text_that_starts_anywhere_needs_pages_for_its_own_tokens_only():
    p = pool()
    sequence = Sequence(p, start=10_000_013)
    sequence.grow(20)
    assert p.owned == p.layout.bytes(20, 10_000_013) // p.page_bytes == 2 * 2 * 3  # 10,000,013 is 13 into its page


def test_the_limit_is_hard_and_failure_changes_nothing():
    p = pool(pages=16)
    one, two = Sequence(p), Sequence(p)
    one.grow(48)
    two.grow(16)
    before = (p.free, two.length, two.groups[0].count)
    with pytest.raises(DoesNotFit, match="are free") as caught:
        two.grow(17)
    assert caught.value.exit_code == 3
    assert (p.free, two.length, two.groups[0].count) == before == (0, 16, 1)


def test_claiming_looks_through_no_page_that_was_never_touched():
    slab = Slab({"one": ((1,), torch.uint8)}, Budget(100_000_000), torch.device("cpu"))
    first = slab.claim(np.full(3, -1))
    slab.release(first[1:2])
    tracemalloc.start()
    ids = slab.claim(np.full(4, -1))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids.tolist() == [1, 3, 4, 5]
    assert most < 100_000


def test_pages_that_are_wanted_and_any_are_not_the_same():
    slab = Slab({"one": ((1,), torch.uint8)}, Budget(100_000_000), torch.device("cpu"))
    assert sorted(slab.claim(np.array([3, -1, -1, -1, -1])).tolist()) == [0, 1, 2, 3, 4]
    assert len(set(slab.claim(np.array([5, 3, -1])).tolist())) == 3
    assert slab.owned == 8


def test_page_sizes():
    for size in PAGE_SIZES:
        assert pool(page=size).layout.page == size
    with pytest.raises(UsageError, match="choose one of 16, 32, 64, 128"):
        pool(page=48)


def test_pages_stay_consecutive_and_views_do_not_copy():
    p = pool()
    one, two = Sequence(p), Sequence(p)
    for _ in range(10):  # two texts that grow in turn
        one.grow(8, expect=80)
        two.grow(8, expect=80)
    for sequence in (one, two):
        for index in range(2):
            (run,) = sequence.groups[0].runs(p, index)
            assert run.keys.shape == (5, 2, 4, 16)
            assert run.values.shape == (5, 2, 16, 4)
            assert run.keys.untyped_storage().data_ptr() == p.keys.untyped_storage().data_ptr()


def test_scattered_pages_are_gathered_in_text_order():
    p = pool(pages=80)
    p.keys.copy_(torch.arange(80.0)[:, None, None].expand_as(p.keys))
    fence = [Sequence(p) for _ in range(10)]
    for s in fence:
        s.grow(16)
    for s in fence[::2]:
        s.clear()
    sequence = Sequence(p)
    sequence.grow(11 * 16)
    ids = sequence.groups[0].live[0]
    run = sequence.groups[0].runs(p, 0)
    keys = torch.cat([k for r in run for k, _ in r.blocks()])
    assert torch.equal(keys[:, :, 0, 0], torch.from_numpy(ids.T.astype(np.float32)))


def test_a_new_page_holds_no_stale_values():
    p = pool(pages=4)
    p.values.fill_(torch.nan)
    sequence = Sequence(p)
    sequence.grow(1)
    assert torch.equal(p.values, torch.zeros_like(p.values))


def test_window_layers_free_the_pages_that_left_and_stay_bounded():
    """At 64 times its window a window layer owns no more than at twice; the full layer owns all."""
    p = pool(pages=2000, windows=(32, None, 32))
    sequence = Sequence(p)
    window, full = sequence.groups
    most = 0
    for _ in range(64 * 32 // 8):
        sequence.grow(8, expect=64 * 32)
        most = max(most, window.count)
        sequence.tidy()
    assert most <= p.layout.layer_pages(32, 64 * 32, chunk=8) == 4
    assert window.count == 32 // 16
    assert full.count == 64 * 32 // 16
    assert p.owned == (2 * window.count + full.count) * 2
    sequence.clear()
    assert p.free == p.total


def test_fork_shares_whole_pages_and_copies_the_last():
    p = pool()
    sequence = Sequence(p)
    sequence.grow(40)
    p.keys[torch.from_numpy(sequence.groups[0].live[0, :, -1])] = 7.0
    owned = p.owned
    twin = sequence.fork()
    assert p.owned == owned + 2 * 2  # one page per lane
    assert np.array_equal(twin.groups[0].live[:, :, :2], sequence.groups[0].live[:, :, :2])
    assert not set(twin.groups[0].live[:, :, 2].ravel()) & set(sequence.groups[0].live[:, :, 2].ravel())
    assert (p.keys[torch.from_numpy(twin.groups[0].live[0, :, -1])] == 7.0).all()
    sequence.clear()
    assert p.owned == owned
    twin.clear()
    assert p.free == p.total


@settings(max_examples=60, deadline=None)
@given(
    windows=st.lists(st.sampled_from([None, 1, 7, 16, 40]), min_size=1, max_size=3).map(tuple),
    chunks=st.lists(st.integers(1, 70), min_size=1, max_size=12),
    start=st.integers(0, 200),
)
def test_peak_never_exceeds_what_the_formula_says(windows, chunks, start):
    p = pool(pages=4000, windows=windows)
    sequence = Sequence(p, start)
    for n in chunks:
        sequence.grow(n)
        sequence.tidy()
    assert p.peak_bytes <= p.layout.bytes(sum(chunks), start, max(chunks))
    following = start + sequence.length
    for group in sequence.groups:
        first_visible = start if group.window is None else max(start, following - group.window + 1)
        if first_visible < following:
            assert group.first <= first_visible // 16
        assert (group.first + group.count) * 16 >= following


class PoolMachine(RuleBasedStateMachine):
    """Sequences that grow, tidy, fork, clear in any order: free + owned is the total, and no page has two texts
    unless both hold the same beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool(pages=60, windows=(None, 20))
        self.sequences: list[Sequence] = []

    @rule(start=st.integers(0, 40))
    def open(self, start: int) -> None:
        self.sequences.append(Sequence(self.pool, start))

    @precondition(lambda self: self.sequences)
    @rule(which=st.integers(0, 9), tokens=st.integers(1, 50), expect=st.integers(0, 200))
    def grow(self, which: int, tokens: int, expect: int) -> None:
        sequence = self.sequences[which % len(self.sequences)]
        free, length = self.pool.free, sequence.length
        try:
            sequence.grow(tokens, expect)
        except DoesNotFit:
            assert (self.pool.free, sequence.length) == (free, length)

    @precondition(lambda self: self.sequences)
    @rule(which=st.integers(0, 9))
    def tidy(self, which: int) -> None:
        self.sequences[which % len(self.sequences)].tidy()

    @precondition(lambda self: self.sequences)
    @rule(which=st.integers(0, 9))
    def fork(self, which: int) -> None:
        try:
            self.sequences.append(self.sequences[which % len(self.sequences)].fork())
        except DoesNotFit:
            return

    @precondition(lambda self: self.sequences)
    @rule(which=st.integers(0, 9))
    def clear(self, which: int) -> None:
        self.sequences.pop(which % len(self.sequences)).clear()

    @invariant()
    def all_pages_are_accounted_for(self) -> None:
        owners = np.zeros(self.pool.total, dtype=int)
        for sequence in self.sequences:
            for group in sequence.groups:
                np.add.at(owners, group.live.ravel(), 1)
        assert np.array_equal(owners, self.pool._owners)
        assert self.pool.owned == int((owners > 0).sum())
        assert self.pool.free + self.pool.owned == self.pool.total

    def teardown(self) -> None:
        for sequence in self.sequences:
            sequence.clear()
        assert self.pool.free == self.pool.total
        assert not self.pool._reserved.any()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
