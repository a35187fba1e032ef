"""How long our own engine takes on this machine: amounts of work, each times a cost that was measured here.

longspan plan --calibrate       measures the costs (`longspan.bench.calibrate`), and keeps them for later plans
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from longspan.errors import UsageError
from longspan.plan import counts, features
from longspan.plan.features import Amounts, Rates, Steps
from longspan.plan.shape import Shape
from longspan.plan.work import Work

NAMES = {
    "body": "linear layers",
    "pages": "attention",
    "lanes": "attention",
    "select": "attention",
    "asked": "choosing pages",
    "evict": "tidying",
    "seal": "tidying",
    "summarise": "tidying",
    "token": "sampling",
}
"""What the groups of costs are called in a plan."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """rates: seconds of one of each amount. spread: what steps of the calibration differed from what the rates say of
    them, the median, relative. base: bytes that the process holds before any model."""

    rates: Rates
    spread: float
    base: int = 0

    def prefill(self, shape: Shape, work: Work) -> dict[str, tuple[float, str]]:
        """Seconds of reading all texts, and how they are reckoned, by name."""
        tokens = work.context - work.new
        amounts = features.reading(shape, work, Steps.of(tokens, counts.step(work)))
        return self.named({key: much * work.batch for key, much in amounts.items()})

    def decode(self, shape: Shape, work: Work, tokens: int, since: int) -> dict[str, tuple[float, str]]:
        """The same for one step that generates a token of each text, with so many tokens of each cached, `since` of
        them generated."""
        return self.named(features.answering(shape, work, tokens, since))

    def named(self, amounts: Amounts) -> dict[str, tuple[float, str]]:
        found: dict[str, tuple[float, str]] = {}
        for (group, what), much in amounts.items():
            if not much:
                continue
            if group not in self.rates:
                raise UsageError(f"calibration: it has no costs of {group}; run longspan plan --calibrate again")
            rate = self.rates[group].get(what, 0.0)
            if not rate:
                continue
            name = NAMES[group.partition(".")[0]]
            before, text = found.get(name, (0.0, ""))
            part = f"{group} {much:.4g} {what} × {rate:.3g} s"
            found[name] = (before + much * rate, f"{text} + {part}" if text else part)
        return {name: (total, f"{text} = {total:.4g} s") for name, (total, text) in found.items()}


def check(rates: Mapping[str, object]) -> Rates:
    """Rates as they were read from a file. Raises ValueError unless all are numbers of at least 0."""
    made: dict[str, dict[str, float]] = {}
    for group, some in rates.items():
        if not isinstance(some, dict) or not all(isinstance(x, int | float) and 0 <= x < 1e9 for x in some.values()):
            raise ValueError(group)
        made[group] = {str(name): float(x) for name, x in some.items()}
    return made
