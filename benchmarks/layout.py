"""How fast torch reads pages in each layout: the table in docs/measurements.md.

python benchmarks/layout.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

PAGES, LANES, QUERIES, DIM, PAGE = 256, 3, 3, 64, 64


def milliseconds(call: Callable[[], object], times: int = 20) -> float:
    """The median of `times` calls after three to warm up."""
    taken = []
    for i in range(times + 3):
        began = time.perf_counter()
        call()
        if i >= 3:
            taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def main() -> None:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    for dtype in (torch.bfloat16, torch.float32):
        by_channel = torch.randn(PAGES, LANES, DIM, PAGE).to(dtype)
        by_token = torch.randn(PAGES, LANES, PAGE, DIM).to(dtype)
        q = torch.randn(PAGES, LANES, QUERIES, DIM).to(dtype)
        weights = torch.softmax(torch.randn(PAGES, LANES, QUERIES, PAGE), -1).to(dtype)
        rows = torch.randn(1, LANES, QUERIES, DIM).to(dtype)
        flat = torch.randn(1, LANES, PAGES * PAGE, DIM).to(dtype)
        calls: dict[str, Callable[[], object]] = {
            "q [g, D] x keys [D, P]": lambda q=q, k=by_channel: q @ k,
            "q [g, D] x keys [P, D]^T": lambda q=q, k=by_token: q @ k.transpose(-1, -2),
            "keys [P, D] x q^T": lambda q=q, k=by_token: k @ q.transpose(-1, -2),
            "weights x values, summed": lambda w=weights, v=by_token: (w @ v).sum(0),
            "flash attention, 3 rows": lambda q=rows, k=flat: flash(q, k, k),
        }
        for name, call in calls.items():
            print(f"{dtype!s:>15}  {name:<26} {milliseconds(call):6.2f} ms")


if __name__ == "__main__":
    main()
