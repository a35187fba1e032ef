"""The scheduler under random work, with a fake model: pages are never lost, everyone gets on."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longspan.attention.step import Segment
from longspan.cache.bytes import Layout
from longspan.cache.pool import Pool
from longspan.engine.ropes import Ropes
from longspan.engine.schedule import Scheduler, Text
from longspan.errors import DoesNotFit
from longspan.rope import Geometry
from longspan.rope.default import Default

LAYOUT = Layout(windows=(None, 40), kv_heads=2, head_dim=4, element=4, page=16)


class Fake:
    """Writes each id into the cache as the model would, and refuses steps that make no sense."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __call__(self, segments: Seq[Segment], ids: Seq[int], keep: Seq[int]) -> torch.Tensor:
        assert len(ids) == sum(s.rows for s in segments)
        start = 0
        for s in segments:
            for i in range(s.rows):
                position = s.first + i
                for group in s.sequence.groups:
                    page = group.live[:, :, position // 16 - group.first]
                    self.pool.values[torch.from_numpy(page.ravel()), position % 16] = float(ids[start + i])
            start += s.rows
        return torch.zeros(len(keep), 8)


def scheduler(pages: int = 80, chunk: int = 32, rows: int = 3) -> Scheduler:
    pool = Pool(LAYOUT, pages * LAYOUT.page_bytes, torch.float32)
    ropes = Ropes({"all": (Default(), Geometry(4, 1e4, 64, 64))}, ["all"], "auto")
    return Scheduler(Fake(pool), ropes, pool, chunk, rows)


def stored(text: Text) -> list[float]:
    """What the full layer's first lane holds, in text order."""
    group = text.cache.groups[0]
    pages = text.cache.pool.values[torch.from_numpy(group.live[0, 0])]
    return pages[:, :, 0].reshape(-1)[: text.cache.length].tolist()


class Machine(RuleBasedStateMachine):
    """Submit, step, abort, keep and drop in any order; free + owned = total always, free = total after a drain."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = scheduler()
        self.pool = self.scheduler.pool
        self.active: dict[int, tuple[Text, int]] = {}
        self.kept: list[Text] = []
        self.next = 1

    @rule(tokens=st.integers(1, 300), wanted=st.integers(1, 40))
    def submit(self, tokens: int, wanted: int) -> None:
        text = Text([self.next % 97 + i % 7 for i in range(tokens)], self.pool)
        self.next += 1
        try:
            self.scheduler.submit(text)
        except DoesNotFit:
            return
        self.active[id(text)] = (text, wanted)

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 9), tokens=st.integers(1, 60))
    def resume(self, which: int, tokens: int) -> None:
        text = self.kept.pop(which % len(self.kept))
        try:
            self.scheduler.check(len(text.ids) + tokens)
        except DoesNotFit:
            self.scheduler.drop(text)
            return
        text.ids.extend([3] * tokens)
        self.scheduler.submit(text)
        self.active[id(text)] = (text, 3)

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 9))
    def fork(self, which: int) -> None:
        try:
            twin = self.kept[which % len(self.kept)].fork()
        except DoesNotFit:
            return
        self.scheduler.keep(twin)
        self.kept.append(twin)

    @precondition(lambda self: self.active)
    @rule(times=st.integers(1, 8), keep=st.booleans())
    def step(self, times: int, keep: bool) -> None:
        for _ in range(times):
            self._step(keep)

    def _step(self, keep: bool) -> None:
        try:
            ready = self.scheduler.step()
        except DoesNotFit:
            (text,) = self.scheduler.running
            self.scheduler.drop(text)
            del self.active[id(text)]
            return
        for text, logits in ready:
            assert logits.shape == (8,)
            assert stored(text) == [float(i) for i in text.ids]
            _, wanted = self.active[id(text)]
            if wanted > 1:
                text.ids.append(5)
                self.active[id(text)] = (text, wanted - 1)
                continue
            del self.active[id(text)]
            if keep:
                self.scheduler.keep(text)
                self.kept.append(text)
            else:
                self.scheduler.drop(text)

    @precondition(lambda self: self.active)
    @rule(which=st.integers(0, 9))
    def abort(self, which: int) -> None:
        key = list(self.active)[which % len(self.active)]
        text, _ = self.active.pop(key)
        self.scheduler.drop(text)

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 9))
    def drop(self, which: int) -> None:
        self.scheduler.drop(self.kept.pop(which % len(self.kept)))

    @invariant()
    def pages_add_up(self) -> None:
        assert self.pool.free + self.pool.owned == self.pool.total
        assert self.pool.owned == int((self.pool._owners > 0).sum())
        assert len(self.scheduler.running) <= self.scheduler.rows
        places = [*self.scheduler.waiting, *self.scheduler.running, *self.scheduler.idle]
        assert len({id(t) for t in places}) == len(places) == len(self.active) + len(self.kept)

    def teardown(self) -> None:
        for _ in range(5000):
            if not self.active:
                break
            self._step(keep=False)
        assert not self.active, "some text never got on"
        for text in self.kept:
            self.scheduler.drop(text)
        assert self.pool.free == self.pool.total
        assert not self.pool._reserved.any()


TestScheduler = Machine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_long_prompt_does_not_hold_up_those_who_generate():
    s = scheduler(pages=400)
    quick, slow = Text([1], s.pool), Text([2] * 200, s.pool)
    s.submit(quick)
    s.step()
    quick.ids.append(1)
    s.submit(slow)
    for _ in range(4):
        ready = s.step()
        assert [t for t, _ in ready] == [quick]
        quick.ids.append(1)
    assert 0 < slow.cache.length < 200


def test_the_youngest_gives_way_when_the_pool_is_full():
    s = scheduler(pages=24, chunk=64)
    old, young = Text([1] * 30, s.pool), Text([2] * 30, s.pool)
    s.submit(old)
    s.submit(young)
    done: list[Text] = []
    for _ in range(400):
        for text, _ in s.step():
            assert stored(text) == [float(i) for i in text.ids]
            if len(text.ids) == 70:
                done.append(text)
                s.drop(text)
            else:
                text.ids.append(7)
        if len(done) == 2:
            break
    assert done == [old, young]
    assert s.pool.free == s.pool.total
