"""A read text in a file: saved by a session, read back by `LLM.resume`, in this process or another."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longspan.cache.found import Found
from longspan.cache.group import Group
from longspan.cache.offload import PageFile
from longspan.cache.offload.system import refusal
from longspan.cache.pages import Pages
from longspan.engine.schedule import Text
from longspan.errors import StoreError, UsageError
from longspan.model.fingerprint import fingerprint
from longspan.rope import Angles

if TYPE_CHECKING:
    from longspan.cache.formats.format import Stored
    from longspan.engine.llm import LLM

RECORD = 1 << 20
"""Bytes of the file that share a checksum."""
BLOCK = 256
"""Pages that are in memory at a time while they are copied."""
VERSION = 1


def key(llm: LLM) -> bytes:
    """What the numbers in a saved text depend on: the model, its dtype and weights, the rope, and the plan."""
    plan = {name: text for name, text in llm.plan.texts.items() if name != "offload"}
    if llm.plan.prefill is None:
        del plan["prefill"]  # so that the key of a dense reading is what it was
    if llm.plan.evict is not None:
        plan["notes"] = "positions of four bytes"
    return json.dumps(
        [VERSION, fingerprint(llm.path), str(llm.dtype), llm.weights, llm.ropes.choice, plan, llm.layout.page],
        sort_keys=True,
    ).encode()


def save(llm: LLM, text: Text, path: Path, meta: dict[str, Any]) -> int:
    """Write all that is cached of a text, and `meta`; the bytes of the file.

    It is written under another name beside `path` and takes its place when it is whole and on the disk, so what stood
    there is never half lost. Raises StoreError when the disk refuses.
    """
    if path.is_dir():
        raise StoreError(f"{path}: it is a folder; give the path of a file")
    cache = text.cache
    header = {
        "ids": len(text.ids),
        "start": cache.start,
        "length": cache.length,
        "asking": cache.asking,
        "marks": cache.marks,
        "cuts": cache.cuts,
        "answers": cache.answers,
        "turned": text.turned,
        "angles": {
            name: [angles.inv_freq, angles.attention_factor, angles.until] for name, angles in text.angles.items()
        },
        "groups": [[group.first, group.count, group.sealed, group.summed] for group in cache.groups],
        "found": [group.found and [group.found.at, list(group.found.mass.items())] for group in cache.groups],
        "lanes": None if cache.lanes is None else cache.lanes.outline(),
        "meta": meta,
    }
    head = json.dumps(header).encode()
    size = 8 + len(head) + 4 * len(text.ids)
    size += sum(ids.size * store.page_bytes for group in cache.groups for store, ids in _held(llm, group))
    arrays = [] if cache.lanes is None else cache.lanes.arrays()
    size += sum(array.nbytes for array in arrays)
    if cache.lanes is not None:
        size += sum(ids.size * store.page_bytes for store, ids in cache.lanes.held())
    part = f".{path.name}.{secrets.token_hex(4)}.part"
    file = PageFile.create(path.parent, RECORD, max(-(-size // RECORD), 1), key(llm), part)
    try:
        out = _Writer(file)
        out.put(len(head).to_bytes(8, "little"))
        out.put(head)
        out.put(np.asarray(text.ids[:], np.int32).tobytes())
        for group in cache.groups:
            for store, ids in _held(llm, group):
                _copy_out(out, store, ids)
        for array in arrays:
            out.put(_bytes(array))
        if cache.lanes is not None:
            for store, ids in cache.lanes.held():
                _copy_out(out, store, ids)
        out.finish()
        file.close(delete=False)
        os.replace(path.parent / part, path)
        _settle(path.parent)
    except BaseException as error:
        file.close()
        with contextlib.suppress(OSError):
            os.unlink(path.parent / part)
        if isinstance(error, OSError):
            raise refusal(str(path), "cannot be written", error) from error
        raise
    return file.count * RECORD


def load(llm: LLM, path: Path) -> tuple[Text, dict[str, Any]]:
    """The text that a file holds, cached in the engine's pool; and its `meta`.

    Raises StoreError when the file is missing, damaged, truncated or was saved under another model, rope, format or
    placement; it is left as it is. Raises DoesNotFit when the pool has no room.
    """
    file = PageFile.open(path, key(llm))
    text: Text | None = None
    try:
        source = _Reader(file)
        header = json.loads(source.take(int.from_bytes(source.take(8), "little")))
        ids = np.frombuffer(source.take(4 * header["ids"]), np.int32).tolist()
        llm.scheduler.check(len(ids), header["start"])
        text = llm.text(ids, header["start"])
        cache = text.cache
        text.turned = header["turned"]
        text.angles = {name: Angles(tuple(a), b, c) for name, (a, b, c) in header["angles"].items()}
        for group, (first, count, sealed, summed) in zip(cache.groups, header["groups"], strict=True):
            group.restore(llm.pool, first, count, sealed, summed, max(len(ids), header["length"]))
            for store, pages in _held(llm, group):
                _copy_in(source, store, pages)
        for group, found in zip(cache.groups, header["found"], strict=True):
            group.found = found and Found(found[0], dict(found[1]))
        if cache.lanes is not None:
            cache.lanes.restore(header["lanes"], lambda array: source.fill(array))
            for store, pages in cache.lanes.held():
                _copy_in(source, store, pages)
        cache.length, cache.asking, cache.marks = header["length"], header["asking"], header["marks"]
        cache.answers, cache.cuts = header["answers"], header.get("cuts", [])  # older files have none
    except BaseException:
        if text is not None:
            llm.scheduler.drop(text)
        raise
    finally:
        file.close(delete=False)
    llm.scheduler.keep(text)
    return text, header["meta"]


def _held(llm: LLM, group: Group) -> list[tuple[Pages, np.ndarray]]:
    """Where the group's pages lie: ids [n] of each store."""
    pool = llm.pool
    held: list[tuple[Pages, np.ndarray]] = [(pool, group.live[:, :, group.sealed :].reshape(-1))]
    if pool.sealed is not None:
        held.append((pool.sealed, group.live[:, :, : group.sealed].reshape(-1)))
    if pool.summaries is not None:
        held.append((pool.summaries, group.sums.reshape(-1)))
    return held


