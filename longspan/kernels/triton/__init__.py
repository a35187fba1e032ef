"""Triton kernels for CUDA: attention of few rows over pages where they lie, and scores for selection.

TRITON_INTERPRET=1 in the environment runs them on CPUs through Triton's interpreter, for tests. Triton itself is only
loaded by what uses it.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from longspan.kernels import paged
from longspan.kernels.work import Work

FEW = paged.FEW
"""Rows up to which these kernels serve; more are read by torch."""
LEAST = 16
"""Slots of the smallest page that they take."""
WIDEST = 256
"""Channels of the largest head that they take."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def why_none() -> str | None:
    """Why these kernels are not here; None: they are."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; torch for CUDA brings it on Linux, or `pip install 'longspan[gpu]'`"
    if not interpreted() and not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return None


def interpreted() -> bool:
    """Whether the kernels run through Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(work: Work) -> str | None:
    """What of this work is not for these kernels; None: nothing."""
    rows, _, dim = work.queries.shape
    if rows > FEW:
        return f"{rows} rows; {FEW} are the most"
    if work.subset is not None:
        return "blocks of queries that read a part of the pages"
    if not _reaches(work.queries.device):
        return f"it lies on {work.queries.device}"
    if work.dtype not in DTYPES or work.queries.dtype == torch.float64:
        return f"keys in {work.dtype}, queries in {work.queries.dtype}"
    if dim > WIDEST:
        return f"head_dim {dim}; {WIDEST} is the most"
    if not _pages(work.page):
        return f"pages of {work.page} slots; a power of 2 from {LEAST} on serves"
    return None


def attend(work: Work) -> Tensor:
    """Attention over pages; see `Work`. What these kernels do not do (`why_not`), the torch path does."""
    if why_not(work) is not None:
        return paged.attend(work)
    from longspan.kernels.triton import decode

    return decode.attend(work)


def score_sketch(queries: Tensor, codes: Tensor, low: Tensor, step: Tensor) -> Tensor | None:
    """As `kernels.cpu.score_sketch`. None: these kernels do not serve, for want of them, or on such a device or
    shape."""
    if why_none() is not None or not _reaches(queries.device) or not _pages(codes.shape[-1]):
        return None
    from longspan.kernels.triton import sketch

    return sketch.score(queries, codes, low, step)


def _reaches(device: torch.device) -> bool:
    return device.type == "cuda" or (device.type == "cpu" and interpreted())


def _pages(slots: int) -> bool:
    return slots >= LEAST and slots & (slots - 1) == 0
