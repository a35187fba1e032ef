"""Attention of one new token or of a chunk of them, and the scores of a selection: compiled kernels beside torch.

    python benchmarks/kernels.py [--parts decode,prefill,sketch] [--tokens 16384] [--layers 30] [--times 9]

decode: for each format milliseconds of all layers, one called after the other and on a tape, as a model's step has
them; the bytes that the keys and values take, and which share of the memory bandwidth that is; the bandwidth is that of
torch's sum over a tensor of so many bytes, measured in turns. prefill: one layer's
attention of a chunk that ends at `tokens`, in GFLOP/s (4·D for each visible pair of query and key, in each query head),
and which share that is of torch's bfloat16 matrix product of 2,048³, measured in the same run. Ratios are what to
quote: absolute times move with the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch

from longspan.cache.formats import FORMATS
from longspan.cache.formats.format import Stored
from longspan.cache.runs import SealedRun
from longspan.cache.summaries.sketch import Sketch
from longspan.kernels import Run, Work, WrittenRun, cpu, paged
from longspan.kernels.cpu.tape import Held, Pages, Stretch, Tape

LANES, GROUP, DIM, PAGE = 3, 3, 64, 64
DTYPE = torch.bfloat16


class Memory:
    """Sealed pages of one layer."""

    def __init__(self, buffers: Stored) -> None:
        self.buffers = buffers

    def take(self, ids: torch.Tensor) -> Stored:
        return {name: buffer[ids] for name, buffer in self.buffers.items()}


def milliseconds(calls: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """The median of each; calls take turns, so that what else the machine does meets all of them alike. Each follows
    one of its own kind that does not count, as in a model: torch's threads wait for more on the cores for a while."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            call()
            began = time.perf_counter()
            call()
            taken[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(x) for name, x in taken.items()}


