"""Attention over pages. One contract (`work.Work`), several backends; `reference` is the specification."""

from __future__ import annotations

from collections.abc import Callable

import torch

from longspan.errors import UsageError
from longspan.kernels import cpu, paged, reference
from longspan.kernels.work import Raw, Run, ScatteredRun, Subset, Work, WrittenRun

Backend = Callable[[Work], torch.Tensor]

BACKENDS: dict[str, Backend] = {"torch": paged.attend, "reference": reference.attend}
"""Those that are here. `cpu` is compiled, and serves CPUs."""
if cpu.NATIVE is not None:
    BACKENDS["cpu"] = cpu.attend


def backend(name: str) -> Backend:
    """The backend called `name`; auto: `cpu` where it was compiled, which leaves other devices to `torch`, else
    `torch`. Raises UsageError for an unknown one, and for one that was not compiled."""
    if name == "auto":
        return BACKENDS.get("cpu", paged.attend)
    if name == "cpu" and name not in BACKENDS:
        raise UsageError(f"backend: {name!r} is not here ({cpu.why_none()}); known: auto, {', '.join(BACKENDS)}")
    if name not in BACKENDS:
        raise UsageError(f"backend: unknown {name!r}; known: {', '.join(BACKENDS)}, auto")
    return BACKENDS[name]


__all__ = ["BACKENDS", "Backend", "Raw", "Run", "ScatteredRun", "Subset", "Work", "WrittenRun", "backend"]
