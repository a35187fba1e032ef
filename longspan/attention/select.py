"""Attention in layers where each query reads a few pages: the first, the newest, and those that a selection chooses."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from longspan.attention.kept import Asked, towards, turned
from longspan.attention.own_pages import OwnPages
from longspan.attention.placement import Far, Placed, Placement, Slot
from longspan.attention.rotation import Rotation
from longspan.cache.found import Found
from longspan.cache.group import Group
from longspan.cache.pool import Pool
from longspan.cache.sequence import Sequence
from longspan.cache.summaries.choose import choose
from longspan.cache.summaries.selection import Selection
from longspan.kernels import Backend, Work, slots
from longspan.kernels.cpu import slotted
from longspan.rope.rotate import turn

TOGETHER = 4
"""Queries that choose for themselves and are attended at a time, where each gathers its own pages."""
SCORED = 64
"""Queries that are scored at a time."""


@dataclasses.dataclass(frozen=True)
class Span:
    """Rows begin…end of a segment that read alike. always: columns that they read in any case. old: where the near ones
    of these begin. few: whether each chooses some of the pages before. looks: whether others go on from the last."""

    begin: int
    end: int
    always: torch.Tensor
    old: int
    few: bool
    looks: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """A span's queries; the rest as in `Span`."""

    reader: Reader
    asked: Asked
    always: torch.Tensor
    old: int
    few: bool
    looks: bool


@dataclasses.dataclass(frozen=True)
class View:
    """How queries of one page of the text see columns that they all read.

    To them these are neighbours, since all but the last lie before the queries; only how far each is turned says where
    it stands. first, base, begin: as in `Work`. queries: cos and sin [R, 1, d/2] that the queries are turned by first;
    distances: those of the columns [n, d/2]; None: nothing turns.
    """

    first: int
    base: int
    begin: int
    queries: tuple[torch.Tensor, torch.Tensor] | None = None
    distances: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(
        cls,
        columns: torch.Tensor,
        rows: torch.Tensor,
        first: int,
        start: int,
        rotation: Rotation | None,
        placement: Placement,
        page: int,
    ) -> View:
        """columns [n], ascending to the rows' own; column c holds text page `first + c`. rows [R]: text positions.
        start: that of the text's first token."""
        base = -(len(columns) - 1) * page
        begin = base + max(start - (int(columns[0]) + first) * page, 0)
        if rotation is None:
            return cls(int(rows[0]) % page, base, begin)
        positions = ((columns + first) * page)[None]
        placed = placement.place(positions, positions[:, :0], rows, page)
        distances = rotation.by(-placed.keys[0], placed.unit)
        return cls(int(rows[0]) % page, base, begin, towards(placed.queries, rotation), distances)


def attend(parts: list[Part], backend: Backend) -> list[torch.Tensor]:
    """[R, H, D] of each part. Texts that share their pages (forks) are scored together: most of the time goes into
    opening the summaries."""
    chosen: list[list[torch.Tensor]] = [[] for _ in parts]
    left = [i for i, part in enumerate(parts) if part.few]
    while left:
        first = parts[left[0]].reader
        alike = [i for i in left if parts[i].reader.shares(first)]
        left = [i for i in left if i not in alike]
        rows = torch.cat([parts[i].asked.rows for i in alike])
        queries = torch.cat([parts[i].asked.queries for i in alike])
        longest = max((parts[i] for i in alike), key=lambda part: part.old)
        for a in range(0, len(rows), SCORED):  # scores of all rows at once would take more room than the model
            some = Asked(queries[a : a + SCORED], rows[a : a + SCORED], None, None)
            scores, at = longest.reader.scores(some, longest.old), 0
            for i in alike:
                low, high = max(at, a), min(at + len(parts[i].asked.rows), a + SCORED)
                if low < high:
                    chosen[i].append(parts[i].reader.choose(parts[i], scores[:, low - a : high - a]))
                at += len(parts[i].asked.rows)
    return [part.reader.attend(part, found, backend) for part, found in zip(parts, chosen, strict=True)]