def _copy_out(out: _Writer, store: Pages, ids: np.ndarray) -> None:
    for part in _parts(ids):
        for buffer in store.take(torch.from_numpy(part)).values():
            out.put(_bytes(buffer))


def _copy_in(source: _Reader, store: Pages, ids: np.ndarray) -> None:
    for part in _parts(ids):
        stored: Stored = {
            name: torch.empty((len(part), *shape), dtype=dtype) for name, (shape, dtype) in store.each.items()
        }
        for buffer in stored.values():
            source.fill(buffer)
        store.put(part, stored)


def _parts(ids: np.ndarray) -> Iterator[np.ndarray]:
    for a in range(0, len(ids), BLOCK):
        yield np.ascontiguousarray(ids[a : a + BLOCK])


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat: np.ndarray = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat.data


def _settle(folder: Path) -> None:
    """Make a new name in the folder safe on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Writer:
    """Bytes of any number as records of a file."""

    def __init__(self, file: PageFile) -> None:
        self._file, self._index, self._left = file, 0, bytearray()

    def put(self, data: bytes | memoryview) -> None:
        self._left += data
        whole = len(self._left) // RECORD * RECORD
        for at in range(0, whole, RECORD):
            self._file.write(self._index, memoryview(self._left)[at : at + RECORD])
            self._index += 1
        if whole:
            self._left = self._left[whole:]

    def finish(self) -> None:
        if self._left:
            self._file.write(self._index, bytes(self._left.ljust(RECORD, b"\0")))


class _Reader:
    """The bytes that a `_Writer` wrote, in their order. Raises DamagedPage where a record is not what was written."""

    def __init__(self, file: PageFile) -> None:
        self._file, self._index, self._at = file, 0, RECORD
        self._record = torch.empty(RECORD, dtype=torch.uint8)

    def take(self, size: int) -> bytes:
        if size > (self._file.count - self._index + 1) * RECORD:
            raise StoreError(f"{self._file.path}: ends too early; save the text again")
        out = torch.empty(size, dtype=torch.uint8)
        self.fill(out)
        return out.numpy().tobytes()

    def fill(self, out: torch.Tensor) -> None:
        flat = out.reshape(-1).view(torch.uint8) if out.numel() else out.reshape(-1)
        done = 0
        while done < len(flat):
            if self._at == RECORD:
                if self._index == self._file.count:
                    raise StoreError(f"{self._file.path}: ends too early; save the text again")
                self._file.read(self._index, self._record)
                self._index, self._at = self._index + 1, 0
            size = min(len(flat) - done, RECORD - self._at)
            flat[done : done + size] = self._record[self._at : self._at + size]
            done, self._at = done + size, self._at + size


def session_path(path: str | Path) -> Path:
    """Raises UsageError for a path without a name."""
    made = Path(path).expanduser()
    if not made.name:
        raise UsageError(f"save: {str(path)!r} names no file; give the path of a file")
    return made
