"""How much memory there is, and sizes written as text."""

from __future__ import annotations

import contextlib
import ctypes
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from longspan.errors import UsageError

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "B": 1}
_UNITS |= {unit + tail: 1000**n for n, unit in enumerate("KMGT", 1) for tail in ("", "B")}
_UNITS |= {unit + "IB": 1024**n for n, unit in enumerate("KMGT", 1)}
SHARE = 0.8
"""Of the memory that is free when the model is loaded, the part that the cache may take by default."""


def parse_bytes(size: int | str, what: str = "memory") -> int:
    """Bytes of 800000000, "800MB", "1.5GiB". Raises UsageError for anything else, and below 1."""
    if isinstance(size, int) and not isinstance(size, bool):
        value = float(size)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
        if not match or match[2].upper() not in _UNITS:
            raise UsageError(f"{what}: {size!r} is no size; write it as 800MB or 1.5GiB")
        value = float(match[1]) * _UNITS[match[2].upper()]
    if not 1 <= value < 1 << 62:
        raise UsageError(f"{what}: {size!r} should be at least one byte")
    return int(value)


BUFFER = 32 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def available(device: torch.device) -> int:
    """Bytes that the KV cache may take on the device when the user names no limit."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0] * SHARE)
    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue  # no such control group, or no limit in it ("max")
    return max(int(free * SHARE), 1 << 20)


def peak_rss() -> int:
    """The most bytes of memory that this process has held."""
    with contextlib.suppress(OSError):  # Linux; what getrusage says there begins with the peak of whoever started us
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reuse() -> None:
    """Let freed buffers of a step serve the next one, where the C library would return them to the system (glibc).

    Tensors of up to `BUFFER` bytes come from the heap, and up to twice as many freed bytes stay there.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, BUFFER)
        library.mallopt(_TRIM_THRESHOLD, 2 * BUFFER)
