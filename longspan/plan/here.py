"""Which machine this is: what a measurement holds for."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from longspan.kernels.cpu.native import level, levels

FEATURES = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "sve", "bf16", "i8mm"),
)
"""Those of a CPU that matter to matrix work."""


def processor(path: Path = Path("/proc/cpuinfo")) -> tuple[str, list[str]]:
    """The CPU's name, and those of its features that matter; from Linux's list where there is one."""
    try:
        pairs = [line.partition(":") for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        pairs = []
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip().lower(), value.strip())
    flags = set((found.get("flags") or found.get("features") or "").split())
    name = found.get("model name") or platform.processor() or platform.machine() or "unknown"
    return name, [feature for feature in FEATURES if feature in flags]


def identity() -> dict[str, str]:
    """What times depend on: the processor, how many threads are used, the kernels, and the versions that run."""
    name, features = processor()
    known = levels()
    return {
        "processor": name,
        "features": " ".join(features),
        "cores": str(os.cpu_count() or 1),
        "threads": str(torch.get_num_threads()),
        "kernels": known[level()] if known else "none",
        "longspan": version("longspan"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
