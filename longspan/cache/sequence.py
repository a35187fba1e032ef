"""One text's part of the cache: what grows, what is tidied, and when."""

from __future__ import annotations

import bisect

import numpy as np
import torch

from longspan.cache.group import Group
from longspan.cache.lanes import Lanes
from longspan.cache.pool import Pool


class Sequence:
    """The cached part of one text.

    length: tokens whose keys and values were stored; token i stands at text position `start + i`, in text page (start +
    i) // P at offset (start + i) % P. groups: the layers that hold pages of the text. lanes: those where eviction
    decides what stays. asking: text positions where reading turns into asking and back, ascending; a query chooses
    pages for itself while it asks. marks: text positions, ascending, where what evicts decides again, as at multiples
    of `Layout.interval`: the ends of prompts. They stay when the text is read again, which then gives the same. cuts:
    those of them where a text ended that was only read, and the end of a first prompt that was answered at once.
    answers: text positions where a prompt ends and its answer begins, and where that ends, in turns, ascending.
    """

    def __init__(self, pool: Pool, start: int = 0) -> None:
        self.pool, self.start, self.length = pool, start, 0
        self.marks: list[int] = []
        self.cuts: list[int] = []
        self.asking: list[int] = []
        self.answers: list[int] = []
        members: dict[int | None, list[int]] = {}
        for layer, window in enumerate(pool.layout.windows):
            members.setdefault(window, []).append(layer)
        self.lanes: Lanes | None = None
        if pool.policy is not None and None in members:
            self.lanes = Lanes(tuple(members.pop(None)), pool, pool.policy)
        kv_heads = pool.layout.kv_heads
        self.groups = [Group(window, tuple(layers), kv_heads) for window, layers in members.items()]
        for group in self.groups:
            group.first = start // pool.layout.page

    def grow(self, tokens: int, expect: int = 0) -> None:
        """Own the pages for `tokens` more tokens. expect: tokens in the end, as far as known.

        Raises DoesNotFit with nothing changed.
        """
        layout = self.pool.layout
        end = (self.start + self.length + tokens - 1) // layout.page + 1
        need = sum((end - g.first - g.count) * len(g.layers) * g.kv_heads for g in self.groups)
        need += 0 if self.lanes is None else self.lanes.missing(tokens)
        self.pool.check(need * layout.page_bytes)
        for group in self.groups:
            pages = end - group.first - group.count
            if pages > 0:
                total = layout.layer_pages(group.window, max(expect, self.length + tokens), self.start, tokens)
                group.append(self.pool, pages, min(total, layout.open_pages or total))
        if self.lanes is not None:
            self.lanes.observed_from = self._deciding() - self.lanes.policy.observe
            self.lanes.append(self.start + self.length, tokens)
        self.length += tokens

    def room(self, rows: int, pending: int) -> int:
        """As many of `rows` more tokens as may come in one step, where `pending` are to come: not beyond where the
        cache is next tidied; and where blocks are read together, none in parts but at the ends of prompts."""
        here, block = self.start + self.length, self.pool.layout.block
        if self.pool.layout.interval is not None:
            rows = min(rows, self._due() - here)
        if block > 1:
            ends = [mark - here for mark in self.marks if here < mark <= here + rows]
            if here % block:
                rows = min(rows, block - here % block, *ends)
            elif ends:
                rows = min(ends)
            elif rows < pending:
                rows -= rows % block
        return rows

    def _due(self) -> int:
        """The next text position where the cache is tidied."""
        following, interval = self.start + self.length, self.pool.layout.interval or 1
        due = following // interval * interval + interval
        begin, hold = self._answer(following), self._hold
        if begin is not None and hold > 1:
            due = min(due, begin + (following - begin) // hold * hold + hold)
        return min([due, *(mark for mark in self.marks if mark > following)])

    def _waits(self, position: int) -> bool:
        """Whether nothing is evicted yet when the next token stands at `position`."""
        if self.pool.policy is not None and self.pool.policy.once:
            return position not in self.cuts
        return self.pool.layout.waits and not (self.answers and position >= self.answers[0])

    def _deciding(self) -> int:
        """The next text position where eviction decides what stays; far away when it waits for a question."""
        following = self.start + self.length
        if self.pool.policy is not None and self.pool.policy.once:
            return min((cut for cut in self.cuts if cut > following), default=1 << 62)
        if not self._waits(following):
            return self._due()
        return self.answers[0] if self.answers else 1 << 62

    def tidy(self) -> None:
        """After a step: free the pages that no coming query of a window layer can see, and seal what is due."""
        following = self.start + self.length
        for group in self.groups:
            if group.window is not None:
                gone = min((following - group.window + 1) // self.pool.layout.page - group.first, group.count)
                if gone > 0:
                    group.drop(self.pool, gone)
            if (
                self.pool.select is not None
                and group.window is None
                and following % (self.pool.layout.interval or 1) == 0
            ):
                group.summarise(self.pool, following // self.pool.layout.page - 1, self.start)
            if self.pool.sealed is not None and following % (self.pool.layout.interval or 1) == 0:
                # the newest page stays as it is, so a page is sealed no sooner than one page late
                group.seal(self.pool, following // self.pool.layout.page - 1, self.start)
        due = following % (self.pool.layout.interval or 1) == 0 or following in self.marks
        if self.lanes is not None and due and not self._waits(following):
            self.lanes.evict(following)

    def asks(self, positions: np.ndarray) -> np.ndarray:
        """Which of these text positions are asked, not only read."""
        turns = np.searchsorted(np.asarray(self.asking, dtype=np.int64), positions, side="right")
        return np.asarray(turns % 2 == 1)

    def looked(self, position: int) -> int | None:
        """The text position after the query whose pages the one at `position` reads too; None: it chooses for itself.

        A token of an answer goes on from the last one of the prompt, or from one every `hold` tokens of the answer.
        """
        begin, hold = self._answer(position), self._hold
        if begin is None or hold == 1 or (position + 1 - begin) % hold == 0:
            return None
        return begin + (position - begin) // hold * hold

    def looks(self, position: int) -> bool:
        """Whether others go on from the query at `position`. A step ends with it, as all its layers have a say."""
        begin, hold = self._answer(position + 1), self._hold
        return begin is not None and hold > 1 and (position + 1 - begin) % hold == 0

    @property
    def _hold(self) -> int:
        return 1 if self.pool.select is None else self.pool.select.hold

    def _answer(self, position: int) -> int | None:
        """Where the answer begins that `position` belongs to."""
        turns = bisect.bisect_right(self.answers, position)
        return self.answers[turns - 1] if turns % 2 else None

    @property
    def bytes(self) -> int:
        """Of all pages owned, shared ones included."""
        sealed = sum(group.live[:, :, : group.sealed].size for group in self.groups)
        written = sum(group.live.size for group in self.groups) - sealed
        lanes = 0 if self.lanes is None else self.lanes.bytes
        return written * self.pool.page_bytes + sealed * (self.pool.layout.sealed_bytes or 0) + lanes

    @property
    def owned_bytes(self) -> int:
        """Of pages, summaries and notes: what counts against the limit."""
        summed = sum(group.sums.size for group in self.groups)
        size = self.bytes
        if self.lanes is not None:
            summed += int((self.lanes.sums >= 0).sum())
            size += self.lanes.notes.bytes
        return size + (summed * self.pool.summaries.page_bytes if self.pool.summaries is not None else 0)

    def fork(self) -> Sequence:
        """A second sequence with the same text: whole pages are shared, the last, unfinished one is copied."""
        twin = Sequence(self.pool, self.start)
        partial = (self.start + self.length) % self.pool.layout.page != 0
        tails = [group.live[:, :, -1] for group in self.groups if partial and group.count]
        fresh = self.pool.claim(np.full(sum(t.size for t in tails), -1)) if tails else np.empty(0, dtype=np.int64)
        for mine, theirs in zip(self.groups, twin.groups, strict=True):
            theirs.adopt(mine)
            if partial and mine.count:
                size = mine.live[:, :, -1].size
                theirs.table[:, :, -1] = fresh[:size].reshape(mine.live.shape[:2])
                self._copy(mine.live[:, :, -1], theirs.table[:, :, -1])
                fresh = fresh[size:]
            mine.share(self.pool, mine.count - int(partial and mine.count > 0))
        if self.lanes is not None:
            twin.lanes = self.lanes.fork()
        twin.length, twin.asking, twin.marks = self.length, list(self.asking), list(self.marks)
        twin.answers, twin.cuts = list(self.answers), list(self.cuts)
        return twin

    def _copy(self, source: np.ndarray, target: np.ndarray) -> None:
        old, new = (
            torch.from_numpy(np.ascontiguousarray(ids).reshape(-1)).to(self.pool.device) for ids in (source, target)
        )
        self.pool.keys[new] = self.pool.keys[old]
        self.pool.values[new] = self.pool.values[old]

    def clear(self) -> None:
        """Free every page; the text has to be read again."""
        for group in self.groups:
            group.close(self.pool)
            group.first = self.start // self.pool.layout.page
        if self.lanes is not None:
            self.lanes.close()
        self.length = 0
