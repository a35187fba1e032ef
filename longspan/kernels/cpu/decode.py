"""Attention of few rows over pages where they lie, in whatever format.

Where the processor multiplies bfloat16 numbers and the cache holds them, so do the products; they sum in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longspan.kernels.cpu.native import NATIVE, level
from longspan.kernels.work import Raw, Work

UNIT = 16
"""Slots and channels come in multiples of so many: what a vector holds."""

DENSE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
CODED = {"int8": 3, "int4": 4}


def attend(works: Sequence[Work], out: Tensor, instructions: str | None = None) -> None:
    """Attention of works that these kernels serve (`why_not`), in one parallel region, to out [ΣR, H, D] float32.

    instructions: the instruction set to use; None: see `native.level`.
    """
    assert NATIVE is not None, "compiled kernels"
    decode = NATIVE.Decode(level(instructions), torch.get_num_threads())
    to, row = out.data_ptr(), out.stride(0) * out.element_size()
    held: list[object] = []
    for work in works:
        tensors, numbers = described(work)
        held.append(tensors)
        decode.work(*numbers, to)
        to += len(work.queries) * row
        held.append(feed(decode, work))
    decode.finish()


def described(work: Work) -> tuple[tuple[Tensor | None, ...], tuple[int | float, ...]]:
    """What compiled classes are told of a work besides its pages; and the tensors that this points into."""
    rows, heads, dim = work.queries.shape
    queries = work.queries.float().contiguous()
    cos, sin, sinks = (None if x is None else x.float().contiguous() for x in (work.cos, work.sin, work.sinks))
    numbers = (
        queries.data_ptr(),
        *(rows, heads, work.kv_heads, dim, work.page),
        *(work.first, work.base, max(work.begin, work.base), work.window or 0),
        *(0 if cos is None else cos.shape[-1], address(cos), address(sin)),
        work.softcap or 0.0,
        work.dtype == torch.bfloat16,
        address(sinks),
    )
    return (queries, cos, sin, sinks), numbers


def feed(reader: Any, work: Work) -> list[Raw]:
    """Give a compiled class the pages of a work; those that must stay until it has finished."""
    held, start = [], 0
    for run in work.runs:
        for raw in run.raw():
            if raw.pages:
                reader.add(*operands(raw, start, work.queries.shape[2]))
            if raw.fleeting:
                reader.read()
            else:
                held.append(raw)
            start += raw.pages
    return held


def why_not(work: Work) -> str | None:
    """What of this work is not for these kernels; None: nothing."""
    dim = work.queries.shape[-1]
    if work.queries.device.type != "cpu":
        return f"it lies on {work.queries.device}"
    if work.dtype not in DENSE or work.queries.dtype == torch.float64:
        return f"keys in {work.dtype}, queries in {work.queries.dtype}"
    if dim % UNIT or work.page % UNIT:
        return f"head_dim {dim} or pages of {work.page} are no multiples of {UNIT}"
    return None


def operands(raw: Raw, start: int, dim: int) -> tuple[int, ...]:
    """What `add` takes of the compiled classes. start: number of the first page."""
    kind = DENSE[raw.buffers["keys"].dtype] if raw.format == "dense" else CODED[raw.format]
    for name, buffer in raw.buffers.items():
        assert buffer.is_contiguous(), f"{name} of {raw.format} pages"
    assert raw.ids is None or (raw.ids.is_contiguous() and raw.ids.dtype == torch.int64), "ids of pages"
    names = ("keys", "values", "key_min", "key_step", "value_min", "value_step")
    places = [address(raw.buffers.get(name)) for name in names]
    groups = raw.buffers["value_min"].shape[-1] if kind in CODED.values() else 1
    return (kind, start, raw.pages, address(raw.ids), *places, groups)


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
