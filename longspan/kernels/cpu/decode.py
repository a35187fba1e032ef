"""Attention of few rows over pages where they lie, in whatever format."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels import paged
from longspan.kernels.cpu.native import NATIVE, level
from longspan.kernels.work import Raw, Work

UNIT = 16
"""Slots and channels come in multiples of so many: what a vector holds."""

DENSE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
CODED = {"int8": 3, "int4": 4}


def attend(work: Work, instructions: str | None = None) -> Tensor:
    """Attention over pages; see `Work`. What these kernels do not do (`why_not`), the torch path does.

    instructions: the instruction set to use; None: see `native.level`.
    """
    if NATIVE is None or why_not(work) is not None:
        return paged.attend(work)
    rows, heads, dim = work.queries.shape
    queries = work.queries.float().contiguous()
    cos, sin, sinks = (None if x is None else x.float().contiguous() for x in (work.cos, work.sin, work.sinks))
    half = 0 if cos is None else cos.shape[-1]
    decode = NATIVE.Decode(
        level(instructions),
        torch.get_num_threads(),
        queries.data_ptr(),
        *(rows, heads, work.kv_heads, dim, work.page),
        *(work.first, work.base, max(work.begin, work.base), work.window or 0),
        *(half, address(cos), address(sin)),
        work.softcap or 0.0,
    )
    held, start = [], 0
    for run in work.runs:
        for raw in run.raw():
            if raw.pages:
                decode.add(*operands(raw, start, dim))
            if raw.fleeting:
                decode.read()
            else:
                held.append(raw)
            start += raw.pages
    out = torch.empty((rows, heads, dim))
    decode.finish(address(sinks), out.data_ptr())
    return out.to(work.queries.dtype)


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
