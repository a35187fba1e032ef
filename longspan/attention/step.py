"""One forward pass over a packed row of tokens: who they belong to, where they go, what they need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from collections.abc import Sequence as Seq

import numpy as np
import torch

from longspan.attention.placement import Placement, Text
from longspan.attention.prefill.method import Prefill
from longspan.attention.rotation import Rotation, rotation
from longspan.cache.sequence import Sequence
from longspan.kernels import Backend, Work
from longspan.rope import Angles

Cosine = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Segment:
    """The next `rows` tokens of one sequence, whose pages already exist (`Sequence.grow`).

    angles: per rope key, the angles in force for this sequence.
    """

    sequence: Sequence
    rows: int
    angles: Mapping[str, Angles]

    @property
    def first(self) -> int:
        """Text position of the first row."""
        return self.sequence.start + self.sequence.length - self.rows


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one segment reads in the layers of one group."""

    first: int  # of the first query, from the reference page
    base: int  # of the first slot, from the reference page
    begin: int  # of the text's first token, from the reference page
    distances: Mapping[str, Cosine]


@dataclasses.dataclass
class Pages:
    """Counted over lanes and blocks of rows that may leave pages out: pages that they see, and that they read."""

    seen: int = 0
    read: int = 0

    @property
    def share(self) -> float | None:
        """None: no block of any text left pages out."""
        return self.read / self.seen if self.seen else None

    def count(self, work: Work, leaves: torch.Tensor) -> None:
        assert work.subset is not None
        block, pages = work.subset.rows, work.subset.pages[:, : len(leaves)]
        ends = work.first - work.base + block * torch.arange(1, len(leaves) + 1, device=pages.device)
        seen = torch.arange(work.pages, device=pages.device) * work.page < ends[:, None]
        self.seen += work.kv_heads * int(seen[leaves].sum())
        self.read += int((pages & seen)[:, leaves].sum())


