"""What every rope method takes and gives: the checkpoint's geometry in, angles out."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import numpy as np

from longspan.errors import UsageError

GROWTH = 9 / 8
"""Angles that depend on the length change only when the text has grown by an eighth (docs/decisions.md)."""

FOREVER = 1 << 62
"""`Angles.until` of angles that hold at any length."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What a checkpoint says of its positions, before any scaling.

    dim: rotated channels of a head (all of them, unless the rotation is partial).
    theta: the base b of θ_i = b^(−2i/dim).
    original: L, the tokens the model was trained at before any scaling.
    positions: the config's `max_position_embeddings`.
    """

    dim: int
    theta: float
    original: int
    positions: int


@dataclasses.dataclass(frozen=True)
class Angles:
    """The rotation of one length: a position p turns channel pair i by p · inv_freq[i].

    inv_freq: dim/2 float64 values. attention_factor: multiplies cos and sin of queries and keys alike, so
    logits grow by its square. until: the angles hold while at most that many tokens are present. reach: they were
    made for texts of up to so many. method: what made them, its factor filled in where the length chose it.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    until: int = FOREVER
    reach: int = dataclasses.field(default=FOREVER, compare=False)
    method: Rope | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        method: Rope,
        inv_freq: np.ndarray,
        attention_factor: float = 1.0,
        until: int = FOREVER,
        reach: int = FOREVER,
    ) -> Angles:
        return cls(tuple(float(f) for f in inv_freq), float(attention_factor), until, reach, method)


class Rope(Protocol):
    """A rope method: a frozen dataclass of its options with this one method."""

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        """The angles for a text of which `tokens` tokens are present."""
        ...


def frequencies(dim: int, theta: float) -> np.ndarray:
    """θ_i = b^(−2i/d) for i < d/2, float64 (RoFormer, arXiv:2104.09864)."""
    return theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def check_factor(name: str, factor: float | None, least: float = 1.0) -> None:
    if factor is not None and not (math.isfinite(factor) and factor >= least):
        raise UsageError(f"rope: {name}: factor {factor} makes no sense; give a number ≥ {least:g}")


def check_original(name: str, original: int | None) -> None:
    if original is not None and original < 1:
        raise UsageError(f"rope: {name}: original {original} should be the trained length in tokens, ≥ 1")


def scale(factor: float | None, original: int, tokens: int) -> tuple[float, int]:
    """The scale s to use, and the number of tokens up to which it holds.

    A factor that was given is used at any length. Without one, s is the smallest power of 9/8 with
    original · s ≥ tokens: a text gets no more scaling than its length needs, and the same text always
    gets the same.
    """
    if factor is not None:
        return factor, FOREVER
    if tokens <= original:
        return 1.0, original
    power = math.ceil(math.log(tokens / original) / math.log(GROWTH) - 1e-9)
    return GROWTH**power, int(original * GROWTH**power + 1e-6)
