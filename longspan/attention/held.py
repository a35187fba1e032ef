"""What a step of few rows writes and reads in the cache, told once for all layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from longspan.attention.kept import towards
from longspan.attention.placement import Placed, Slot
from longspan.attention.select import Reader, View
from longspan.attention.step import Segment, Step, packed
from longspan.cache.group import Group
from longspan.cache.lanes import Lanes
from longspan.cache.pool import Pool
from longspan.cache.runs import SealedRun
from longspan.kernels import cpu, paged
from longspan.kernels.cpu.kept import Kept, Turns
from longspan.kernels.cpu.tape import Held, LaneStretch, Pages, Stretch, serves
from longspan.kernels.slots import Seen


def held(step: Step) -> Held | None:
    """None: the step's layers are attended one by one, as where whole blocks look at few pages. Layers where a query
    chooses pages for itself are left out, those whose pages are opened by others than the kernels, and those that
    evict by a policy that looks at queries."""
    pool, layout = step.pool, step.pool.layout
    if any(leaves is not None for leaves in step.leaves):
        return None
    if step.backend is not cpu.attend or not pool.keys.is_cpu or max(s.rows for s in step.segments) > paged.FEW:
        return None
    if not serves(pool.dtype, layout.head_dim, layout.page):
        return None
    made = Held(len(step.ropes), layout.kv_heads, pool.keys, pool.values)
    for number, group in enumerate(step.segments[0].sequence.groups):
        tell = _all if group.window is not None or pool.select is None else _chosen
        tell(step, number, _alike(step, group.layers), made)
    if step.segments[0].sequence.lanes is not None and pool.select is None:
        _kept(step, made)
    return made


def _alike(step: Step, layers: Sequence[int]) -> dict[str | None, list[int]]:
    """Those of the layers that turn alike, by rope, with −1 in place of the others."""
    alike: dict[str | None, list[int]] = {}
    for index, layer in enumerate(layers):
        alike.setdefault(step.ropes[layer], [-1] * len(layers))[index] = layer
    return alike


def _all(step: Step, number: int, alike: Mapping[str | None, list[int]], made: Held) -> None:
    """Layers whose queries read all that they see. alike: those of the group that turn alike, by rope."""
    pages = [_pages(step.pool, segment.sequence.groups[number]) for segment in step.segments]
    for rope, layers in alike.items():
        parts = [
            Stretch(
                mine,
                segment.rows,
                reading.first,
                reading.base,
                reading.begin,
                segment.sequence.groups[number].window,
                None if rope is None else reading.distances[rope],
            )
            for mine, segment, reading in zip(pages, step.segments, step.readings[number], strict=True)
            if mine is not None
        ]
        if len(parts) == len(pages):
            turns = step.keys.get(rope), step.queries.get(rope)
            made.reading(layers, step.targets[number], step.offsets, *turns, parts)


def _chosen(step: Step, number: int, alike: Mapping[str | None, list[int]], made: Held) -> None:
    """Layers whose queries read pages that were chosen before, the same in all of them."""
    columns = [_columns(step, segment, rows, number) for segment, rows in zip(step.segments, step.rows, strict=True)]
    pages = [
        None if some is None else _pages(step.pool, segment.sequence.groups[number], some)
        for some, segment in zip(columns, step.segments, strict=True)
    ]
    if any(mine is None for mine in pages):
        return
    for rope, layers in alike.items():
        parts: list[Stretch] = []
        queries: list[tuple[torch.Tensor, torch.Tensor]] = []
        for mine, some, segment, rows in zip(pages, columns, step.segments, step.rows, strict=True):
            assert mine is not None
            assert some is not None
            rotation = None if rope is None else step.turns(segment, rope)
            group = segment.sequence.groups[number]
            view = View.of(
                some, rows, group.first, segment.sequence.start, rotation, step.placement, step.pool.layout.page
            )
            parts.append(Stretch(mine, segment.rows, view.first, view.base, view.begin, None, view.distances))
            if view.queries is not None:
                queries.append(view.queries)
        turn = None if rope is None else packed(queries)
        made.reading(layers, step.targets[number], step.offsets, step.keys.get(rope), turn, parts)


@dataclasses.dataclass(frozen=True)
class KeptText:
    """What eviction left of one segment's text, in all layers. rows: text positions [R]. placed: of all lanes [L·G, S]
    of `kept`, and of their queries."""

    segment: Segment
    lanes: Lanes
    rows: torch.Tensor
    kept: Kept
    placed: Placed

    @classmethod
    def of(cls, step: Step, segment: Segment, rows: torch.Tensor) -> KeptText | None:
        """None: its layers are attended one by one."""
        page, lanes = step.pool.layout.page, segment.sequence.lanes
        assert lanes is not None
        across = step.placement.blockwise and int(rows[0]) // page != int(rows[-1]) // page
        if across or "queries" in lanes.policy.needs or not lanes.readable(len(rows)):
            return None
        kept, own = lanes.everywhere(), torch.from_numpy(lanes.targets(len(rows), lanes.counts - len(rows)))
        placed = step.placement.place(kept.positions.flatten(0, 1), own.flatten(0, 1), rows, page)
        return cls(segment, lanes, rows, kept, placed)

    def part(self, step: Step, rope: str | None, layers: list[int]) -> LaneStretch:
        """For the layers that turn by this rope, −1 in place of the others."""
        turns: Turns | None = None
        queries: tuple[torch.Tensor, torch.Tensor] | None = None
        if rope is not None:
            rotation = step.turns(self.segment, rope)
            for index, layer in enumerate(layers):
                if layer >= 0:
                    self.lanes.turns[index] = rotation.further
            by = self.placed.keys
            turns = Turns(by.view_as(self.kept.positions), *rotation.table(by, self.placed.unit))
            cos, sin = (x.squeeze(-2) for x in towards(self.placed.queries, rotation))
            if self.placed.queries.dim() == 2:
                size = *self.lanes.counts.shape, *cos.shape[-2:]
                cos, sin = cos.view(size), sin.view(size)
            queries = cos, sin
        notes, policy = self.lanes.notes, self.lanes.policy
        return LaneStretch(
            at=self.rows,
            heads=step.pool.layout.heads,
            kept=dataclasses.replace(self.kept, turns=turns),
            slots=int(self.lanes.counts.max()),
            window=policy.window,
            sinks=policy.sinks,
            queries=queries,
            mass=notes.mass,
            recent=notes.recent,
            used=notes.used,
            since=self.lanes.observed_from,
            share=Seen.share,
        )


def _kept(step: Step, made: Held) -> None:
    """Layers where eviction decides what stays: where all slots stand is worked out for all of them at once."""
    left = []
    for segment, rows in zip(step.segments, step.rows, strict=True):
        one = KeptText.of(step, segment, rows)
        if one is None:
            return
        left.append(one)
    pages, places = step.slots
    for rope, layers in _alike(step, left[0].lanes.layers).items():
        parts = [one.part(step, rope, layers) for one in left]
        made.keeping(layers, pages, places, step.keys.get(rope), parts)


def _columns(step: Step, segment: Segment, rows: torch.Tensor, number: int) -> torch.Tensor | None:
    """Columns that all rows of a segment read; None: they read several kinds, or choose for themselves."""
    if isinstance(step.placement, Slot):
        return None
    sequence = segment.sequence
    reader = Reader(step.pool, sequence.groups[number], 0, sequence.start, None, step.placement, True)
    spans = reader.spans(rows.tolist(), sequence)
    return spans[0].always if len(spans) == 1 and not spans[0].few else None


def _pages(pool: Pool, group: Group, columns: torch.Tensor | None = None) -> Pages | None:
    """The pages of a group's layers, or columns of them; None: some are opened by others than the kernels, or come from
    a file."""
    key = None if columns is None else tuple(columns.tolist())
    if group.memo is None or group.memo[0] != key:
        runs = [
            group.runs(pool, index) if columns is None else group.some(pool, index, columns)
            for index in range(len(group.layers))
        ]
        sealed = [run for layer in runs for run in layer if isinstance(run, SealedRun)]
        pages = None
        if not any(run.format.coded is None or run.store.buffers is None for run in sealed):
            pages = Pages([[raw for run in layer for raw in run.raw()] for layer in runs], pool.layout.head_dim)
        group.memo = key, pages
    made = group.memo[1]
    return made if isinstance(made, Pages) else None
