"""Attention of one new token and the scores of a selection on a GPU: Triton's kernels beside torch, in one run.

    python benchmarks/triton_kernels.py [--tokens 16384 131072] [--layers 8] [--times 20]

For each length and format: milliseconds a layer, the bytes of the keys and values, and which share of the memory
bandwidth that is; the bandwidth is that of copying a large tensor on the device (bytes read and written), measured in
the same run. Layers take turns, so that none is found in a cache. Times are from the first launch to the last result:
where launching takes longer than the work, `launching` says so. Needs a CUDA device.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from longspan.cache.formats import FORMATS
from longspan.cache.formats.format import Stored
from longspan.cache.runs import SealedRun
from longspan.cache.summaries.sketch import Sketch
from longspan.kernels import Run, Work, WrittenRun, paged, triton

LANES, GROUP, DIM, PAGE = 8, 4, 128, 64
DTYPE = torch.bfloat16
BLOCK = 1024
"""Pages made or sealed at a time."""


class Memory:
    """Sealed pages of one layer."""

    def __init__(self, buffers: Stored) -> None:
        self.buffers = buffers

    def take(self, ids: torch.Tensor) -> Stored:
        return {name: buffer[ids] for name, buffer in self.buffers.items()}


def milliseconds(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Medians of the time until the last result, and of the time that launching takes."""
    whole, launching = [], []
    for i in range(times + 3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        launched = time.perf_counter()
        torch.cuda.synchronize()
        if i >= 3:  # the first compile
            whole.append(1000 * (time.perf_counter() - began))
            launching.append(1000 * (launched - began))
    return statistics.median(whole), statistics.median(launching)


def layers(name: str, count: int, pages: int, device: str) -> tuple[list[Work], int]:
    """The work of each layer, and the bytes of all keys and values."""
    works, size = [], 0
    angle = torch.arange(pages - 1, -1, -1)[:, None] * PAGE / 1e5 ** (torch.arange(DIM // 2) * 2 / DIM)
    cos, sin = angle.cos().to(device), angle.sin().to(device)
    for _ in range(count):
        stored = made(name, pages * LANES, device)
        size += sum(x.nbytes for x in stored.values())
        run: Run
        if name == "dense":
            run = WrittenRun(*(x.unflatten(0, (pages, LANES)) for x in (stored["keys"], stored["values"])))
        else:
            ids = torch.arange(pages * LANES, device=device).view(pages, LANES)
            run = SealedRun(FORMATS[name](), Memory(stored), ids, DTYPE)
        q = torch.randn(1, LANES * GROUP, DIM, device=device) / DIM**0.5
        works.append(Work(q, PAGE - 1, -(pages - 1) * PAGE, [run], LANES, PAGE, DTYPE, cos=cos, sin=sin))
    return works, size


def made(name: str, count: int, device: str) -> Stored:
    """Random pages as the format stores them."""
    parts = []
    for a in range(0, count, BLOCK):
        n = min(BLOCK, count - a)
        keys, values = torch.randn(n, DIM, PAGE, device=device), torch.randn(n, PAGE, DIM, device=device)
        parts.append(FORMATS[name]().seal(keys.to(DTYPE), values.to(DTYPE), None))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def bandwidth(times: int) -> float:
    """GB/s of copying, read and written."""
    large = torch.ones(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(large)
    return 2 * large.nbytes / milliseconds(lambda: other.copy_(large), times)[0] / 1e6


def sketches(pages: int, times: int, rate: float, device: str) -> None:
    parts = [Sketch().summarise(torch.randn(BLOCK, DIM, PAGE, device=device)) for _ in range(pages // BLOCK)]
    stored = {name: torch.cat([part[name] for part in parts])[None] for name in parts[0]}
    size = sum(x.nbytes for x in stored.values())
    for rows in (1, 4, 16, 64):
        q = torch.randn(1, rows, DIM, device=device)
        torch_ms, _ = milliseconds(lambda q=q: Sketch().opened(q, stored), times)
        ms, launching = milliseconds(lambda q=q: Sketch().score(q, stored), times)
        print(
            f"sketch, {stored['codes'].shape[1]:,} pages, {rows:2} rows: torch {torch_ms:8.3f} ms, triton {ms:7.3f} ms "
            f"(launching {launching:.3f}); {size / 1e6:.0f} MB, {size / ms / 1e6:.0f} GB/s, "
            f"{size / ms / 1e6 / rate:.0%} of copying"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[16384, 131072])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--sketch", type=int, default=16384, metavar="PAGES")
    given = parser.parse_args()
    reason = "TRITON_INTERPRET=1 is set" if triton.interpreted() else triton.why_none()
    if reason is not None:
        sys.exit(f"triton_kernels.py measures a GPU, and there is none to measure: {reason}")
    torch.manual_seed(0)
    rate = bandwidth(given.times)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; copying: {rate:.0f} GB/s")
    for tokens in given.tokens:
        for name in ("dense", "int8", "int4"):
            works, size = layers(name, given.layers, tokens // PAGE, "cuda")
            off = max(float((triton.attend(w) - paged.attend(w)).abs().max()) for w in works)
            torch_ms, _ = milliseconds(lambda works=works: [paged.attend(w) for w in works], given.times)
            ms, launching = milliseconds(lambda works=works: [triton.attend(w) for w in works], given.times)
            print(
                f"{tokens:,} tokens, {name:>5}: torch {torch_ms / given.layers:8.3f} ms, triton "
                f"{ms / given.layers:7.3f} ms (launching {launching / given.layers:.3f}); {size / 1e6:.0f} MB, "
                f"{size / ms / 1e6:.0f} GB/s, {size / ms / 1e6 / rate:.0%} of copying; differ by {off:.1e}"
            )
            del works
    if given.sketch:
        sketches(given.sketch, given.times, rate, "cuda")


if __name__ == "__main__":
    main()
