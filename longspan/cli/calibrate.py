"""`longspan plan --calibrate`: measure this machine, and keep what came of it for later plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longspan.cli import say

if TYPE_CHECKING:
    from longspan.plan.calibration import Calibration


def measured() -> tuple[Calibration, Path]:
    """What was measured, and where it is kept. Takes up to a minute; nothing else should run meanwhile."""
    from longspan.bench.calibrate import calibrate as measure

    made = measure(lambda what, done, total: say.note(f"{done + 1} of {total}: {what}"))
    return made, made.save()


def calibrate(json: bool) -> None:
    """Measure, keep and tell."""
    made, path = measured()
    if json:
        say.dump(
            {
                "calibration": str(path),
                "seconds": made.seconds,
                "bytes_per_second": made.bandwidth,
                "flops_per_second": made.flops,
                "spread": made.costs.spread,
                "base_bytes": made.costs.base,
                "machine": made.identity,
                "rates": made.costs.rates,
            }
        )
        return
    say.table(
        [
            ("machine", f"{made.identity['processor']}, {made.identity['threads']} threads"),
            ("kernels", made.identity["kernels"]),
            ("memory is read at", f"{made.bandwidth / 1e9:.1f} GB/s"),
            ("matrices are multiplied at", f"{made.flops / 1e9:,.0f} GFLOP/s"),
            ("a process holds", f"{say.size(made.costs.base)} before its model"),
            ("steps differ from their costs by", f"{made.costs.spread:.0%} (the median)"),
            ("measured in", f"{made.seconds:.0f} s"),
            ("kept in", str(path)),
        ]
    )
