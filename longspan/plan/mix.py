"""Texts of several lengths, and how many of them a pool of bytes holds at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from longspan.errors import UsageError
from longspan.plan.work import LONGEST

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
DRAWS = 400
SURE = 0.99


def tokens(text: str, what: str = "context") -> int:
    """Tokens of "131072", "128K" or "1M" (K is 1,024). Raises UsageError for anything else, and outside of 1 to
    `LONGEST`."""
    word = text.strip().replace(",", "")
    unit = word[-1:].upper() if word[-1:].isalpha() else ""
    number = word[:-1] if unit else word
    if not number.isdecimal() or not number.isascii() or unit not in UNITS or len(number) > 12:
        raise UsageError(f"{what}: {text!r}; give tokens, as in 4096, 128K or 1M")
    if not 1 <= int(number) * UNITS[unit] <= LONGEST:
        raise UsageError(f"{what}: {text!r}; give from 1 to {LONGEST:,} tokens")
    return int(number) * UNITS[unit]


@dataclasses.dataclass(frozen=True, slots=True)
class Mix:
    """Lengths of texts in tokens, and the share of the texts that has each. Shares sum to 1."""

    lengths: tuple[int, ...]
    shares: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Mix:
        """ "32K", or "4K:70,32K:20,128K:10": lengths with their parts. Raises UsageError."""
        lengths, parts = [], []
        for word in text.split(","):
            length, sign, part = word.partition(":")
            lengths.append(tokens(length, "lengths"))
            try:
                parts.append(float(part) if sign else 1.0)
            except ValueError:
                parts.append(0.0)
            if not 0 < parts[-1] < 1e9:
                raise UsageError(f"lengths: {word!r}; give a length and its part, as in 4K:70,32K:30")
        if len(set(lengths)) < len(lengths):
            raise UsageError(f"lengths: {text!r} gives one length twice; add their parts")
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        return cls(tuple(lengths[i] for i in order), tuple(parts[i] / sum(parts) for i in order))

    def mean(self, of: Callable[[int], float]) -> float:
        """The mean of `of` over texts."""
        return sum(of(length) * share for length, share in zip(self.lengths, self.shares, strict=True))

    def draw(self, count: int, seed: int = 0) -> np.ndarray:
        """Indices into `lengths` of so many texts, the same for the same seed."""
        return np.random.default_rng(seed).choice(len(self.lengths), count, p=self.shares)

    def __str__(self) -> str:
        if len(self.lengths) == 1:
            return f"{self.lengths[0]:,} tokens"
        pairs = zip(self.lengths, self.shares, strict=True)
        return ", ".join(f"{length:,} ({share:.0%})" for length, share in pairs)


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """Texts at once: `worst`, all of them the longest; `sure`, so many drawn at random fit in 99 of 100 draws; `mean`,
    of mean size. 0: not even one fits."""

    worst: int
    sure: int
    mean: int


def room(mix: Mix, size: Callable[[int], int], pool: int, seed: int = 0) -> Room:
    """How many texts fit at once. size: bytes that a text of so many tokens takes. pool: bytes for all of them."""
    sizes = np.array([max(size(length), 1) for length in mix.lengths], dtype=np.float64)
    mean = float(sizes @ np.array(mix.shares))
    worst, middle = int(pool // sizes.max()), int(pool // mean)
    if pool < sizes.max():
        return Room(0, 0, middle)
    most = min(int(pool // sizes.min()), 2 * middle + 100, 20_000)
    drawn = sizes[mix.draw(DRAWS * most, seed)].reshape(DRAWS, most)
    held = (np.cumsum(drawn, axis=1) <= pool).sum(axis=1)
    return Room(worst, max(worst, int(np.quantile(held, 1 - SURE, method="lower"))), middle)
