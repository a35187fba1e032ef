"""SnapKV with budgets that shrink with depth."""

from __future__ import annotations

import dataclasses

from longspan.cache.eviction.snapkv import WINDOW, SnapKV

BETA = 20


@dataclasses.dataclass(frozen=True)
class PyramidKV(SnapKV):
    """Lower layers, whose attention is wide, keep more than upper ones (https://arxiv.org/abs/2406.02069): from
    2(C − W) − m down to m = (C − W)/20, in equal steps, besides the W newest; C is the mean `budget`."""

    def budgets(self, layers: int) -> tuple[int, ...]:
        rest = self.budget - WINDOW
        least = rest // BETA
        most = 2 * rest - least
        if layers == 1:
            return (self.budget,)
        exact = [most - (most - least) * layer / (layers - 1) for layer in range(layers)]
        whole = [int(size) for size in exact]
        for layer in range(rest * layers - sum(whole)):  # what rounding down left over, from below
            whole[layer] += 1
        return tuple(size + WINDOW for size in whole)
