"""A text saved on disk goes on where it was, in a new process too; a file that is not what was saved is refused."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from page_files import fails

from longspan import LLM
from longspan.errors import DoesNotFit, StoreError, UsageError

PLANS = [
    {},
    {"format": "int4"},
    {"format": "int8", "offload": "."},
    {"offload": "."},
    {"select": "sketch:pages=2,near=64", "place": "far:near=64"},
    {"select": "quest:pages=2,near=64", "format": "int8", "offload": "."},
    {"evict": "h2o:budget=128"},
    {"evict": "expected_attention:budget=200,merge=true", "place": "far:near=64"},
    {"evict": "adakv:budget=128"},
    {"evict": "lru:budget=128", "place": "slot"},
]


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def opened(path: Path, where: Path, plan: dict[str, str], **options: object) -> LLM:
    plan = plan | ({"offload": str(where), "resident": "1MB"} if "offload" in plan else {})
    return LLM(path, **{"memory": "64MB", "dtype": "float32", **plan, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_it_goes_on_as_if_nothing_had_been(
    plan: dict[str, str], family: str, folder: Callable[..., Path], tmp_path: Path
):
    path = folder(family)
    with opened(path, tmp_path, plan).session() as session:
        session.feed(ids_of(700))
        session.ask(ids_of(9, 3), max_new_tokens=5, ignore_eos=True)
        size = session.save(tmp_path / "text", {"name": "ü"})
        whole, ids = session.ids, session.ask(ids_of(30, 4), max_new_tokens=64, ignore_eos=True).ids
    assert os.listdir(tmp_path) == ["text"]
    assert abs((tmp_path / "text").stat().st_size - size) <= 8192
    llm = opened(path, tmp_path, plan)
    with llm.resume(tmp_path / "text") as again:
        assert (again.ids, again.meta) == (whole, {"name": "ü"})
        output = again.ask(ids_of(30, 4), max_new_tokens=64, ignore_eos=True)
        assert output.ids == ids
        assert output.tokens_cached >= 713  # nothing was read again
    assert llm.pool.owned == 0
    assert llm.pool.budget.owned == 0


CHILD = """
import json, sys
from longspan import LLM
path, where, plan, asked = json.loads(sys.argv[1])
with LLM(path, memory="64MB", dtype="float32", **plan).resume(where) as session:
    print(json.dumps(list(session.ask(asked, max_new_tokens=64, ignore_eos=True).ids)))
