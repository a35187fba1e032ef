"""Room for what eviction leaves, foretold as the cache counts it, in a time that hardly grows with the text.

The cache's own `Layout` goes through a text step by step. Between two multiples of the interval every lane either grows
by as much again or stays as it is, so that all steps up to where this ends, or room has to be made, come to the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from longspan.cache.bytes import Layout


@dataclasses.dataclass(frozen=True)
class Counted(Layout):
    """A layout that gives the same numbers as its base, sooner."""

    def _rooms(self, tokens: int, ends: Sequence[int], chunk: int) -> tuple[dict[int, int], int]:
        assert self.interval is not None
        every = tuple(sorted({kept for kept in self.kept or () if kept is not None}))
        most, room = rooms(every, self.page, self.interval, self.note_slots() // self.page, tokens, tuple(ends), chunk)
        return dict(most), room


@functools.lru_cache(maxsize=4096)
def rooms(
    every: tuple[int, ...], page: int, interval: int, cap: int, tokens: int, ends: tuple[int, ...], chunk: int
) -> tuple[tuple[tuple[int, int], ...], int]:
    """What `Layout._rooms` gives. every: tokens that lanes keep, ascending. cap: pages that room is made for ahead."""
    held, most = dict.fromkeys(every, 0), dict.fromkeys(every, 0)
    room, at = 0, 0
    while at < tokens:
        end = next((end for end in ends if end > at), None)
        due = (at // interval + 1) * interval
        if end is not None:
            due = min(due, end, at + chunk)
        else:
            due = min(due, tokens, at + min(page - held[kept] % page for kept in every))
        for kept in every:
            held[kept] += due - at
            most[kept] = max(most[kept], -(-held[kept] // page))
        columns = max(-(-held[kept] // page) for kept in every)
        if columns > room:
            room = max(min(room * 3 // 2, cap), columns)
        at = due
        if at % interval == 0 or at == end:
            held = {kept: min(held[kept], kept) for kept in every}
        left = (tokens if end is None else end) - at
        if at % interval == 0 and left > 2 * interval:
            same = _same(every, held, at, interval, left // interval - 1, room * page)
            for kept in every:
                if at <= kept + 3 * interval:
                    held[kept] += same * interval
            at += same * interval
    return tuple(most.items()), room


def _same(every: tuple[int, ...], held: dict[int, int], at: int, interval: int, left: int, room: int) -> int:
    """Intervals, of so many that are left, in which nothing happens but that lanes grow that are not full yet."""
    growing = [kept for kept in every if at <= kept + 3 * interval]
    if not growing:
        return left
    free = min(min(kept - held[kept], room - held[kept]) for kept in growing)
    return max(min(left, free // interval - 1), 0)
