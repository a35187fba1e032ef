"""Which tokens of which texts go into the next step."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq

import torch

from longspan.attention.step import Segment
from longspan.cache.pool import Pool
from longspan.cache.sequence import Sequence
from longspan.engine.ids import Ids
from longspan.engine.ropes import Ropes
from longspan.errors import DamagedPage, DoesNotFit, UsageError
from longspan.rope import Angles

Forward = Callable[[Seq[Segment], Seq[int], Seq[int]], torch.Tensor]
EXPECT = 1024
"""Tokens beyond those present for which consecutive pages are reserved: an answer, or the next turn's text."""


ASKED = 128
"""The last tokens of a prompt that came whole, which are taken for the question."""


LOSSES = 3
"""How often a text is read again because the disk lost a page of it."""


class Text:
    """A text as the engine holds it: all its ids, the part that is cached, and the angles it is cached with.

    start: text position of the first id. ahead: ids that are known to follow (a question that is given along with
    the text), for which the angles are chosen already. restarts: how often it had to be read anew, `lost` times of
    these because of the disk. reach: the largest distance that angles are formed of, by the tokens present. turned:
    ids at the end of the last turn's prompt. answered: ids at the end of its answer.
    """

    def __init__(
        self, ids: Seq[int], pool: Pool, start: int = 0, reach: Callable[[int], int] = lambda tokens: tokens
    ) -> None:
        self.ids, self.reach = Ids(ids), reach
        self.cache = Sequence(pool, start)
        self.angles: Mapping[str, Angles] = {}
        self.ahead = self.restarts = self.turned = self.answered = self.lost = 0

    def extend(self, ids: Seq[int]) -> None:
        """The next prompt."""
        self.answered = len(self.ids)
        self.ids.extend(ids)

    def turn(self, asks: bool) -> None:
        """The ids since the last turn are a question, or only text. Of a prompt that came whole its end is."""
        asking, answers, size = self.cache.asking, self.cache.answers, len(self.ids)
        if len(answers) % 2:
            answers.append(self.cache.start + self.answered)
        if asks:
            answers.append(self.cache.start + size)
        if len(asking) % 2:
            asking.append(self.cache.start + self.turned)
        if asks:
            asking.append(self.cache.start + (self.turned or max(size - ASKED, 0)))
        self.turned = size

    @property
    def pending(self) -> int:
        """Ids that are not cached yet."""
        return len(self.ids) - self.cache.length

    def settle(self, ropes: Ropes) -> None:
        """Choose the angles for the ids present. If they change, the text is read anew: keys of two kinds never
        share a cache, and what deeper layers made of the old angles is gone with them (docs/decisions.md)."""
        present = self.reach(len(self.ids) + self.ahead)
        if self.angles and all(present <= a.until for a in self.angles.values()):
            return
        new = ropes.angles(present)
        if self.angles and self.cache.length and any(_differ(self.angles[k], new[k]) for k in new):
            self.cache.clear()
            self.restarts += 1
        self.angles = new

    def fork(self) -> Text:
        """A second text with the same beginning; cached pages are shared."""
        twin = Text.__new__(Text)
        twin.ids, twin.cache, twin.angles, twin.reach = self.ids.fork(), self.cache.fork(), self.angles, self.reach
        twin.ahead = twin.restarts = twin.lost = 0
        twin.turned, twin.answered = self.turned, self.answered
        return twin


def _differ(old: Angles, new: Angles) -> bool:
    return old.inv_freq != new.inv_freq or old.attention_factor != new.attention_factor


