"""One row through the linear layers of a model: compiled kernels, torch's own product, torch's packed codes.

    python benchmarks/linear.py [--times 30] [--threads 2]

Shape: 30 layers of hidden size 576, 9 query and 3 KV heads of 64, MLP 1,536, and an output head of 49,152, random.
Milliseconds a step, GB/s, and the share of the bandwidth of torch's sum over a large tensor, measured in the same run
and in turns. Ratios are what to quote: absolute times move with the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from longspan.kernels import codes
from longspan.kernels.cpu import linear

HIDDEN, MLP, KV, LAYERS, VOCAB = 576, 1536, 192, 30, 49152
SHAPES = [[(HIDDEN, HIDDEN), (KV, HIDDEN), (KV, HIDDEN)], [(HIDDEN, HIDDEN)], [(MLP, HIDDEN)] * 2, [(HIDDEN, MLP)]]
Step = Callable[[], object]


def milliseconds(calls: dict[str, Step], times: int) -> dict[str, float]:
    """Medians of calls made in turns, each after two that are not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times + 1):
        for name, call in calls.items():
            for _ in range(2):  # torch's threads keep their cores busy for a while after its own calls
                time.sleep(0.005)
                call()
            begin = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(all[1:]) for name, all in taken.items()}


def matrix(size: tuple[int, int], form: str | None) -> Tensor:
    weight = torch.randn(size) * 0.05
    return weight.bfloat16() if form is None else codes.quantize(weight, codes.BITS[form])


def compiled(form: str | None, groups: list[list[tuple[int, int]]], threads: int) -> tuple[Step, int]:
    calls, held, size = [], [], 0
    for sizes in groups:
        weights = [matrix(s, form) for s in sizes]
        act = "silu" if len(sizes) == 2 else None
        columns = sizes[0][1]
        p = linear.Prepared(weights, act=act, codes=form, columns=columns, dtype=torch.bfloat16)
        x, out = torch.randn(1, columns).bfloat16(), [torch.empty(1, n, dtype=torch.bfloat16) for n in p.results]
        calls.append((p.run, (x.data_ptr(), *(o.data_ptr() for o in out))))
        held.append((p, x, out))
        size += sum(w.nbytes for w in weights)

    def step(held: object = held) -> None:
        for run, places in calls:
            run(threads, 1, *places)

    return step, size


def torches(form: str | None, groups: list[list[tuple[int, int]]]) -> tuple[Step, int]:
    calls: list[Callable[[], Tensor]] = []
    size = 0
    for sizes in groups:
        for n, k in sizes:
            x = torch.randn(1, k).bfloat16()
            if form is None:
                w = matrix((n, k), None)
                calls.append(lambda x=x, w=w: functional.linear(x, w))
            elif form == "int8":
                w, scale = torch.randint(-128, 127, (n, k), dtype=torch.int8), torch.rand(n).bfloat16()
                calls.append(lambda x=x, w=w, s=scale: torch._weight_int8pack_mm(x, w, s))
            else:
                w = torch._convert_weight_to_int4pack_for_cpu(torch.randint(0, 16, (n, k), dtype=torch.int32), 1)
                both = torch.rand(k // 64, n, 2).bfloat16()
                calls.append(lambda x=x, w=w, b=both: torch._weight_int4pack_mm_for_cpu(x, w, 64, b))
            size += w.nbytes
    return lambda: [call() for call in calls], size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    large = torch.ones(1 << 26)
    print(f"{given.threads} threads, load {os.getloadavg()[0]:.1f}")
    for what, groups in (("layers", SHAPES * LAYERS), ("head", [[(VOCAB, HIDDEN)]])):
        for form in (None, "int8", "int4"):
            ours, size = compiled(form, groups, given.threads)
            theirs, other = torches(form, groups)
            ms = milliseconds({"sum": large.sum, "compiled": ours, "torch": theirs}, given.times)
            rate = large.nbytes / ms["sum"] / 1e6
            for name, bytes_ in (("compiled", size), ("torch", other)):
                speed = bytes_ / ms[name] / 1e6
                print(
                    f"{what:7}{form or 'bfloat16':9}{name:9}{ms[name]:7.2f} ms {speed:6.1f} GB/s "
                    f"{speed / rate:5.0%} of {rate:.1f} GB/s; {ms[name] / ms['torch']:.2f} of torch"
                )


if __name__ == "__main__":
    main()
