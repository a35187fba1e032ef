"""Attention over pages. One contract (`work.Work`), several backends; `reference` is the specification."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from longspan.errors import UsageError
from longspan.kernels import cpu, paged, reference, triton
from longspan.kernels.work import Raw, Run, ScatteredRun, Subset, Work, WrittenRun

Backend = Callable[[Work], torch.Tensor]

BACKENDS: dict[str, Backend] = {"torch": paged.attend, "reference": reference.attend}
"""Those that are here. `cpu` is compiled, and serves CPUs; `triton` serves CUDA."""
ABSENT: dict[str, str] = {}
"""Those that are not, and why."""
if cpu.NATIVE is not None:
    BACKENDS["cpu"] = cpu.attend
else:
    ABSENT["cpu"] = cpu.why_none()
if (_why := triton.why_none()) is None:
    BACKENDS["triton"] = triton.attend
else:
    ABSENT["triton"] = _why


def backend(name: str, device: torch.device | str = "cpu") -> Backend:
    """The backend called `name`; auto: on a CUDA device `triton`, on others `cpu`, where they are here, else `torch`.
    Raises UsageError for an unknown one, and for one that is not here."""
    if name == "auto":
        return BACKENDS.get("triton" if torch.device(device).type == "cuda" else "cpu", paged.attend)
    if name in ABSENT:
        raise UsageError(f"backend: {name!r} is not here ({ABSENT[name]}); known: auto, {', '.join(BACKENDS)}")
    if name not in BACKENDS:
        raise UsageError(f"backend: unknown {name!r}; known: {', '.join(BACKENDS)}, auto")
    return BACKENDS[name]


def attend_all(backend: Backend, works: Sequence[Work]) -> torch.Tensor:
    """Attention [ΣR, H, D] of works of the same shape but for their rows, as `backend` does it; `cpu` does all at
    once."""
    if backend is cpu.attend:
        return cpu.attend_all(works)
    outputs = [backend(work) for work in works]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def score_sketch(
    queries: torch.Tensor, codes: torch.Tensor, low: torch.Tensor, step: torch.Tensor
) -> torch.Tensor | None:
    """See `cpu.score_sketch`; on a CUDA device by Triton. None: no kernel serves."""
    if queries.device.type == "cuda":
        return triton.score_sketch(queries, codes, low, step)
    return cpu.score_sketch(queries, codes, low, step)


page_shares = cpu.page_shares
"""See `shares.page_shares`: compiled wherever it serves, whatever the backend, as with sketches."""

__all__ = ["ABSENT", "BACKENDS", "Backend", "Raw", "Run", "ScatteredRun", "Subset", "Work", "WrittenRun", "backend"]
__all__ += ["attend_all", "page_shares", "score_sketch"]
