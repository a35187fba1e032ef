"""The peak of what our engine's process holds of a CPU's memory: counted, but for what was measured of this machine."""

from __future__ import annotations

import dataclasses

from longspan.errors import UsageError
from longspan.plan import counts
from longspan.plan.features import SCORED
from longspan.plan.machine import Machine
from longspan.plan.memory import memory
from longspan.plan.shape import Layer, Shape
from longspan.plan.work import Work

LAYER = 350_000
"""Bytes of the objects that run a layer, whatever its size: Python's, torch's and the kernels'. Seen of models of 2 to
64 layers."""
SLOT, PLACE, SCORE = 12, 32, 8
"""Bytes that are held at a time for each number of a gathered key, in float32: turned, and laid out for the kernel
beside its value; for where each slot that a row chose stands, in each lane; and for each number of a query that is
turned to a page whose summary it meets."""


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
        Held("layers", len(shape.layers) * LAYER, f"{len(shape.layers)} layers × {LAYER:,} bytes of objects"),
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
    """Queries and outputs in float32; where slots are gathered, their keys and values as stored and as numbers."""
    heads, lanes, dim = layer.heads, layer.kv_heads, max(layer.qk_dim, layer.v_dim)
    plain = rows * heads * dim * (2 * 4 + work.element)
    text = f"{rows:,} rows × {heads} heads × {dim} × {8 + work.element} bytes"
    if layer.kind in ("sliding", "chunked", "linear") or (work.evict is None and work.select is None):
        return Held("attention", plain, text)
    slots = work.context if seen is None else min(work.context, seen + rows)
    if work.select is None:
        each = 2 * work.element + SLOT
        text += f" + {slots:,} slots × {lanes} lanes × {dim} × {each} bytes"
        return Held("attention", plain + lanes * slots * dim * each, text)
    if work.select.pages is None:
        return Held("attention", plain, text)
    chosen = min(work.context, slots + work.select.pages * work.page)
    scored = min(SCORED, work.context) * (work.context // work.page) * heads * dim * SCORE
    places = work.page * chosen * (lanes * PLACE + heads * 4)
    text += f" + {work.page} rows × {chosen:,} slots × ({lanes} lanes × {PLACE} + {heads} heads × 4 bytes)"
    text += f" + {scored:,} bytes for what they choose from"
    return Held("attention", plain + places + scored, text)
