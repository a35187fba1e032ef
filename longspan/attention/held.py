"""What a step of few rows writes and reads in the cache, told once for all layers."""

from __future__ import annotations

from longspan.attention.step import Step
from longspan.cache.group import Group
from longspan.cache.pool import Pool
from longspan.cache.runs import SealedRun
from longspan.kernels import cpu, paged
from longspan.kernels.cpu.tape import Held, Pages, Stretch, serves


def held(step: Step) -> Held | None:
    """None: the step's layers are attended one by one. Layers that choose pages or evict are left out, and those whose
    pages are opened by others than the kernels."""
    pool, layout = step.pool, step.pool.layout
    if step.backend is not cpu.attend or not pool.keys.is_cpu or max(s.rows for s in step.segments) > paged.FEW:
        return None
    if not serves(pool.dtype, layout.head_dim, layout.page):
        return None
    made = None
    for number, group in enumerate(step.segments[0].sequence.groups):
        if group.window is None and pool.select is not None:
            continue
        mine = [_pages(pool, segment.sequence.groups[number]) for segment in step.segments]
        known = [pages for pages in mine if pages is not None]
        if len(known) < len(mine):
            continue
        made = made or Held(len(step.ropes), layout.kv_heads, pool.keys, pool.values)
        _tell(step, number, group, known, made)
    return made


def _tell(step: Step, number: int, group: Group, known: list[Pages], made: Held) -> None:
    """The layers of a group, those together that turn alike."""
    alike: dict[str | None, list[int]] = {}
    for index, layer in enumerate(group.layers):
        alike.setdefault(step.ropes[layer], [-1] * len(group.layers))[index] = layer
    for rope, layers in alike.items():
        parts = [
            Stretch(
                pages,
                segment.rows,
                reading.first,
                reading.base,
                reading.begin,
                group.window,
                None if rope is None else reading.distances[rope],
            )
            for pages, segment, reading in zip(known, step.segments, step.readings[number], strict=True)
        ]
        turns = step.keys.get(rope), step.queries.get(rope)
        made.reading(layers, step.targets[number], step.offsets, *turns, parts)


def _pages(pool: Pool, group: Group) -> Pages | None:
    """The pages of a group's layers; None: some are opened by others than the kernels, or come from a file."""
    if group.memo is None:
        runs = [group.runs(pool, index) for index in range(len(group.layers))]
        sealed = [run for layer in runs for run in layer if isinstance(run, SealedRun)]
        if any(run.format.coded is None or run.store.buffers is None for run in sealed):
            group.memo = False
        else:
            group.memo = Pages([[raw for run in layer for raw in run.raw()] for layer in runs], pool.layout.head_dim)
    return group.memo if isinstance(group.memo, Pages) else None