"""


def test_a_new_process_goes_on_with_the_same_tokens(folder: Callable[..., Path], tmp_path: Path):
    path, asked = folder("llama"), ids_of(20, 5)
    plan = {"format": "int8", "select": "sketch:pages=2,near=64", "place": "far:near=64"}
    with opened(path, tmp_path, plan).session() as session:
        session.feed(ids_of(900))
        session.save(tmp_path / "text")
        expected = session.ask(asked, max_new_tokens=64, ignore_eos=True).ids
    given = json.dumps([str(path), str(tmp_path / "text"), plan, asked])
    ran = subprocess.run([sys.executable, "-c", CHILD, given], capture_output=True, text=True, check=True)
    assert tuple(json.loads(ran.stdout)) == expected


def test_it_resumes_where_text_and_cache_do_not_end_at_a_page(folder: Callable[..., Path], tmp_path: Path):
    for tokens in (1, 63, 64, 65, 256, 257):
        with opened(folder("llama"), tmp_path, {"format": "int4"}).session(start=7) as session:
            session.feed(ids_of(tokens))
            session.save(tmp_path / "text")
            expected = session.ask([5], max_new_tokens=4, ignore_eos=True).ids
        with opened(folder("llama"), tmp_path, {"format": "int4"}).resume(tmp_path / "text") as again:
            assert again.ask([5], max_new_tokens=4, ignore_eos=True).ids == expected


@pytest.mark.parametrize(
    "other",
    [
        {"format": "int8"},
        {"rope": "yarn:factor=4"},
        {"select": "sketch:pages=2"},
        {"evict": "streaming:budget=128"},
        {"page": 32},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_what_another_engine_wrote_is_refused(other: dict[str, object], folder: Callable[..., Path], tmp_path: Path):
    with opened(folder("llama"), tmp_path, {}).session() as session:
        session.feed(ids_of(100))
        session.save(tmp_path / "text")
    before = (tmp_path / "text").read_bytes()
    llm = opened(folder("llama"), tmp_path, {}, **other)
    with pytest.raises(StoreError, match="another model, rope, format or placement") as caught:
        llm.resume(tmp_path / "text")
    assert caught.value.exit_code == 5
    assert (tmp_path / "text").read_bytes() == before
    assert llm.pool.budget.owned == 0


def test_another_model_of_the_same_shape_is_refused(folder: Callable[..., Path], tmp_path: Path):
    with opened(folder("llama"), tmp_path, {}).session() as session:
        session.feed(ids_of(100))
        session.save(tmp_path / "text")
    other = folder("llama")
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in other.iterdir():
        data = bytearray(file.read_bytes())
        if file.suffix == ".safetensors":
            data[-100:-60] = bytes(40)
        (twin / file.name).write_bytes(bytes(data))
    with pytest.raises(StoreError, match="another model"):
        opened(twin, tmp_path, {}).resume(tmp_path / "text")


def test_a_damaged_file_is_refused_and_kept(folder: Callable[..., Path], tmp_path: Path):
    llm = opened(folder("llama"), tmp_path, {"format": "int8"})
    with llm.session() as session:
        session.feed(ids_of(700))
        session.save(tmp_path / "text")
    path = tmp_path / "text"
    whole = path.read_bytes()
    for at in range(0, len(whole), max(len(whole) // 40, 1)):
        spoiled = bytearray(whole)
        spoiled[at] ^= 8
        path.write_bytes(bytes(spoiled))
        with contextlib.suppress(StoreError), llm.resume(path) as session:
            assert session.ids == ids_of(700)  # a byte that stands for nothing, between the parts of the file
        assert path.read_bytes() == bytes(spoiled)
    for left in (0, 10, 5000, len(whole) - 1):
        path.write_bytes(whole[:left])
        with pytest.raises(StoreError):
            llm.resume(path)
    with pytest.raises(StoreError, match="does not exist"):
        llm.resume(tmp_path / "gone")
    assert llm.pool.budget.owned == 0


def test_what_stood_there_stays_until_the_new_file_is_whole(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    llm = opened(folder("llama"), tmp_path, {})
    with llm.session() as session:
        session.feed(ids_of(300))
        session.save(tmp_path / "text")
        before = (tmp_path / "text").read_bytes()
        session.feed(ids_of(300, 9))
        for call in ("posix_fallocate", "pwrite", "fsync", "replace"):
            with monkeypatch.context() as patch:
                patch.setattr(os, call, fails(errno.ENOSPC))
                with pytest.raises(StoreError, match="the disk is full") as caught:
                    session.save(tmp_path / "text")
                assert caught.value.exit_code == 5
            assert (tmp_path / "text").read_bytes() == before
            assert os.listdir(tmp_path) == ["text"]
        session.save(tmp_path / "text")
        assert (tmp_path / "text").read_bytes() != before
        with pytest.raises(StoreError, match="does not exist"):
            session.save(tmp_path / "gone" / "text")
        with pytest.raises(StoreError, match="it is a folder"):
            session.save(tmp_path)
    with llm.session() as empty, pytest.raises(UsageError, match="nothing was read yet"):
        empty.save(tmp_path / "text")


def test_a_pool_without_room_says_so(folder: Callable[..., Path], tmp_path: Path):
    with opened(folder("llama"), tmp_path, {}).session() as session:
        session.feed(ids_of(2000))
        session.save(tmp_path / "text")
    small = opened(folder("llama"), tmp_path, {}, memory="200KB")
    with pytest.raises(DoesNotFit, match="2,000 tokens need"):
        small.resume(tmp_path / "text")
    assert small.pool.budget.owned == 0


KILLED = """
import sys
from longspan import LLM
path, where = sys.argv[1:]
llm = LLM(path, memory="64MB", dtype="float32", format="int8", offload=where, resident="1MB")
session = llm.session()
session.feed([5] * 3000)
print("ready", flush=True)
while True:
    session.save(where + "/text")
"""


def test_a_killed_process_leaves_the_old_file_or_the_new_one(folder: Callable[..., Path], tmp_path: Path):
    """And of the file of offloaded pages nothing."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder("llama")), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    while not (tmp_path / "text").exists():
        time.sleep(0.01)
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    plan = {"format": "int8", "offload": "."}
    with opened(folder("llama"), tmp_path, plan).resume(tmp_path / "text") as session:
        assert session.ids == [5] * 3000
    assert all(name == "text" or name.endswith(".part") for name in os.listdir(tmp_path))
