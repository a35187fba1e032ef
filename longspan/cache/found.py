"""What a query looked at, for those that go on from it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Found:
    """The attention that one query gave to the pages that it chose, summed over layers, lanes and heads.

    A fact's page is not chosen by every head that goes on reading there, so what one finds is for all of them.
    at: the text position after the query. mass: by column.
    """

    at: int
    mass: dict[int, float] = dataclasses.field(default_factory=dict)

    def add(self, columns: list[int], mass: list[float]) -> None:
        for column, share in zip(columns, mass, strict=True):
            self.mass[column] = self.mass.get(column, 0.0) + share

    def best(self, pages: int) -> list[int]:
        """Up to `pages` columns: half of them those with the most attention, and after each the next, where what
        begins on a page may end."""
        most = sorted(self.mass, key=lambda column: (-self.mass[column], -column))[: max(pages // 2, 1)]
        return sorted({column for one in most for column in (one, one + 1)})

    def copy(self) -> Found:
        return Found(self.at, dict(self.mass))