def layers(name: str, count: int, pages: int, rows: int = 1) -> tuple[list[Work], int]:
    """The work of each layer, and the bytes of all keys and values; the last of `rows` queries is on the last slot."""
    works, size = [], 0
    angle = torch.arange(pages - 1, -1, -1)[:, None] * PAGE / 1e5 ** (torch.arange(DIM // 2) * 2 / DIM)
    for _ in range(count):
        keys, values = torch.randn(pages * LANES, DIM, PAGE), torch.randn(pages * LANES, PAGE, DIM)
        run: Run
        if name == "dense":
            shape = (pages, LANES, DIM, PAGE)
            run = WrittenRun(keys.to(DTYPE).view(shape), values.to(DTYPE).view(shape))
            size += 2 * run.keys.nbytes
        else:
            memory = Memory(FORMATS[name]().seal(keys, values, None))
            run = SealedRun(FORMATS[name](), memory, torch.arange(pages * LANES).view(pages, LANES), DTYPE)
            size += sum(x.nbytes for x in memory.buffers.values())
        q = torch.randn(rows, LANES * GROUP, DIM) / DIM**0.5
        cos, sin = angle.cos(), angle.sin()
        works.append(Work(q, PAGE - rows, -(pages - 1) * PAGE, [run], LANES, PAGE, DTYPE, cos=cos, sin=sin))
    return works, size


def taped(works: list[Work]) -> Callable[[], object]:
    """The same on a tape: new keys go to the last page, and all layers follow each other in one call."""
    rows, heads, _ = works[0].queries.shape
    held = Held(
        len(works), LANES, torch.zeros(LANES, DIM, PAGE, dtype=DTYPE), torch.zeros(LANES, PAGE, DIM, dtype=DTYPE)
    )
    pages = Pages([[raw for run in work.runs for raw in run.raw()] for work in works], DIM)
    first = works[0]
    assert first.cos is not None
    assert first.sin is not None
    part = Stretch(pages, rows, first.first, first.base, first.begin, None, (first.cos, first.sin))
    to = torch.arange(LANES)[None, :, None].expand(len(works), LANES, rows).contiguous()
    held.reading(list(range(len(works))), to, torch.full((rows,), PAGE - 1), None, None, [part])
    tape = Tape(DTYPE)
    key, value = torch.zeros(2, 1, LANES, rows, DIM, dtype=DTYPE)
    for number, work in enumerate(works):
        query = work.queries.to(DTYPE).transpose(0, 1)[None]
        tape.attend(number, query, key, value, 1.0, None, None, torch.empty(1, rows, heads, DIM, dtype=DTYPE))
    return lambda: tape.run(0, held)


def bandwidth(times: int) -> float:
    """GB/s of reading."""
    x = torch.ones(1 << 28, dtype=torch.uint8).view(torch.float32)
    return x.nbytes / milliseconds({"sum": x.sum}, times)["sum"] / 1e6


def decode(count: int, pages: int, times: int, instructions: str | None) -> None:
    rate = bandwidth(times)
    print(f"reading: {rate:.1f} GB/s")
    for name in ("dense", "int8", "int4"):
        works, size = layers(name, count, pages)
        calls = {
            "torch": lambda works=works: [paged.attend(w) for w in works],
            "cpu": lambda works=works: [cpu.attend(w, instructions) for w in works],
            "sum": torch.ones(size // 4).sum,
        }
        if cpu.NATIVE is not None and instructions is None:
            calls["tape"] = taped(works)
        ms = milliseconds(calls, times)
        told = [
            f"{kind} {ms[kind]:.2f} ms ({ms['sum'] / ms[kind]:.0%} of reading)"
            for kind in ("cpu", "tape")
            if kind in ms
        ]
        rate = size / ms["sum"] / 1e6
        print(f"{name:>5}: torch {ms['torch']:.2f} ms, {', '.join(told)}; {size / 1e6:.0f} MB, reading {rate:.1f} GB/s")
        del works, calls


def prefill(tokens: int, times: int, instructions: str | None) -> None:
    a, b = (torch.randn(2048, 2048).to(DTYPE) for _ in range(2))
    for name, rows in (*(("dense", rows) for rows in (64, 256, 1024, 2048)), ("int8", 1024), ("int4", 1024)):
        rows = min(rows, tokens)
        (work,), _ = layers(name, 1, tokens // PAGE, rows)
        calls = {
            "torch": lambda work=work: paged.attend(work),
            "cpu": lambda work=work: cpu.attend(work, instructions),
            "product": lambda: a @ b,
        }
        ms = milliseconds(calls, times)
        pairs = rows * (tokens - rows) + rows * (rows + 1) // 2
        flops = 4 * DIM * LANES * GROUP * pairs
        rate = 2 * 2048**3 / ms["product"]
        print(
            f"{name:>5}, {rows:5,} queries: torch {ms['torch']:8.2f} ms, {flops / ms['torch'] / 1e6:4.0f} GFLOP/s; cpu "
            f"{ms['cpu']:7.2f} ms, {flops / ms['cpu'] / 1e6:4.0f} GFLOP/s ({ms['cpu'] / ms['torch']:.3f}), "
            f"{flops / ms['cpu'] / rate:.0%} of {rate / 1e6:.0f}"
        )


def sketches(pages: int, times: int) -> None:
    select = Sketch()
    shape = {name: ((pages, *size), dtype) for name, (size, dtype) in select.layout(PAGE, DIM).items()}
    stored = {name: torch.empty(*size, dtype=dtype) for name, (size, dtype) in shape.items()}
    for a in range(0, pages, 1024):
        some = select.summarise(torch.randn(min(1024, pages - a), DIM, PAGE))
        for name, x in some.items():
            stored[name][a : a + len(x)] = x
    lane = {name: x[None] for name, x in stored.items()}
    size = sum(x.nbytes for x in stored.values())
    for rows in (1, 3, 16, 64):
        q = torch.randn(1, rows, DIM)
        calls = {"torch": lambda q=q: select.opened(q, lane), "cpu": lambda q=q: select.score(q, lane)}
        ms = milliseconds(calls, times)
        print(
            f"sketch, {pages:,} pages, {rows:2} rows: torch {ms['torch']:8.2f} ms, cpu {ms['cpu']:7.2f} ms "
            f"({ms['cpu'] / ms['torch']:.3f}), {size / 1e6:.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="decode,prefill,sketch")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sketch", type=int, default=15625, metavar="PAGES")
    parser.add_argument("--instructions", default=None)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    levels = cpu.levels()
    print(
        f"{given.threads} threads, load {os.getloadavg()[0]:.1f}; kernels: "
        f"{given.instructions or (levels[cpu.level()] if levels else cpu.why_none())}"
    )
    parts = given.parts.split(",")
    if "decode" in parts:
        decode(given.layers, given.tokens // PAGE, given.times, given.instructions)
    if "prefill" in parts:
        prefill(given.tokens, given.times, given.instructions)
    if "sketch" in parts:
        sketches(given.sketch, given.times)


if __name__ == "__main__":
    main()
