"""The peak of what our engine's process holds of a CPU's memory: counted, but for what was measured of this machine."""

from __future__ import annotations

import dataclasses

from longspan.errors import UsageError
from longspan.kernels.slots import ROWS
from longspan.plan import counts
from longspan.plan.features import SCORED, TOGETHER
from longspan.plan.machine import Machine
from longspan.plan.memory import memory
from longspan.plan.shape import Layer, Shape
from longspan.plan.work import Work

SLOT, SCORE = 24, 16
"""Bytes that are held at a time for each number of a gathered key, in float32, with those of the step before; and for
each score, or number of a query that is turned to a page."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """name; bytes; formula: how they come about."""

    name: str
    bytes: int
    formula: str


@dataclasses.dataclass(frozen=True, slots=True)
class Resident:
    parts: tuple[Held, ...]

    @property
    def total(self) -> int:
        return sum(part.bytes for part in self.parts)


def resident(shape: Shape, work: Work, machine: Machine) -> Resident:
    """The peak of a process that reads and answers under the plan. Raises UsageError for a machine that was not
    calibrated."""
    if machine.costs is None:
        raise UsageError(f"resident memory: {machine.name} was not measured; run longspan plan --calibrate")
    planned = memory(shape, work)
    weights = planned.part("weights")
    rows = max(1, min(counts.step(work), work.context - work.new))
    parts = [
        Held("process", machine.costs.base, "Python with torch, transformers and longspan, as measured"),
        Held("weights", 0 if weights is None else weights.bytes, "" if weights is None else weights.formula),
        Held("cache", planned.cache, "keys and values, summaries and notes, at their most"),
        _body(shape, work, rows),
        max((_attention(layer, work, rows, reach) for layer, reach in _seen(shape, work)), key=lambda one: one.bytes),
    ]
    return Resident(tuple(parts))


def _seen(shape: Shape, work: Work) -> list[tuple[Layer, int | None]]:
    return [(reach.layer, reach.reading) for reach in counts.reaches(shape, work)]


def _body(shape: Shape, work: Work, rows: int) -> Held:
    """An MLP at its widest: the residual stream and its norm; gate, up, what is made of both, and freed buffers that
    none of these fits into."""
    size = rows * work.element * (3 * shape.hidden + 4 * shape.intermediate)
    text = f"{rows:,} rows × {work.element} bytes × (3 × {shape.hidden:,} + 4 × {shape.intermediate:,})"
    return Held("activations", size, text)


def _attention(layer: Layer, work: Work, rows: int, seen: int | None) -> Held:
    """Queries and outputs in float32; where slots are gathered, their keys and values twice over, and scores."""
    heads, lanes, dim = layer.heads, layer.kv_heads, max(layer.qk_dim, layer.v_dim)
    plain = rows * heads * dim * (2 * 4 + work.element)
    text = f"{rows:,} rows × {heads} heads × {dim} × {8 + work.element} bytes"
    if layer.kind in ("sliding", "chunked", "linear") or (work.evict is None and work.select is None):
        return Held("attention", plain, text)
    slots = work.context if seen is None else min(work.context, seen + rows)
    many = min(rows, ROWS if work.select is None else work.page)
    each = 2 * work.element + SLOT
    gathered = lanes * slots * dim * each + heads * many * slots * SCORE
    text += f" + {slots:,} slots × ({lanes} lanes × {dim} × {each} bytes + {heads} heads × {many} rows × {SCORE})"
    if work.select is not None and work.select.pages is not None:
        chosen = min(work.context, slots + work.select.pages * work.page)
        scored = min(SCORED, work.context) * (work.context // work.page) * heads * dim * SCORE
        gathered = max(gathered, TOGETHER * lanes * chosen * dim * each + scored)
        text += f", or {TOGETHER} rows that choose {chosen:,} slots each, {scored:,} bytes for their scores"
    return Held("attention", plain + gathered, text)