class Reader:
    """One segment in one layer of a group. compiled: whether compiled kernels may read its pages where they lie."""

    def __init__(
        self,
        pool: Pool,
        group: Group,
        index: int,
        start: int,
        rotation: Rotation | None,
        placement: Placement,
        compiled: bool,
    ) -> None:
        assert pool.select is not None
        self.pool, self.group, self.index, self.start = pool, group, index, start
        self.rotation, self.placement = rotation, placement
        self.selection: Selection = pool.select
        self.page = pool.layout.page
        self.in_place = compiled and pool.readable(1, taken=True)

    def shares(self, other: Reader) -> bool:
        """Whether both read the same pages, as far as the shorter of both texts goes."""
        mine, theirs = self.group.sums[self.index], other.group.sums[other.index]
        both = min(mine.shape[1], theirs.shape[1])
        same = self.rotation is other.rotation and self.group.first == other.group.first and self.start == other.start
        return same and both > 0 and np.array_equal(mine[:, :both], theirs[:, :both])

    def parts(self, asked: Asked, sequence: Sequence) -> list[Part]:
        """The queries in groups of those that read alike."""
        made = []
        for span in self.spans(asked.rows.tolist(), sequence):
            some = slice(span.begin, span.end)
            part = Asked(asked.queries[some], asked.rows[some], asked.softcap, asked.learned)
            made.append(Part(self, part, span.always, span.old, span.few, span.looks))
        return made

    def spans(self, rows: list[int], sequence: Sequence) -> list[Span]:
        """The rows, text positions, in groups of those that read alike: of one page of the text, and all choosing, or
        all going on from the same query, or neither."""
        choosing = sequence.asks(np.asarray(rows))
        if self.selection.reading == "token":
            choosing = np.ones_like(choosing)
        since = [self._since(sequence, row) for row in rows]
        cuts = [0]
        for i in range(1, len(rows)):
            many = not self.in_place and bool(choosing[i]) and since[i] is None and i - cuts[-1] >= TOGETHER
            other = bool(choosing[i]) != bool(choosing[i - 1]) or since[i] != since[i - 1]
            if rows[i] % self.page == 0 or other or many:
                cuts.append(i)
        made = []
        for a, b in zip(cuts, [*cuts[1:], len(rows)], strict=True):
            always, old = self._always(rows[a])
            few = bool(choosing[a]) and self.selection.pages is not None and old > self._sinks(old)
            if few and since[a] is not None:
                assert self.group.found is not None
                found = self.group.found.best(self.selection.pages or 0)
                always = torch.tensor(sorted({*always.tolist(), *found}), device=self.pool.device)
                few = False
            looks = few and sequence.looks(rows[b - 1])
            made.append(Span(a, b, always, old, few, looks))
        return made

    def _since(self, sequence: Sequence, row: int) -> int | None:
        """From which query the one at `row` goes on; None: from none, or from one that found nothing."""
        since, found = sequence.looked(row), self.group.found
        return since if found is not None and found.at == since and found.mass else None

    def choose(self, part: Part, scores: torch.Tensor) -> torch.Tensor:
        """Columns [G, R, pages] that R queries of the part read besides; −1: fewer. scores [G, R, ≥ old]."""
        banned = torch.arange(part.old, device=self.pool.device)[None] < self._sinks(part.old)
        return choose(scores[..., : part.old], self.selection.pages or 0, banned)

    def attend(self, part: Part, chosen: list[torch.Tensor], backend: Backend) -> torch.Tensor:
        """[R, H, D] in float32 of one part. The keys of these queries are in the pages already. chosen: what `choose`
        gave for its queries; empty where they choose none."""
        if not chosen and not isinstance(self.placement, Slot):
            return backend(self._work(part.asked, part.always))
        if not chosen:
            return self._read(part.asked, part.always.expand(self.group.kv_heads, -1))
        return self._read_each(part, torch.cat(chosen, 1))

    def _note(self, part: Part, columns: torch.Tensor, mass: torch.Tensor) -> None:
        """What the last query of the part gave to pages that it chose: columns [G, n], mass [G, n·P]."""
        at = int(part.asked.rows[-1]) + 1
        if self.group.found is None or self.group.found.at != at:
            self.group.found = Found(at)
        chosen = (columns >= self._sinks(part.old)) & (columns < part.old)
        pages = torch.unflatten(mass, 1, (columns.shape[1], self.page)).sum(2)
        self.group.found.add(columns[chosen].tolist(), pages[chosen].tolist())

    def _sinks(self, old: int) -> int:
        """Pages at the beginning that are read in any case."""
        size = self.start % self.page + self.selection.sinks
        return min(-(-size // self.page), old) if self.selection.sinks else 0

    def _always(self, row: int) -> tuple[torch.Tensor, int]:
        """Columns that queries in the page of `row` read in any case, ascending; and where the near ones begin."""
        near = max((row // self.page * self.page - self.selection.near + 1) // self.page - self.group.first, 0)
        near = min(near, self.group.summed)  # what has no summary yet cannot be chosen, so it is read
        last = row // self.page - self.group.first
        first = range(self._sinks(near))
        return torch.tensor([*first, *range(near, last + 1)], device=self.pool.device), near

    def scores(self, asked: Asked, old: int) -> torch.Tensor:
        """Of the first `old` pages, the best over the query heads of a lane: [G, R, old]. The queries may be those of
        several texts that share these pages."""
        stored = self.group.summaries(self.pool, self.index, old)  # [G, old, …]
        kv_heads, groups, count = self.group.kv_heads, asked.queries.shape[1] // self.group.kv_heads, len(asked.rows)
        dim = asked.queries.shape[2]
        reference = asked.rows // self.page * self.page
        if self.rotation is None or isinstance(self.placement, Far):
            queries = asked.queries
            if self.rotation is not None and isinstance(self.placement, Far):
                away = (-(-self.placement.near // self.page) + 1) * self.page
                queries = turned(queries, asked.rows - reference + away, self.rotation, groups)
            q = queries.view(count, kv_heads, groups, dim).permute(1, 0, 2, 3).reshape(kv_heads, count * groups, dim)
            scores = self.selection.score(q, stored)
        else:  # every page at its own distance: each page is scored as if it were a lane of its own
            columns = torch.arange(old, device=self.pool.device)
            by = asked.rows - (columns[:, None] + self.group.first) * self.page  # [old, R]
            cos, sin = self.rotation.by_tokens(by)
            q = asked.queries.view(count, kv_heads, groups, dim)
            square = self.rotation.angles.attention_factor**2
            q = turn(q[None], cos[:, :, None, None] * square, sin[:, :, None, None] * square)  # [old, R, G, g, D]
            q = q.permute(2, 0, 1, 3, 4).reshape(kv_heads, old, count * groups, dim)
            heads = ({name: x[head].unsqueeze(1) for name, x in stored.items()} for head in range(kv_heads))
            scores = torch.stack([self.selection.score(a, b)[..., 0].T for a, b in zip(q, heads, strict=True)])
        return scores.reshape(kv_heads, count, groups, old).amax(2)

    def _work(self, asked: Asked, columns: torch.Tensor) -> Work:
        """What kernels are asked where all queries, of one page, read the same columns [n], ascending to their own."""
        view = View.of(columns, asked.rows, self.group.first, self.start, self.rotation, self.placement, self.page)
        cos, sin = view.distances or (None, None)
        return Work(
            queries=asked.queries if view.queries is None else turn(asked.queries, *view.queries),
            first=view.first,
            base=view.base,
            begin=view.begin,
            runs=self.group.some(self.pool, self.index, columns),
            kv_heads=self.group.kv_heads,
            page=self.page,
            dtype=self.pool.dtype,
            cos=cos,
            sin=sin,
            softcap=asked.softcap,
            sinks=asked.learned,
        )

    def _read(self, asked: Asked, columns: torch.Tensor) -> torch.Tensor:
        """All queries read the same columns [G, n], which are ascending."""
        keys, values = self.group.open(self.pool, self.index, columns)
        positions = self._positions(columns)
        q, k, placed = asked.queries, keys, self._placed(positions, asked.rows)
        if placed is not None and self.rotation is not None:
            k = turn(k, *self.rotation.by(placed.keys, placed.unit))
            q = turned(q, placed.queries, self.rotation, q.shape[1] // len(k))
        work = slots.Slots(q, asked.rows, k, values, positions, softcap=asked.softcap, learned=asked.learned)
        return slotted.attend(work)

    def _read_each(self, part: Part, chosen: torch.Tensor) -> torch.Tensor:
        """Each query reads columns of its own: every (query, lane) becomes a lane with one query."""
        asked, always = part.asked, part.always
        kv_heads, count, _ = chosen.shape
        heads, dim = asked.queries.shape[1:]
        always = always.expand(kv_heads, count, -1)
        columns = torch.cat([chosen, always], 2)
        columns = torch.where(columns < 0, 1 << 40, columns).sort(2).values  # −1 to the end
        columns = columns.masked_fill(columns >= 1 << 40, -1).transpose(0, 1).flatten(0, 1)  # [R·G, n]
        lanes = torch.arange(kv_heads, device=columns.device).repeat(count)
        positions = self._positions(columns)
        at = asked.rows.repeat_interleave(kv_heads)[:, None]
        positions = positions.masked_fill(positions > at, -1)
        q, placed = asked.queries, self._placed(positions, asked.rows)
        if placed is not None and self.rotation is not None:
            q = turned(q, placed.queries, self.rotation, heads // kv_heads)
        learned = None if asked.learned is None else asked.learned.repeat(count)
        one = Asked(q.reshape(1, count * heads, dim), asked.rows[-1:], asked.softcap, learned)
        seen = slots.Seen(wants_mass=part.looks)
        own = OwnPages(self.pool, self.group, self.index, self.rotation, columns, lanes, positions, placed)
        read = own.where_they_lie if self.in_place else own.gathered
        out = read(one, seen).view(count, heads, dim)
        if seen.mass is not None:
            self._note(part, columns[-kv_heads:], seen.mass[-kv_heads:])
        return out

    def _placed(self, positions: torch.Tensor, rows: torch.Tensor) -> Placed | None:
        """Where slots at text positions [B, n·P] stand from queries at `rows`; None: nothing turns."""
        if self.rotation is None:
            return None
        return self.placement.place(positions, positions[:, :0], rows, self.page)

    def _positions(self, columns: torch.Tensor) -> torch.Tensor:
        """Text positions [G, n·P] of the slots of columns [G, n]; −1 for padding and for slots before the text."""
        offsets = torch.arange(self.page, device=columns.device)
        at = ((columns + self.group.first) * self.page)[..., None] + offsets
        return at.masked_fill((columns < 0)[..., None] | (at < self.start), -1).flatten(1)
