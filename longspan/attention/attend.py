"""The attention function that transformers' models call in place of their own.

The model runs with all positions zero, so its own rotation is the identity and queries and keys arrive
unrotated; the step travels as a keyword argument. Nothing in the model is patched.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function
from transformers import AttentionInterface

from longspan.attention import kept, select
from longspan.attention.kept_pages import LaneReader
from longspan.attention.step import Cosine, Step, Trial
from longspan.cache.pool import Pool
from longspan.kernels import attend_all, cpu
from longspan.kernels.cpu.linear import narrow
from longspan.kernels.work import Work
from longspan.rope.rotate import turn

NAME = "longspan"


def register() -> None:
    """Make `attn_implementation="longspan"` known to transformers; an unknown mask name builds no mask."""
    AttentionInterface.register(NAME, attend)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    step: Step | Trial,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Write this layer's keys and values into the cache, and attend over what the sequences hold.

    query [1, H, T, D], key and value [1, G, T, D], unrotated; returns [1, T, H, D], contiguous. Keyword arguments
    beyond those named are transformers' own bookkeeping (dropout, position_ids, …) and carry nothing for us. A mode
    of torch's that looks at calls sees one call of this function.
    """
    if has_torch_function((query, key, value)):
        given: dict[str, Any] = {"sliding_window": sliding_window, "softcap": softcap, "s_aux": s_aux}
        return handle_torch_function(
            attend, (query, key, value), module, query, key, value, None, step=step, scaling=scaling, **given
        )
    if isinstance(step, Trial):
        return step.attend(query, key, value), None
    layer: int = module.layer_idx  # type: ignore[assignment]
    number, index = step.place[layer]
    window = None if number is None else step.segments[0].sequence.groups[number].window
    if window != sliding_window:
        raise AssertionError(f"layer {layer}: the model asks for window {sliding_window}, the cache has {window}")
    pool, rope = step.pool, step.ropes[layer]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, H, D], [T, G, D] twice
    if number is None:
        pages, places = (x[index] for x in step.slots)
    else:
        pages, places = step.targets[number][index], step.offsets
    plain = number is not None and (window is not None or pool.select is None)
    q = _placed(pool, q, k, v, step.keys.get(rope), step.queries.get(rope) if plain else None, scaling, pages, places)
    if number is None:
        return _done(_kept(step, layer, index, q, softcap, s_aux), query), None
    if not plain:
        return _done(_selected(step, layer, q, softcap, s_aux), query), None
    works, start = [], 0
    for i, (segment, reading) in enumerate(zip(step.segments, step.readings[number], strict=True)):
        cos_sin = reading.distances[rope] if rope is not None else (None, None)
        work = Work(
            queries=q[start : start + segment.rows],
            first=reading.first,
            base=reading.base,
            begin=reading.begin,
            runs=segment.sequence.groups[number].runs(pool, index),
            kv_heads=pool.layout.kv_heads,
            page=pool.layout.page,
            dtype=pool.dtype,
            cos=cos_sin[0],
            sin=cos_sin[1],
            window=window,
            softcap=softcap,
            sinks=s_aux,
        )
        works.append(step.chosen(work, i))
        start += segment.rows
    return _done(attend_all(step.backend, works), query), None


def _done(out: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """[1, T, H, D] as the model takes it; how it lies in memory does not depend on how it was made."""
    return narrow(out, query.dtype).contiguous()[None]


def _placed(
    pool: Pool,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    turn_keys: Cosine | None,
    turn_queries: Cosine | None,
    scaling: float,
    pages: torch.Tensor,
    places: torch.Tensor,
) -> torch.Tensor:
    """Keys and values [T, G, D] go to their pages; the queries [T, H, D] turned and scaled, in float32."""
    done = cpu.place(q, k, v, turn_keys, turn_queries, scaling, pages, places, pool.keys, pool.values)
    if done is not None:
        return done
    k = k if turn_keys is None else turn(k, *turn_keys)
    pool.keys[pages, :, places] = k.transpose(0, 1).to(pool.dtype)
    pool.values[pages, places] = v.transpose(0, 1).to(pool.dtype)
    return (q if turn_queries is None else turn(q, *turn_queries)).float() * scaling


def _kept(
    step: Step, layer: int, index: int, q: torch.Tensor, softcap: float | None, s_aux: torch.Tensor | None
) -> torch.Tensor:
    """Attention of all segments over lanes; q [T, H, D] unrotated and scaled."""
    outputs, start = [], 0
    for segment, rows in zip(step.segments, step.rows, strict=True):
        lanes, rotation = segment.sequence.lanes, step.rotation(segment, layer)
        assert lanes is not None
        if rotation is not None:
            lanes.turns[index] = rotation.further
        asked = kept.Asked(q[start : start + segment.rows], rows, softcap, s_aux)
        if step.pool.select is None:
            compiled = step.backend is cpu.attend
            outputs.append(kept.attend(lanes, index, asked, rotation, step.placement, compiled))
        else:
            lanes.align = step.placement.align
            reader = LaneReader(lanes, index, segment.sequence.start, rotation, step.placement)
            outputs.append(reader.attend(asked, segment.sequence.asks(rows.cpu().numpy())))
        start += segment.rows
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _selected(
    step: Step, layer: int, q: torch.Tensor, softcap: float | None, s_aux: torch.Tensor | None
) -> torch.Tensor:
    """Attention of all segments over the pages that each query reads; q [T, H, D] unrotated and scaled."""
    number, index = step.place[layer]
    assert number is not None
    parts: list[select.Part] = []
    start = 0
    for segment, rows in zip(step.segments, step.rows, strict=True):
        sequence, rotation = segment.sequence, step.rotation(segment, layer)
        place = step.pool, sequence.groups[number], index, sequence.start
        reader = select.Reader(*place, rotation, step.placement, step.backend is cpu.attend)
        asked = kept.Asked(q[start : start + segment.rows], rows, softcap, s_aux)
        parts += reader.parts(asked, sequence)
        start += segment.rows
    outputs = select.attend(parts, step.backend)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
