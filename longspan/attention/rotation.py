"""Tables of cos and sin for one set of angles: by offset in a page, and by distance in pages."""

from __future__ import annotations

import functools

import numpy as np
import torch

from longspan.rope import Angles
from longspan.rope.rotate import table, turn


class Rotation:
    """The rotations that a step needs under one set of angles, for pages of P slots.

    Keys turn by their offset in the page, so the text may stand anywhere and grow without end; distances
    between pages come from a static table that is built from float64 once and extended by doubling.
    """

    def __init__(self, angles: Angles, page: int, device: torch.device) -> None:
        self.angles, self.page, self.device = angles, page, device
        self._offsets = table(angles, np.arange(page), device)
        self._pages = table(angles, np.arange(64) * page, device)
        self._tokens = table(angles, np.arange(4 * page), device)

    def keys(self, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [T, 1, d/2] for keys at these offsets."""
        return self._offsets[0][offsets][:, None], self._offsets[1][offsets][:, None]

    def queries(self, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [T, 1, d/2] for queries at positions counted from the reference page, times the squared
        attention factor: it belongs to the rotated channels only, so it cannot go into the softmax scale."""
        cos, sin = table(self.angles, positions, self.device)
        square = self.angles.attention_factor**2
        return cos[:, None] * square, sin[:, None] * square

    def by(self, counts: torch.Tensor, unit: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [..., d/2] of a turn by `counts` units, of either sign. unit: 1 token, or P."""
        cos, sin = self.table(counts, unit)
        index = counts.abs()
        return cos[index], sin[index] * counts.sign()[..., None]

    def table(self, counts: torch.Tensor, unit: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [n, d/2] of turns by 0 … n − 1 units, as many as `counts` needs. unit: 1 token, or P."""
        most = int(counts.abs().max()) + 1 if counts.numel() else 1
        if unit != 1:
            return self._pages_upto(most)
        if most > self._tokens[0].shape[0]:
            self._tokens = table(self.angles, np.arange(2 * most), self.device)
        return self._tokens

    def by_tokens(self, by: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [..., d/2] of a turn by tokens [...] of either sign, however many."""
        rest = by % self.page
        (a, b), (c, d) = self.by((by - rest) // self.page, self.page), self.by(rest, 1)
        return a * c - b * d, a * d + b * c

    def further(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        """x [..., D] turned by tokens [...] of either sign, however many."""
        return turn(x, *self.by_tokens(by))

    def _pages_upto(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        if count > self._pages[0].shape[0]:
            size = max(count, 2 * self._pages[0].shape[0])
            self._pages = table(self.angles, np.arange(size) * self.page, self.device)
        return self._pages

    def distances(self, nearest: int, pages: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [pages, d/2] for pages in text order, of which the last is `nearest` pages back."""
        reach = nearest + pages
        cos, sin = self._pages_upto(reach)
        return cos[nearest:reach].flip(0), sin[nearest:reach].flip(0)


@functools.lru_cache(maxsize=64)
def rotation(angles: Angles, page: int, device: torch.device) -> Rotation:
    """One table per angles, shared by layers, sequences and steps."""
    return Rotation(angles, page, device)