class Scheduler:
    """Continuous admission: each step takes one id of every text that is generating, and fills up with prompt.

    chunk: ids per step at most. rows: texts at a time at most. When the pool is full, caches are given up in
    this order: texts that a session keeps but nobody is reading, then the youngest running text; either is read
    again later, so nothing is lost but time.
    """

    def __init__(self, forward: Forward, ropes: Ropes, pool: Pool, chunk: int = 2048, rows: int = 16) -> None:
        if chunk < 1:
            raise UsageError(f"chunk: {chunk}; give the ids per step, ≥ 1")
        if rows < 1:
            raise UsageError(f"rows: {rows}; give the texts at a time, ≥ 1")
        self.forward, self.ropes, self.pool, self.chunk, self.rows = forward, ropes, pool, chunk, rows
        self.waiting: deque[Text] = deque()
        self.running: list[Text] = []
        self.idle: list[Text] = []  # kept by sessions, least recently used first

    def submit(self, text: Text, asks: bool = True) -> None:
        """Queue a text with pending ids. Raises DoesNotFit when it could never be held.

        asks: something is to be answered; else the text is only read.
        """
        self.check(len(text.ids), text.cache.start)
        text.turn(asks)
        end = text.cache.start + len(text.ids)
        text.cache.marks.append(end)  # what is kept is decided again after each prompt
        if not asks or not text.cache.cuts:
            text.cache.cuts.append(end)
        if text in self.idle:
            self.idle.remove(text)
        self.waiting.append(text)

    def check(self, tokens: int, start: int = 0) -> None:
        """Raises DoesNotFit, with both numbers, when `tokens` tokens exceed the whole pool."""
        layout, limit = self.pool.layout, self.pool.budget.limit

        def need(count: int) -> int:
            return layout.bytes(count, start, min(self.chunk, max(count, 1)))

        if need(tokens) > limit:
            low, high = 0, tokens
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if need(middle) <= limit else (low, middle)
            raise DoesNotFit(
                f"memory: {tokens:,} tokens need {need(tokens):,} bytes of KV cache; the limit of {limit:,} bytes "
                f"holds {low:,} tokens: raise memory or shorten the text"
            )

    def keep(self, text: Text) -> None:
        """The text stays cached for its session, until room is needed."""
        self._leave(text)
        self.idle.append(text)

    def grow(self, text: Text, rows: int) -> None:
        """Pages for `rows` more ids of a text that is not scheduled, at the cost of kept texts' caches if need be."""
        while True:
            try:
                text.cache.grow(rows, expect=len(text.ids))
                return
            except DoesNotFit:
                if not self._reclaim_idle(but=text):
                    raise

    def fork(self, text: Text) -> Text:
        """A kept twin of a text, at the cost of other kept texts' caches if there is no room for it."""
        while True:
            try:
                twin = text.fork()
            except DoesNotFit:
                if not self._reclaim_idle(but=text):
                    raise
            else:
                self.idle.append(twin)
                return twin

    def drop(self, text: Text) -> None:
        """Free all that the text holds, wherever it stands."""
        self._leave(text)
        text.cache.clear()

    def _leave(self, text: Text) -> None:
        for place in (self.waiting, self.running, self.idle):
            if text in place:
                place.remove(text)

    def step(self) -> list[tuple[Text, torch.Tensor]]:
        """Run one step; the texts whose ids are all cached now, each with its next-token logits [V]."""
        self._admit()
        segments, texts = self._choose()
        if not segments:
            return []
        ids: list[int] = []
        ready: list[Text] = []
        keep: list[int] = []
        for text, segment in zip(texts, segments, strict=True):
            ids += text.ids[text.cache.length - segment.rows : text.cache.length]
            if not text.pending:
                ready.append(text)
                keep.append(len(ids) - 1)
        try:
            # a step that finishes no text needs no logits; one row keeps the shapes simple
            logits = self.forward(segments, ids, keep or [len(ids) - 1])
        except DamagedPage as error:
            self._read_again(texts, error)
            return []
        for text in texts:
            text.cache.tidy()
        return [(text, logits[i]) for i, text in enumerate(ready)]

    def _read_again(self, texts: list[Text], error: DamagedPage) -> None:
        """An offloaded page was lost, so the texts of the step lose their caches; a disk that goes on losing pages
        is an error."""
        if any(text.lost >= LOSSES for text in texts):
            raise error
        warnings.warn(f"offload: {error}", stacklevel=2)
        for text in texts:
            text.cache.clear()
            text.restarts += 1
            text.lost += 1

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.rows:
            text = self.waiting[0]
            text.settle(self.ropes)
            if not self._room(text):
                break
            self.running.append(self.waiting.popleft())

    def _room(self, text: Text) -> bool:
        layout = self.pool.layout
        need = layout.bytes(len(text.ids) + 1, text.cache.start, self.chunk)
        while self.pool.budget.free < min(need, self.pool.budget.limit) - text.cache.owned_bytes:
            if not self._reclaim_idle():
                # with nothing running nobody will free anything: let it try, and fail with its own message
                return not self.running
        return True

    def _choose(self) -> tuple[list[Segment], list[Text]]:
        budget = self.chunk
        segments: list[Segment] = []
        texts: list[Text] = []
        for text in list(self.running):
            text.settle(self.ropes)
        # texts that generate first (one id each), so that a long prompt does not hold them up
        for text in sorted(self.running, key=lambda t: t.pending > 1):
            rows = text.cache.room(min(text.pending, budget), text.pending)
            if rows < 1 or text not in self.running:
                continue
            if not self._grow(text, rows, texts):
                continue
            segments.append(Segment(text.cache, rows, text.angles))
            texts.append(text)
            budget -= rows
        return segments, texts

    def _grow(self, text: Text, rows: int, chosen: list[Text]) -> bool:
        """Pages for `rows` more ids, at the cost of others if need be; False when the text itself must wait."""
        while True:
            try:
                text.cache.grow(rows, expect=len(text.ids) + EXPECT)
                return True
            except DoesNotFit:
                if self._reclaim_idle():
                    continue
                others = [t for t in self.running if t is not text and t not in chosen]
                if others:
                    victim = others[-1]
                elif len(self.running) > 1:
                    victim = text  # everyone else is already in this step
                else:
                    raise
                victim.cache.clear()
                self.running.remove(victim)
                self.waiting.appendleft(victim)
                if victim is text:
                    return False

    def _reclaim_idle(self, but: Text | None = None) -> bool:
        for text in self.idle:
            if text.cache.length and text is not but:
                text.cache.clear()
                return True
        return False
