"""A scaling that starts only when the text outgrows the trained length."""

from __future__ import annotations

import dataclasses

from longspan.rope.angles import Angles, Geometry, Rope


@dataclasses.dataclass(frozen=True)
class WhenNeeded:
    """`before` while at most `original` tokens are present, `after` beyond.

    Static scaling costs quality on short texts, so what a user adds to a checkpoint waits until the tokens
    present need it. original: None takes the length the checkpoint was trained at.
    """

    before: Rope
    after: Rope
    original: int | None = None

    def angles(self, geometry: Geometry, tokens: int) -> Angles:
        length = self.original or geometry.original
        if tokens > length:
            return self.after.angles(geometry, tokens)
        early = self.before.angles(geometry, tokens)
        return dataclasses.replace(early, until=min(early.until, length))
