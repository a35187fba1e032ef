"""What a backend gets: the attention of consecutive queries of one sequence, in one layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch


@dataclasses.dataclass(frozen=True)
class Raw:
    """n pages of G lanes where they lie, in text order, for kernels that open what they read themselves.

    format: "dense", "int8" or "int4". buffers: of those formats, keys and values and, where there are codes, key_min,
    key_step, value_min and value_step; [N, …], one entry a page, contiguous. ids [n, G] int64: the entries that are
    meant, N = n·G and in their order where None. fleeting: the buffers are gone once the next ones are asked for.
    """

    format: str
    buffers: Mapping[str, torch.Tensor]
    pages: int
    ids: torch.Tensor | None = None
    fleeting: bool = False

    @classmethod
    def dense(cls, keys: torch.Tensor, values: torch.Tensor, fleeting: bool = False) -> Raw:
        """Of keys [n, G, D, P] and values [n, G, P, D]."""
        buffers = {"keys": keys.contiguous().flatten(0, 1), "values": values.contiguous().flatten(0, 1)}
        return cls("dense", buffers, keys.shape[0], None, fleeting)


class Run(Protocol):
    """Pages of G lanes, in text order."""

    @property
    def pages(self) -> int: ...

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Keys [n, G, D, P] and values [n, G, P, D], `size` pages at a time; None: as many as may be held at once."""
        ...

    def raw(self) -> Iterator[Raw]:
        """The same pages as they are stored; opened where kernels do not know their format."""
        ...


@dataclasses.dataclass(frozen=True)
class WrittenRun:
    """Pages as they were written, read in place: keys [n, G, D, P], values [n, G, P, D]."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def pages(self) -> int:
        return self.keys.shape[0]

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        step = size or max(self.pages, 1)
        for a in range(0, self.pages, step):
            yield self.keys[a : a + step], self.values[a : a + step]

    def raw(self) -> Iterator[Raw]:
        yield Raw.dense(self.keys, self.values)


@dataclasses.dataclass(frozen=True)
class ScatteredRun:
    """Pages as they were written, wherever they lie among keys [N, D, P] and values [N, P, D]: ids [n, G]."""

    keys: torch.Tensor
    values: torch.Tensor
    ids: torch.Tensor

    @property
    def pages(self) -> int:
        return self.ids.shape[0]

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        step = size or max(self.pages, 1)
        for a in range(0, self.pages, step):
            yield self.keys[self.ids[a : a + step]], self.values[self.ids[a : a + step]]

    def raw(self) -> Iterator[Raw]:
        yield Raw("dense", {"keys": self.keys, "values": self.values}, self.pages, self.ids)


@dataclasses.dataclass(frozen=True)
class Subset:
    """Pages that queries read, where they do not read all: one choice for each lane and block of queries.

    rows: B, queries in a block. pages [G, ⌈R/B⌉, N] bool: which pages each block reads, of those its queries see. From
    the page that holds a block's first query on, it reads all of them, whatever is said here.
    """

    rows: int
    pages: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Work:
    """R consecutive queries over N consecutive pages of one sequence in one layer.

    All positions count from the start of the *reference page*, the one that holds the last query, so no
    number here grows with the text. A stored key is rotated by its offset in its page only; the distance
    between its page and the reference page is left to the kernel, which may turn the query per page or the
    keys.

    queries [R, H, D]: rotated by their position (which may be negative), multiplied by the softmax scale and
        by the square of the attention factor where rotated.
    first: position of the first query. base: position of the first slot (≤ 0, a multiple of P). begin:
        position where the text begins; slots before it, in its first page, hold nothing.
    runs: the pages in text order, N in all, of G lanes with P slots. Slots that no query sees hold anything, NaN in
        keys included. dtype: of keys and values once they are open.
    cos, sin [N, d/2]: the rotation by the distance from each page to the reference page, P·j for j ≥ 0; None
        where nothing is rotated. Their dtype is the dtype of rotations.
    window: the query at p sees keys k with p − window < k ≤ p; None: all k ≤ p from `begin` on.
    softcap: scores become softcap·tanh(score/softcap) (Gemma 2).
    sinks [H]: logits of learned sinks, which take part in the softmax and carry no value (gpt-oss).
    subset: which pages the queries read; None: all.

    Queries come in float32 whatever the cache holds, so that they are rounded once, after the last turn. A backend
    returns [R, H, D] in the dtype of the queries.
    """

    queries: torch.Tensor
    first: int
    base: int
    runs: Sequence[Run]
    kv_heads: int
    page: int
    dtype: torch.dtype
    begin: int = -(1 << 62)
    cos: torch.Tensor | None = None
    sin: torch.Tensor | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None
    subset: Subset | None = None

    @property
    def pages(self) -> int:
        """N."""
        return sum(run.pages for run in self.runs)

    @property
    def groups(self) -> int:
        """Query heads per KV head."""
        return self.queries.shape[1] // self.kv_heads

    def reads(self) -> torch.Tensor | None:
        """[G, R, N] bool: the pages that each query reads by `subset`; None: all that it sees."""
        if self.subset is None:
            return None
        size, blocks = self.subset.rows, self.subset.pages.shape[1]
        last = self.base + self.page * (1 + torch.arange(self.pages, device=self.subset.pages.device))
        own = last > self.first + size * torch.arange(blocks, device=last.device)[:, None]
        return (self.subset.pages | own).repeat_interleave(size, 1)[:, : self.queries.shape[0]]
