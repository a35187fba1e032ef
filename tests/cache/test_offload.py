"""Offload: what was written comes back bit by bit or not at all, and only under the key it was written under."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from page_files import KEY, count_reads, filled, record, rows

from longspan.cache.offload import PageFile, Resident, file, system
from longspan.errors import StoreError, UsageError


@settings(max_examples=80, deadline=None)
@given(data=st.data(), size=st.sampled_from([1, 7, 512, 4096, 5000]), count=st.integers(1, 40))
def test_the_round_trip_is_bitwise_identical(data: st.DataObject, size: int, count: int, tmp_path_factory):
    pages = PageFile.create(tmp_path_factory.getbasetemp(), size, count, KEY)
    numbers = st.integers(0, count - 1)
    seeds: dict[int, int] = {}
    for seed, i in enumerate(data.draw(st.lists(numbers, max_size=60))):  # any order, some twice
        pages.write(i, record(size, seed))
        seeds[i] = seed
    wanted = data.draw(st.lists(st.sampled_from(sorted(seeds)), max_size=60)) if seeds else []
    out = torch.empty(len(wanted), size, dtype=torch.uint8)
    pages.read_many(wanted, out)
    assert torch.equal(out, rows(size, [seeds[i] for i in wanted]))
    one = torch.empty(size, dtype=torch.uint8)
    for i in wanted:
        pages.read(i, one)
        assert torch.equal(one, record(size, seeds[i]))
    pages.close()


def test_tensors_of_any_dtype_and_plain_bytes_are_written(tmp_path: Path):
    pages = PageFile.create(tmp_path, 64, 3, KEY)
    x = torch.randn(4, 8, dtype=torch.float32).bfloat16()
    pages.write(0, x)
    pages.write(1, bytes(range(64)))
    pages.write(2, memoryview(np.arange(16, dtype=np.float32)))
    out = torch.empty(3, 64, dtype=torch.uint8)
    pages.read_many(torch.tensor([0, 1, 2]), out)
    assert torch.equal(out[0].view(torch.bfloat16).view(4, 8), x)
    assert out[1].tolist() == list(range(64))
    assert torch.equal(out[2].view(torch.float32), torch.arange(16.0))
    with pytest.raises(UsageError, match="63 bytes, where each has 64"):
        pages.write(0, bytes(63))
    with pytest.raises(UsageError, match="in one piece"):
        pages.write(0, torch.zeros(64, 2, dtype=torch.uint8)[:, 0])
    pages.read(0, one := torch.empty(64, dtype=torch.uint8))
    assert torch.equal(one, out[0])
    pages.close()


def test_neighbours_are_read_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = count_reads(monkeypatch)
    pages = filled(tmp_path, count=12)
    wanted = [7, 3, 4, 11, 5, 6, 0]
    pages.read_many(wanted, out := torch.empty(7, 100, dtype=torch.uint8))
    assert calls == [1, 5, 1]  # 0 | 3 to 7 | 11
    assert torch.equal(out, rows(100, wanted))
    calls.clear()
    monkeypatch.setattr(file, "VECTOR", 5)
    pages.read_many(range(12), out := torch.empty(12, 100, dtype=torch.uint8))
    assert calls == [5, 5, 2]
    assert torch.equal(out, rows(100, list(range(12))))
    pages.close()


@pytest.mark.parametrize("step", [1, 99, 100, 101, 250])
def test_calls_that_do_less_than_asked_are_continued(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch):
    preadv, pwrite = os.preadv, os.pwrite

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        taken, left = [], step
        for buffer in buffers:
            taken.append(buffer[:left])
            left -= len(taken[-1])
            if left == 0:
                break
        return preadv(fd, taken, offset)

    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:step], offset))
    monkeypatch.setattr(os, "preadv", short)
    pages = filled(tmp_path, count=6)
    pages.read_many([4, 1, 2, 3], out := torch.empty(4, 100, dtype=torch.uint8))
    assert torch.equal(out, rows(100, [4, 1, 2, 3]))
    pages.close()


def test_neighbours_are_written_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pages, calls = PageFile.create(tmp_path, 100, 12, KEY), []
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: calls.append(len(data)) or real(fd, data, at))
    wanted = [3, 4, 5, 1, 9, 10]
    pages.write_many(wanted, rows(100, wanted))
    assert calls == [300, 100, 200]
    pages.read_many(wanted, out := torch.empty(6, 100, dtype=torch.uint8))
    assert torch.equal(out, rows(100, wanted))
    pages.close()


def test_a_file_without_a_name_grows(tmp_path: Path):
    pages = filled(tmp_path, count=3)
    pages.extend(2)
    assert pages.count == 5
    pages.write(4, record(100, 4))
    pages.read_many([4, 0, 2], out := torch.empty(3, 100, dtype=torch.uint8))
    assert torch.equal(out, rows(100, [4, 0, 2]))
    with pytest.raises(StoreError, match="page 3 was never written"):
        pages.read(3, out[0])
    pages.close()


def test_numbers_that_are_no_page_are_refused(tmp_path: Path):
    pages = filled(tmp_path)
    for wrong in (-1, 10):
        with pytest.raises(UsageError, match=f"no page {wrong}; the file has 0 to 9"):
            pages.read_many([0, wrong], torch.empty(2, 100, dtype=torch.uint8))
        with pytest.raises(UsageError, match=f"no page {wrong}"):
            pages.write(wrong, record(100, 0))
        with pytest.raises(UsageError, match=f"no page {wrong}"):
            Resident(pages, 300).put([wrong], record(100, 0)[None])
    with pytest.raises(UsageError, match="0 records of 5 bytes; give 1 or more"):
        PageFile.create(tmp_path, 5, 0, KEY)
    pages.close()
    pages.close()
    with pytest.raises(StoreError, match="already closed"):
        pages.read(0, torch.empty(100, dtype=torch.uint8))


def test_numbers_come_as_lists_arrays_and_tensors():
    for given_ in ([3, 1], np.array([3, 1], np.int32), torch.tensor([[3, 1]])):
        assert system.numbers(given_).tolist() == [3, 1]


# --- what does not come back ----------------------------------------------------------------------------------------


def test_a_page_never_written_is_not_read(tmp_path: Path):
    pages = PageFile.create(tmp_path, 8, 4, KEY)
    pages.write(1, bytes(8))  # zeros are a record like any other
    pages.read(1, out := torch.ones(8, dtype=torch.uint8))
    assert not out.any()
    with pytest.raises(StoreError, match="page 2 was never written; read its text again"):
        pages.read_many([1, 2], torch.empty(2, 8, dtype=torch.uint8))
    pages.close()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 399), flip=st.integers(1, 255))
def test_any_flipped_byte_of_a_record_is_found(at: int, flip: int, tmp_path_factory):
    pages = filled(tmp_path_factory.getbasetemp(), count=4)
    place = pages._start + at
    (byte,) = os.pread(pages._fd, 1, place)
    os.pwrite(pages._fd, bytes([byte ^ flip]), place)
    damaged = at // 100
    with pytest.raises(StoreError, match=f"page {damaged} is damaged"):
        pages.read_many([0, 1, 2, 3], torch.empty(4, 100, dtype=torch.uint8))
    others = [i for i in range(4) if i != damaged]
    pages.read_many(others, out := torch.empty(3, 100, dtype=torch.uint8))
    assert torch.equal(out, rows(100, others))
    pages.close()


def test_any_flipped_byte_of_header_and_checksums_is_found(tmp_path: Path):
    filled(tmp_path, count=4, name="pages").close(delete=False)
    path = tmp_path / "pages"
    whole = path.read_bytes()
    for at in [*range(file.HEADER.size + 4), *range(file.BLOCK, file.BLOCK + 8 * 4)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=r"no file of offloaded|header is damaged|is damaged|never written"):
            read_all(path)


def read_all(path: Path) -> None:
    pages = PageFile.open(path, KEY)
    try:
        pages.read_many([0, 1, 2, 3], torch.empty(4, 100, dtype=torch.uint8))
    finally:
        pages.close(delete=False)


def test_records_in_each_others_place_are_found(tmp_path: Path):
    pages = filled(tmp_path)
    os.pwrite(pages._fd, record(100, 4).numpy().data, pages._start + 3 * 100)
    with pytest.raises(StoreError, match="page 3 is damaged"):
        pages.read(3, torch.empty(100, dtype=torch.uint8))
    pages.close()


# --- files that are kept --------------------------------------------------------------------------------------------


def test_a_kept_file_opens_again(tmp_path: Path):
    pages = PageFile.create(tmp_path, 100, 10, KEY, "pages")
    for i in (2, 5):
        pages.write(i, record(100, i))
    pages.close(delete=False)
    pages = PageFile.open(tmp_path / "pages", KEY)
    assert (pages.record_bytes, pages.count) == (100, 10)
    pages.write(7, record(100, 7))
    pages.read_many([5, 7, 2], out := torch.empty(3, 100, dtype=torch.uint8))
    assert torch.equal(out, rows(100, [5, 7, 2]))
    with pytest.raises(StoreError, match="page 3 was never written"):
        pages.read(3, out[0])
    pages.close()
    assert os.listdir(tmp_path) == []
    with pytest.raises(StoreError, match="it does not exist"):
        PageFile.open(tmp_path / "pages", KEY)


def test_foreign_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    filled(tmp_path, name="pages").close(delete=False)
    path = tmp_path / "pages"
    with pytest.raises(StoreError, match="another model, rope, format or placement") as caught:
        PageFile.open(path, KEY + b"!")
    assert caught.value.exit_code == 5
    with monkeypatch.context() as patch:
        patch.setattr(file, "VERSION", 2)
        with pytest.raises(StoreError, match="layout has version 1, this program writes 2"):
            PageFile.open(path, KEY)
    whole = path.read_bytes()
    for left, says in ((len(whole) - 1, "short by 1 bytes"), (5000, "short by"), (20, "no file"), (0, "no file")):
        path.write_bytes(whole[:left])
        with pytest.raises(StoreError, match=says):
            PageFile.open(path, KEY)
    path.write_bytes(whole + b"x")
    with pytest.raises(StoreError, match="too long by 1 bytes"):
        PageFile.open(path, KEY)
    path.write_bytes(b"PK" * 5000)
    with pytest.raises(StoreError, match="no file of offloaded pages"):
        PageFile.open(path, KEY)
    with pytest.raises(StoreError, match="it is a folder"):
        PageFile.open(tmp_path, KEY)


def test_a_file_cut_off_while_open_is_noticed(tmp_path: Path):
    pages = filled(tmp_path)
    os.ftruncate(pages._fd, pages._start + 250)
    pages.read_many([0, 1], out := torch.empty(2, 100, dtype=torch.uint8))
    assert torch.equal(out, rows(100, [0, 1]))
    with pytest.raises(StoreError, match="ends within pages 1 to 3"):
        pages.read_many([1, 2, 3], torch.empty(3, 100, dtype=torch.uint8))
    pages.close()


def test_one_process_at_a_time(tmp_path: Path):
    pages = filled(tmp_path, name="pages")
    with pytest.raises(StoreError, match="already in use, by another process"):
        PageFile.open(tmp_path / "pages", KEY)
    with pytest.raises(StoreError, match="it exists already"):
        PageFile.create(tmp_path, 100, 10, KEY, "pages")
    pages.read(1, out := torch.empty(100, dtype=torch.uint8))
    assert torch.equal(out, record(100, 1))
    pages.close()
