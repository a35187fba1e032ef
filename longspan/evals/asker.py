"""How cases are put to a model: read the text, ask, say what was answered.

In regime "agnostic" a text is read, and what is to be dropped of it is dropped, before any question is known; every
question goes on from a fork of what is left. In regime "aware" nothing is dropped before the question was read
(`wait=true` of an eviction). Where nothing is dropped the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

from longspan.cache.offload.store import Offloaded
from longspan.engine import prompts
from longspan.engine.sample import Sampling
from longspan.engine.session import Session, together
from longspan.errors import UsageError
from longspan.evals import regimes
from longspan.evals.ask import Said
from longspan.evals.cases import Case
from longspan.evals.progress import Progress, part

if TYPE_CHECKING:
    from longspan.cache.pool import Pool
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM
    from longspan.engine.words import Words

AROUND = 16
"""Tokens that a template may write around a question or an answer."""


class Asker:
    """Puts cases to a model. Raises UsageError where its plan and the regime contradict each other."""

    def __init__(self, llm: LLM, regime: str) -> None:
        regimes.check(llm.plan.evict, regime)
        self._llm, self._regime = llm, regime

    def __call__(self, cases: Seq[Case], progress: Progress) -> list[list[Said]]:
        """Every question of the cases, as many at once as memory holds."""
        talks = [Talk(self._llm, case) for case in cases]
        said: list[list[Said]] = []
        for some in self._fitting(talks):
            self._answer(some, part(progress, len(said), len(some), len(talks)))
            said += [talk.said for talk in some]
        return said

    def _fitting(self, talks: Seq[Talk]) -> Iterator[list[Talk]]:
        limit, held = self._llm.pool.budget.limit, 0
        some: list[Talk] = []
        for talk in talks:
            need = self._llm.layout.bytes(talk.most, 0, self._llm.scheduler.chunk)
            if some and (held + need > limit or len(some) == self._llm.scheduler.rows):
                yield some
                some, held = [], 0
            some.append(talk)
            held += need
        if some:
            yield some

    def _answer(self, talks: Seq[Talk], progress: Progress) -> None:
        if self._regime == "agnostic" and any(talk.case.asked == "start" for talk in talks):
            raise UsageError(
                "regime: a question that stands before the text is known when it is read; give --regime aware"
            )
        for talk in talks:
            self._llm.scheduler.check(talk.most)  # refuse before reading, not after
        sessions = [self._llm.session() for _ in talks]
        before = held(self._llm.pool)
        try:
            read = [(session, talk) for session, talk in zip(sessions, talks, strict=True) if talk.common]
            if read:
                texts = [talk.common for _, talk in read]
                ahead = [talk.most - len(talk.common) for _, talk in read]
                together([session for session, _ in read], texts, Sampling(max_new_tokens=0), ahead, progress)
            after = held(self._llm.pool)
            memory, file = ((now - then) // len(talks) for now, then in zip(after, before, strict=True))
            while open_ := [(s, t) for s, t in zip(sessions, talks, strict=True) if t.next()]:
                asked = [(session, talk, turn) for session, talk in open_ for turn in talk.next()]
                for first in range(0, len(asked), self._llm.scheduler.rows):
                    self._ask(asked[first : first + self._llm.scheduler.rows], memory, file)
        finally:
            for session in sessions:
                session.close()

    def _ask(self, asked: Seq[tuple[Session, Talk, int]], memory: int, file: int) -> None:
        twins = [session.fork() for session, _, _ in asked]
        try:
            rests = [talk.rest(turn) for _, talk, turn in asked]
            outputs = together(twins, rests, [talk.sampling(turn) for _, talk, turn in asked])
        finally:
            for twin in twins:
                twin.close()
        for (_, talk, turn), output in zip(asked, outputs, strict=True):
            talk.take(turn, output, memory, file)


def held(pool: Pool) -> tuple[int, int]:
    """Bytes of the cache that texts own now, in memory and in a file."""
    store = pool.sealed
    return pool.owned_bytes, store.owned * store.page_bytes if isinstance(store, Offloaded) else 0


class Talk:
    """A case on its way: its prompts as ids, and the answers so far.

    common: the ids that are read before anything is asked. most: ids of the longest prompt with its answer.
    """

    def __init__(self, llm: Words, case: Case) -> None:
        self._llm, self.case, self.said = llm, case, list[Said]()
        self._row = case.asked == "row"
        first = case.questions[:1] if self._row else case.questions
        self._rests: list[list[int]]
        if case.asked == "start":
            self.common: list[int] = []
            self._rests = [self._whole(turn) for turn in range(len(first))]
        else:
            split = prompts.questions(llm, case.text, [one.text for one in first], [one.begins for one in first])
            self.common, self._rests = split.common, split.rests
        rooms = [len(rest) + one.room for rest, one in zip(self._rests, first, strict=True)]
        if self._row:  # later prompts are not known yet: as long as their questions and the rooms of the answers
            later = case.questions[1:]
            rooms[0] += sum(one.room + len(llm.encode(one.text, special=False)) + AROUND for one in later)
        self.most = len(self.common) + max(rooms)

    def next(self) -> list[int]:
        """The questions to ask now; none when all were."""
        left = list(range(len(self.said), len(self.case.questions)))
        return left[:1] if self._row else left

    def rest(self, turn: int) -> list[int]:
        """What follows the common ids in this question's prompt."""
        if not self._row or turn == 0:
            return self._rests[turn]
        whole = self._whole(turn)
        if whole[: len(self.common)] != self.common:
            raise UsageError(
                "asked: the model's template writes a text in other tokens once there are answers, so questions in a "
                "row cannot go on from one reading of it; give another --asked"
            )
        return whole[len(self.common) :]

    def _whole(self, turn: int) -> list[int]:
        asked = self.case.questions[: turn + 1] if self._row else self.case.questions[turn : turn + 1]
        answers = [said.text for said in self.said[:turn]] if self._row else []
        told = [cut(self._llm, text, one.room) for text, one in zip(answers, asked, strict=False)]
        texts, begins = [one.text for one in asked], asked[-1].begins
        return prompts.conversation(self._llm, self.case.text, texts, told, self.case.asked == "start", begins)

    def sampling(self, turn: int) -> Sampling:
        # a model without a template has no way to end its answer but the line
        stop = () if self._llm.has_template else ("\n",)
        return Sampling(max_new_tokens=self.case.questions[turn].room, stop=stop)

    def take(self, turn: int, output: Output, memory: int, file: int) -> None:
        assert turn == len(self.said)
        steps = max(output.tokens_out - 1, 0)
        self.said.append(Said(output.text.strip(), output.tokens_in, steps, output.decode_seconds, memory, file))


def cut(llm: Words, said: str, tokens: int) -> str:
    """Of an answer that runs on, as much as there is room for."""
    ids = llm.encode(said, special=False)
    if len(ids) <= tokens or llm.tokenizer is None:
        return said
    return str(llm.tokenizer.decode(ids[:tokens], skip_special_tokens=True)).strip()
