"""What the machine itself can do: how fast memory is read, and how fast matrices are multiplied."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import psutil
import torch

from longspan.engine.llm import EMBEDDED
from longspan.errors import UsageError
from longspan.model.load import DTYPES, inspect

BUFFER = 1 << 30
"""Bytes that are read: far more than any processor's caches hold. Less where memory is short."""
SIDE = 2048
TIMES = 5


@dataclasses.dataclass(frozen=True)
class Limits:
    """bytes_per_second: of reading memory. flops_per_second: of a product of square matrices."""

    bytes_per_second: float
    flops_per_second: float

    def best(self, other: Limits) -> Limits:
        return Limits(
            max(self.bytes_per_second, other.bytes_per_second), max(self.flops_per_second, other.flops_per_second)
        )


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where limits are measured: with the numbers that the model is run in. A machine shared with others is not as fast
    at all times, so what is compared with its limits should be measured just before or after them."""

    dtype: torch.dtype
    device: torch.device
    threads: int

    @classmethod
    def of(cls, model: str | None, dtype: str, device: str, threads: int) -> Machine:
        """model: a folder; None: the embedded one. dtype, device: as `LLM` takes them."""
        if dtype != "auto" and dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}")
        numbers = DTYPES[inspect(model or EMBEDDED).dtype if dtype == "auto" else dtype]
        on_cuda = torch.cuda.is_available() and device != "cpu"
        return cls(numbers, torch.device(("cuda" if device == "auto" else device) if on_cuda else "cpu"), threads)

    def limits(self) -> Limits:
        """The best of several tries."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return Limits(bandwidth(self.device), product(self.dtype, self.device))
        finally:
            torch.set_num_threads(before)


def bandwidth(device: torch.device, size: int = BUFFER) -> float:
    """Bytes per second of reading a buffer once. Sums of float32 and of int64 are tried: which of them keeps up with
    the memory depends on the processor."""
    if device.type == "cpu":
        size = min(size, psutil.virtual_memory().available // 4)
    x = torch.ones(size // 8, dtype=torch.int64, device=device)
    floats = x.view(torch.float32)
    return x.nbytes / min(best(x.sum, device), best(floats.sum, device))


def product(dtype: torch.dtype, device: torch.device, side: int = SIDE) -> float:
    """Floating-point operations per second; a multiplication and an addition are two."""
    a, b = (torch.ones((side, side), dtype=dtype, device=device) for _ in range(2))
    return 2 * side**3 / best(lambda: a @ b, device)


def best(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few calls, after one that does not count."""
    taken = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
