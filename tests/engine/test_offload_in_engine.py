"""Pages in a file: the same answers as from memory, whatever the disk does, and nothing left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from page_files import fails

from longspan import LLM
from longspan.cache.offload import Offloaded, store
from longspan.engine.schedule import LOSSES
from longspan.errors import DoesNotFit, LongspanError, StoreError, UsageError

PLANS = [
    {},
    {"format": "int8"},
    {"select": "sketch:pages=2,near=64"},
    {"format": "int4", "select": "quest:pages=2,near=64", "place": "far:near=64"},
]


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def opened(path: Path, where: Path | None, plan: dict[str, str], **options: object) -> LLM:
    file = {} if where is None else {"offload": where, "resident": 200_000}
    return LLM(path, **{"memory": "32MB", "dtype": "float32", **plan, **file, **options})  # type: ignore[arg-type]


def offloaded(llm: LLM) -> Offloaded:
    assert isinstance(llm.pool.sealed, Offloaded)
    return llm.pool.sealed


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_answers_are_those_from_memory(plan: dict[str, str], family: str, folder: Callable[..., Path], tmp_path: Path):
    path, ids = folder(family), ids_of(1500)
    ram, file = opened(path, None, plan), opened(path, tmp_path, plan)
    ram.scheduler.forward.program._dtype = None  # type: ignore[attr-defined]  # tapes round chosen pages otherwise
    expected, found = (llm.generate(ids, max_new_tokens=40, ignore_eos=True, logprobs=2) for llm in (ram, file))
    assert found.ids == expected.ids
    if "format" in plan:  # without one, pages in memory are read in place and not in blocks, which rounds otherwise
        assert found.logprobs == expected.logprobs
    assert offloaded(file).resident.hits > 0
    assert file.pool.disk_bytes >= offloaded(file).page_bytes
    assert file.pool.peak_bytes < ram.pool.peak_bytes + 200_000
    assert offloaded(file).owned == file.pool.owned == file.pool.budget.owned == 0
    assert os.listdir(tmp_path) == []


def test_memory_stays_while_the_text_grows(folder: Callable[..., Path], tmp_path: Path):
    """Only the newest pages are in memory, and what is resident."""
    peaks = []
    for tokens in (1000, 4000):
        llm = opened(folder("llama"), tmp_path, {}, memory="1MB")
        llm.generate(ids_of(tokens), max_new_tokens=2, ignore_eos=True)
        peaks.append(llm.pool.peak_bytes)
    assert peaks[0] == peaks[1] <= llm.layout.bytes(4000) + 200_000 < 1_000_000
    with pytest.raises(DoesNotFit):
        opened(folder("llama"), None, {}, memory="1MB").generate(ids_of(4000), max_new_tokens=2)


def test_forks_share_pages_in_the_file(folder: Callable[..., Path], tmp_path: Path):
    llm = opened(folder("llama"), tmp_path, {})
    with llm.session() as session:
        session.feed(ids_of(1000))
        owned = offloaded(llm).owned
        expected = None
        for _ in range(3):
            with session.fork() as twin:
                assert offloaded(llm).owned == owned
                found = twin.ask(ids_of(10, 3), max_new_tokens=8, ignore_eos=True).ids
            expected = expected or found
            assert found == expected
    assert offloaded(llm).owned == 0


def spoil(llm: LLM) -> None:
    """Change a byte of every page in the file, and forget what is resident."""
    pages = offloaded(llm)
    file = pages.resident.file
    for index in range(pages.owned):
        (byte,) = os.pread(file._fd, 1, file._start + index * file.record_bytes)
        os.pwrite(file._fd, bytes([byte ^ 1]), file._start + index * file.record_bytes)
    pages.resident._slot[:] = -1
    pages.resident._holds[:] = pages.resident._used[:] = -1


@pytest.mark.parametrize("select", ["all", "sketch:pages=2,near=64"])
def test_a_text_whose_pages_were_damaged_is_read_again(select: str, folder: Callable[..., Path], tmp_path: Path):
    llm = opened(folder("llama"), tmp_path, {"select": select})
    with llm.session() as session:
        session.feed(ids_of(1000))
        with session.fork() as twin:
            expected = twin.ask(ids_of(10, 3), max_new_tokens=20, ignore_eos=True).ids
        spoil(llm)
        with pytest.warns(UserWarning, match="is damaged, its checksum does not match; read its text again"):
            found = session.ask(ids_of(10, 3), max_new_tokens=20, ignore_eos=True).ids
        assert found == expected
        assert session._text.lost == 1


def test_a_disk_that_goes_on_losing_pages_ends_the_run(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    llm = opened(folder("llama"), tmp_path, {}, memory="1MB")
    monkeypatch.setattr(os, "preadv", fails(errno.EIO))
    with pytest.warns(UserWarning, match="cannot be read") as told, pytest.raises(StoreError, match="cannot be read"):
        llm.generate(ids_of(3000), max_new_tokens=2)
    assert len(told) == LOSSES
    assert llm.pool.budget.owned == 0


@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate"])
def test_a_disk_that_is_full_on_the_way_ends_the_run_and_says_so(
    call: str, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "STEP", 100_000)
    llm = opened(folder("llama"), tmp_path, {})
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails(errno.ENOSPC))
        with pytest.raises(LongspanError, match="the disk is full; free some space") as caught:
            llm.generate(ids_of(1000), max_new_tokens=2)
    assert caught.value.exit_code == 1
    assert llm.pool.budget.owned == offloaded(llm).owned == 0
    assert len(llm.generate(ids_of(1000), max_new_tokens=2, ignore_eos=True).ids) == 2  # the next run goes on


def test_folders_and_sizes_that_cannot_serve(folder: Callable[..., Path], tmp_path: Path):
    with pytest.raises(StoreError, match="does not exist") as caught:
        opened(folder("llama"), tmp_path / "gone", {})
    assert caught.value.exit_code == 5
    with pytest.raises(UsageError, match="10 bytes for resident pages"):
        opened(folder("llama"), tmp_path, {}, resident=10)
    with pytest.raises(DoesNotFit, match="leave nothing beside"):
        opened(folder("llama"), tmp_path, {}, resident="64MB")
    llm = LLM(folder("llama"), memory="1MB", offload=tmp_path)
    assert llm.pool.resident_bytes == 250_000
