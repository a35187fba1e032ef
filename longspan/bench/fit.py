"""Costs from times: what one of each amount takes, none less than nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

Observation = tuple[Mapping[str, float], float, float]
"""Amounts by name, the seconds that they took together, and those of the whole that was timed, which are more where the
former are a difference. A difference is as uncertain as the whole is: errors count relative to that."""


def costs(observations: Sequence[Observation]) -> dict[str, float]:
    """The costs ≥ 0 with the least squares of relative errors. There are few kinds of amounts, so every choice of those
    that cost something is tried; the best of which no cost is negative is the solution (it is unique up to ties)."""
    names = sorted({name for amounts, *_ in observations for name, much in amounts.items() if much})
    whole = np.array([whole for *_, whole in observations])
    took = np.array([seconds for _, seconds, _ in observations]) / whole
    table = np.array([[amounts.get(name, 0.0) for name in names] for amounts, *_ in observations])
    table = table / whole[:, None]
    size = table.max(0)
    best, least = np.zeros(len(names)), np.inf
    for count in range(1, len(names) + 1):
        for chosen in itertools.combinations(range(len(names)), count):
            part = table[:, chosen] / size[list(chosen)]
            found = np.linalg.lstsq(part, took, rcond=None)[0]
            error = float(((part @ found - took) ** 2).sum())
            if (found >= 0).all() and error < least - 1e-12:
                best, least = np.zeros(len(names)), error
                best[list(chosen)] = found / size[list(chosen)]
    return {name: float(cost) for name, cost in zip(names, best, strict=True)}


def off(observations: Sequence[Observation], rates: Mapping[str, float]) -> list[float]:
    """By how much the costs miss each time, relative to the whole."""
    return [
        (sum(much * rates.get(name, 0.0) for name, much in amounts.items()) - seconds) / whole
        for amounts, seconds, whole in observations
    ]
