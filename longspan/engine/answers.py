"""Read a text once; answer each question from that same text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from longspan.engine.memory import give_back
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM
    from longspan.engine.prompts import Split
    from longspan.engine.sample import Sampling
    from longspan.engine.session import Session


@dataclasses.dataclass(frozen=True)
class Answers:
    """outputs: one per question, in order. tokens_in: ids of the text and of all questions. prefill_seconds: the
    time it took to read them, read_seconds of it the text."""

    outputs: tuple[Output, ...]
    tokens_in: int
    prefill_seconds: float
    read_seconds: float

    @property
    def tokens_out(self) -> int:
        return sum(output.tokens_out for output in self.outputs)

    @property
    def prefill_tokens_per_second(self) -> float | None:
        return self.tokens_in / self.prefill_seconds if self.prefill_seconds > 0 else None

    @property
    def decode_ms_per_token(self) -> float | None:
        """Milliseconds per token after each answer's first; None when there was no second."""
        steps = sum(output.tokens_out - 1 for output in self.outputs if output.tokens_out > 1)
        return 1000 * sum(output.decode_seconds for output in self.outputs) / steps if steps else None

    @property
    def rope(self) -> str:
        """The rope method of the longest of the texts."""
        return max(self.outputs, key=lambda output: output.tokens_in + output.tokens_out).rope


def answer(
    llm: LLM,
    prompts: Split,
    sampling: Sampling,
    started: Callable[[int], None] = lambda index: None,
    said: Callable[[str], None] = lambda piece: None,
    finished: Callable[[int, Output], None] = lambda index, output: None,
    resumed: Session | None = None,
    read: Callable[[Session], None] = lambda session: None,
    at_once: int = 1,
) -> Answers:
    """Read the common part with a progress bar; then continue it with each rest on its own.

    started and finished are told which prompt it is; said gets the answer's text while it comes. resumed: a session
    that has read it already, which is closed. read: told of the session when it has. at_once: how many are continued
    together, which takes less time where they choose pages; nothing is said of these while they come.
    """
    from longspan.engine.session import together

    seconds, outputs = 0.0, []
    longest = max(map(len, prompts.rests))
    llm.scheduler.check(len(prompts.common) + longest)  # refuse before reading, not after
    with resumed or llm.session() as session:
        held = session.ids
        if held != prompts.common[: len(held)]:
            raise UsageError(
                "--resume: with such a question the text before it has other tokens than those that were kept; leave "
                "out --resume to read it anew"
            )
        if len(held) < len(prompts.common):
            seconds += session.feed(prompts.common[len(held) :], progress=True, ahead=longest).prefill_seconds
        read_seconds = seconds
        read(session)
        give_back()
        last = len(prompts.rests) - 1
        for first in range(0, len(prompts.rests) if at_once > 1 else 0, at_once):
            rests = prompts.rests[first : first + at_once]
            twins = [session.fork() for _ in rests]
            try:
                some = together(twins, rests, sampling)
            finally:
                for twin in twins:
                    twin.close()
            for i, output in enumerate(some, first):
                started(i)
                finished(i, output)
            seconds += max(output.prefill_seconds for output in some)
            outputs += some
            give_back()  # pages of many sizes were gathered
        for i, rest in enumerate(prompts.rests if at_once == 1 else ()):
            started(i)
            twin = session if i == last else session.fork()
            try:
                output = follow(twin.stream(rest, sampling), said)
            finally:
                twin.close()
            finished(i, output)
            seconds += output.prefill_seconds
            outputs.append(output)
    return Answers(tuple(outputs), len(prompts.common) + sum(map(len, prompts.rests)), seconds, read_seconds)


def follow(pieces: Generator[str, None, Output], said: Callable[[str], None]) -> Output:
    """Pass a stream's pieces on; the Output at its end."""
    while True:
        try:
            said(next(pieces))
        except StopIteration as end:
            output: Output = end.value
            return output