class Trial:
    """In place of a step, where the model is only looked at: no sequence, no cache."""

    @staticmethod
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Of the shape of attention, and made of all three."""
        groups = query.shape[1] // key.shape[1]
        return (query + (key + 0.5 * value).repeat_interleave(groups, 1)).transpose(1, 2).contiguous()


class Step:
    """Segments packed in one row of T tokens, with everything that layers share computed once.

    ropes: the rope key of each layer. place: for each layer, which group holds it (None: the lanes, where something
    is evicted) and its index there. placement: at which distance slots of lanes stand. prefill: which pages blocks of
    rows look at in layers without a window, None: all; `pages` counts them.
    """

    def __init__(
        self,
        segments: Seq[Segment],
        ropes: Seq[str | None],
        backend: Backend,
        placement: Placement = Text(),  # noqa: B008 - a frozen value
        prefill: Prefill | None = None,
        pages: Pages | None = None,
    ) -> None:
        self.segments, self.ropes, self.backend, self.placement = segments, ropes, backend, placement
        self.prefill, self.pages = prefill, pages or Pages()
        self.leaves = [self._leaves(s) for s in segments]
        sequence = segments[0].sequence
        self.pool = sequence.pool
        page, device = self.pool.layout.page, self.pool.device
        self.place: dict[int, tuple[int | None, int]] = {
            layer: (g, i) for g, group in enumerate(sequence.groups) for i, layer in enumerate(group.layers)
        }
        if sequence.lanes is not None:
            self.place |= {layer: (None, i) for i, layer in enumerate(sequence.lanes.layers)}
        positions = [s.first + np.arange(s.rows) for s in segments]
        self.rows = [torch.from_numpy(p).to(device) for p in positions]
        self.offsets = torch.from_numpy(np.concatenate(positions) % page).to(device)
        self.targets = [self._targets(g, positions) for g in range(len(sequence.groups))]
        self.keys: dict[str | None, Cosine] = {}
        self.queries: dict[str | None, Cosine] = {}
        for key in dict.fromkeys(k for k in ropes if k is not None):
            self.keys[key], self.queries[key] = self._tables(key, positions)
        self.readings = [[self._reading(s, g) for s in segments] for g in range(len(sequence.groups))]

    def _leaves(self, segment: Segment) -> torch.Tensor | None:
        """Which whole blocks of a segment may leave pages out: bool; None: none of them. What is asked does not."""
        if self.prefill is None:
            return None
        block, first, sequence = self.prefill.block, segment.first, segment.sequence
        starts = np.arange(first, first + segment.rows - block + 1, block)
        if first % block or len(starts) == 0:
            return None
        asked = sequence.asks(np.arange(first, starts[-1] + block)).reshape(-1, block).any(1)
        leaves = torch.from_numpy((starts >= sequence.start + self.prefill.least) & ~asked)
        return leaves.to(sequence.pool.device) if bool(leaves.any()) else None

    def chosen(self, work: Work, number: int) -> Work:
        """The work of a segment, with the pages that it reads."""
        leaves = self.leaves[number]
        if self.prefill is None or leaves is None or work.window is not None:
            return work
        subset = self.prefill.choose(work, leaves)
        if subset is None:
            return work
        made = dataclasses.replace(work, subset=subset)
        self.pages.count(made, leaves)
        return made

    def turns(self, segment: Segment, key: str) -> Rotation:
        return rotation(segment.angles[key], self.pool.layout.page, self.pool.device)

    def _targets(self, group: int, positions: list[np.ndarray]) -> torch.Tensor:
        """[L, G, T] page ids to write to."""
        ids = [
            s.sequence.groups[group].live[:, :, p // self.pool.layout.page - s.sequence.groups[group].first]
            for s, p in zip(self.segments, positions, strict=True)
        ]
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(ids, axis=2))).to(self.pool.device)

    @functools.cached_property
    def slots(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Page ids and places in the page, [L, G, T] each, where the keys of all layers of the lanes go."""
        pages, places = [], []
        for s in self.segments:
            lanes = s.sequence.lanes
            assert lanes is not None
            at = lanes.targets(s.rows, lanes.counts - s.rows)
            pages.append(np.take_along_axis(lanes.table, at // self.pool.layout.page, 2))
            places.append(at % self.pool.layout.page)
        device = self.pool.device
        return tuple(torch.from_numpy(np.ascontiguousarray(np.concatenate(x, 2))).to(device) for x in (pages, places))  # type: ignore[return-value]

    def rotation(self, segment: Segment, layer: int) -> Rotation | None:
        key = self.ropes[layer]
        return None if key is None else self.turns(segment, key)

    def _tables(self, key: str, positions: list[np.ndarray]) -> tuple[Cosine, Cosine]:
        page, keys, queries, start = self.pool.layout.page, [], [], 0
        for s, p in zip(self.segments, positions, strict=True):
            turns = self.turns(s, key)
            keys.append(turns.keys(self.offsets[start : start + s.rows]))
            queries.append(turns.queries(p - int(p[-1]) // page * page))
            start += s.rows
        return packed(keys), packed(queries)

    def _reading(self, segment: Segment, group: int) -> Reading:
        page = self.pool.layout.page
        held = segment.sequence.groups[group]
        reference = (segment.first + segment.rows - 1) // page
        keys = dict.fromkeys(k for k in (self.ropes[layer] for layer in held.layers) if k is not None)
        nearest = reference - (held.first + held.count - 1)
        return Reading(
            first=segment.first - reference * page,
            base=(held.first - reference) * page,
            begin=segment.sequence.start - reference * page,
            distances={k: self.turns(segment, k).distances(nearest, held.count) for k in keys},
        )


def packed(tables: Seq[Cosine]) -> Cosine:
    """Those of several segments."""
    if len(tables) == 1:
        return tables[0]
    return torch.cat([c for c, _ in tables]), torch.cat([s for _, s in tables])
