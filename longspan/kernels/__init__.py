"""Attention over pages. One contract (`work.Work`), several backends; `reference` is the specification."""

from __future__ import annotations

from collections.abc import Callable

import torch

from longspan.errors import UsageError
from longspan.kernels import paged, reference
from longspan.kernels.work import Run, Work, WrittenRun

Backend = Callable[[Work], torch.Tensor]

BACKENDS: dict[str, Backend] = {"torch": paged.attend, "reference": reference.attend}


def backend(name: str) -> Backend:
    """The backend called `name`. Raises UsageError for an unknown one."""
    if name not in BACKENDS:
        raise UsageError(f"backend: unknown {name!r}; known: {', '.join(BACKENDS)}")
    return BACKENDS[name]


__all__ = ["BACKENDS", "Backend", "Run", "Work", "WrittenRun", "backend"]
