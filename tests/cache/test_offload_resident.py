"""Residency: the budget is hard, the least recently used leave first, what is asked for does not."""

from __future__ import annotations

import collections
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from page_files import KEY, count_reads, filled, record, rows

from longspan.cache.offload import PageFile, Resident
from longspan.errors import StoreError, UsageError


def test_a_budget_that_holds_nothing_is_refused(tmp_path: Path):
    pages = filled(tmp_path)
    with pytest.raises(UsageError, match="99 bytes for resident pages hold none of 100 bytes"):
        Resident(pages, 99)
    pages.close()


def test_what_is_resident_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = count_reads(monkeypatch)
    resident = Resident(filled(tmp_path), 450)  # four records
    resident.get([1, 2, 3])
    assert calls == [3]
    assert torch.equal(resident.get([3, 1, 3]), rows(100, [3, 1, 3]))
    assert calls == [3]
    assert (resident.hits, resident.misses) == (2, 3)
    resident.get([5, 6])  # 2, the least recently used, leaves
    assert resident.resident.tolist() == [1, 3, 5, 6]
    out = torch.empty(2, 100, dtype=torch.uint8)
    assert resident.get([1, 2], out) is out
    assert torch.equal(out, rows(100, [1, 2]))
    assert resident.held_bytes == 400
    resident.file.close()


def test_what_is_asked_for_does_not_leave_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """0 is the least recently used, and is asked for together with more than there is room for."""
    calls = count_reads(monkeypatch)
    resident = Resident(filled(tmp_path), 300)
    for i in (0, 1, 2):
        resident.get([i])
    calls.clear()
    assert torch.equal(resident.get([9, 0, 7, 5, 5, 6, 9]), rows(100, [9, 0, 7, 5, 5, 6, 9]))
    assert sum(calls) == 4
    assert resident.resident.tolist() == [0, 7, 9]
    assert resident.held_bytes == 300
    resident.file.close()


def test_a_page_that_cannot_be_read_never_becomes_resident(tmp_path: Path):
    pages = filled(tmp_path)
    resident = Resident(pages, 300)
    resident.get([0, 1, 2])
    os.pwrite(pages._fd, bytes(100), pages._start + 400)
    for _ in range(2):
        with pytest.raises(StoreError, match="page 4 is damaged"):
            resident.get([2, 3, 4])
        assert 4 not in resident.resident
    assert torch.equal(resident.get([2, 3, 1]), rows(100, [2, 3, 1]))
    pages.close()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_many_at_once(tmp_path: Path, count: int):
    resident = Resident(filled(tmp_path, count=4), 300)
    resident.get([0, 1, 2])
    resident.extend(6)
    ids = [2, 3, 4, 7, 8, 9, 0][:count]
    resident.put(ids, rows(100, [50 + i for i in ids]))
    assert resident.resident.tolist()[-min(count, 3) :] == ids[-3:]
    assert torch.equal(resident.get(ids), rows(100, [50 + i for i in ids]))
    assert torch.equal(resident.get([1]), rows(100, [1]))
    resident.file.close()


class ResidentMachine(RuleBasedStateMachine):
    """Against an ordered dict: the same records are resident, in the same order, and all reads are right."""

    SIZE, COUNT, SLOTS = 24, 12, 5

    def __init__(self) -> None:
        super().__init__()
        self.pages = PageFile.create(tempfile.gettempdir(), self.SIZE, self.COUNT, KEY)
        self.resident = Resident(self.pages, self.SLOTS * self.SIZE + 7)
        self.seeds: dict[int, int] = {}
        self.model: collections.OrderedDict[int, None] = collections.OrderedDict()
        self.hits = self.misses = self.written = 0

    @rule(index=st.integers(0, COUNT - 1))
    def put(self, index: int) -> None:
        self.written += 1
        self.resident.put([index], record(self.SIZE, self.written)[None])
        self.seeds[index] = self.written
        self.model.pop(index, None)
        while len(self.model) >= self.SLOTS:
            self.model.popitem(last=False)
        self.model[index] = None

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        if not self.seeds:
            return
        wanted = data.draw(st.lists(st.sampled_from(sorted(self.seeds)), max_size=14))
        assert torch.equal(self.resident.get(wanted), rows(self.SIZE, [self.seeds[i] for i in wanted]))
        ids = sorted(set(wanted))
        known = [i for i in ids if i in self.model]
        entering = [i for i in ids if i not in self.model]
        self.hits += len(known)
        self.misses += len(entering)
        room = self.SLOTS - len(known)
        entering = entering[len(entering) - min(room, len(entering)) :]
        for i in known:
            self.model.move_to_end(i)
        while len(self.model) + len(entering) > self.SLOTS:
            self.model.popitem(last=False)
        for i in sorted(known + entering):
            self.model.pop(i, None)
            self.model[i] = None

    @invariant()
    def agrees(self) -> None:
        assert self.resident.resident.tolist() == list(self.model)
        assert (self.resident.hits, self.resident.misses) == (self.hits, self.misses)
        assert self.resident.held_bytes == len(self.model) * self.SIZE <= self.SLOTS * self.SIZE
        assert self.resident._records.numel() <= self.SLOTS * self.SIZE + 7

    def teardown(self) -> None:
        self.pages.close()


TestResident = ResidentMachine.TestCase
TestResident.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
