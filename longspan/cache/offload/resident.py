"""The records of a file that are resident in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from longspan.cache.offload.file import PageFile
from longspan.cache.offload.system import Numbers, numbers
from longspan.errors import UsageError


class Resident:
    """The records of a file that are in memory, at most `budget` bytes of them; the least recently used leave first.

    One call's records are used in the order of their numbers. hits, misses: records that calls of `get` found in
    memory, and those that they had to read; a record that a call names twice counts once.
    """

    def __init__(self, file: PageFile, budget: int) -> None:
        """Raises UsageError when not even one record fits."""
        slots = budget // file.record_bytes
        if slots < 1:
            raise UsageError(
                f"offload: {budget:,} bytes for resident pages hold none of {file.record_bytes:,} bytes; give more"
            )
        self.file, self.hits, self.misses = file, 0, 0
        self._records = torch.empty((slots, file.record_bytes), dtype=torch.uint8)
        self._slot = np.full(file.count, -1, np.int64)  # of each record; −1: not resident
        self._holds = np.full(slots, -1, np.int64)  # the record in each slot; −1: none
        self._used = np.full(slots, -1, np.int64)  # when each slot was last used; −1: free
        self._clock = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the resident records."""
        return int((self._holds >= 0).sum()) * self.file.record_bytes

    @property
    def resident(self) -> np.ndarray:
        """Numbers of the resident records, the least recently used first."""
        order = np.argsort(self._used, kind="stable")
        return self._holds[order[self._used[order] >= 0]]

    def get(self, indices: Numbers, out: Tensor | None = None) -> Tensor:
        """The records [n, record_bytes], in `out` when given. None that was asked for leaves during the call; those
        that find no room besides are read past the cache. Raises StoreError as `PageFile.read_many` does."""
        wanted = numbers(indices)
        self.file.check(wanted)
        if out is None:
            out = torch.empty((len(wanted), self.file.record_bytes), dtype=torch.uint8)
        assert out.shape == (len(wanted), self.file.record_bytes), "a row of `out` is a record"
        ids, first, inverse = np.unique(wanted, return_index=True, return_inverse=True)
        absent = ids[self._slot[ids] < 0]
        room = len(self._holds) - (len(ids) - len(absent))
        entering = absent[max(len(absent) - room, 0) :]
        past = absent[: len(absent) - len(entering)]
        self.hits += len(ids) - len(absent)
        self.misses += len(absent)
        self._touch(ids[self._slot[ids] >= 0])  # so that none of them is among the least recently used
        slots = self._vacate(len(entering))
        self.file.read_many(entering, self._records, slots)
        self._enter(entering, slots)
        self._touch(ids[self._slot[ids] >= 0])
        torch.index_select(self._records, 0, torch.from_numpy(self._slot[wanted].clip(0)), out=out)
        if past.size:  # their rows were given slot 0
            at = first[np.searchsorted(ids, past)]
            self.file.read_many(past, out, at)
            again = np.flatnonzero((self._slot[wanted] < 0) & (first[inverse] != np.arange(len(wanted))))
            out[torch.from_numpy(again)] = out[torch.from_numpy(first[inverse][again])]
        return out

    def put(self, indices: Numbers, data: Tensor) -> None:
        """Write records to the file, no two of one number; the last of them, as many as fit, are then the most
        recently used. When writing fails none of them is resident."""
        wanted = numbers(indices)
        self.file.check(wanted)
        self._forget(self._slot[wanted])
        self.file.write_many(wanted, data)
        stay = min(len(wanted), len(self._holds))
        slots = self._vacate(stay)
        self._records[torch.from_numpy(slots)] = data[len(wanted) - stay :]
        self._enter(wanted[len(wanted) - stay :], slots)
        self._touch(wanted[len(wanted) - stay :])

    def extend(self, count: int) -> None:
        """Room for `count` more records in the file."""
        self.file.extend(count)
        self._slot = np.concatenate((self._slot, np.full(count, -1, np.int64)))

    def _touch(self, ids: np.ndarray) -> None:
        self._used[self._slot[ids]] = self._clock + np.arange(len(ids))
        self._clock += len(ids)

    def _vacate(self, count: int) -> np.ndarray:
        """`count` slots, free ones first, then the least recently used."""
        if count == 0:
            return np.empty(0, np.int64)
        slots = np.argpartition(self._used, count - 1)[:count]
        self._forget(slots)
        return slots

    def _forget(self, slots: np.ndarray) -> None:
        slots = slots[slots >= 0]
        held = self._holds[slots]
        self._slot[held[held >= 0]] = -1
        self._holds[slots] = self._used[slots] = -1

    def _enter(self, ids: np.ndarray, slots: np.ndarray) -> None:
        self._slot[ids], self._holds[slots] = slots, ids
