"""A text that is kept: read once, asked many times, continued."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.engine import saved
from longspan.engine.generate import Output, Progress, Request
from longspan.engine.sample import Sampling
from longspan.engine.schedule import Text
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.engine.llm import LLM


class Session:
    """Keeps its cache between turns. Use as a context manager, or call `close`.

        with llm.session() as session:
            session.feed(long_text)
            print(session.ask("What is the access code?", max_new_tokens=16).text)

    When the memory limit is reached by other work, the session's cache may be given up; the text is then read
    again at the next turn, with the same result.
    """

    def __init__(self, llm: LLM, start: int = 0, resumed: tuple[Text, Mapping[str, Any]] | None = None) -> None:
        """start: text position of the first token. resumed: a saved text and what was kept with it."""
        self._llm = llm
        self._text, self.meta = resumed or (llm.text([], start), {})
        self._open = True

    @property
    def tokens(self) -> int:
        """Ids of the text so far."""
        return len(self._text.ids)

    @property
    def ids(self) -> list[int]:
        """The text so far."""
        return list(self._text.ids)

    @property
    def rope(self) -> str:
        """The rope method in force for the text so far."""
        return self._llm.ropes.used(self._llm.reach(max(self.tokens, 1)))

    def feed(self, text: str | Seq[int], progress: Progress | bool | None = None, ahead: int = 0) -> Output:
        """Read on: the text is appended and cached, nothing is generated.

        ahead: ids that are known to follow, such as the longest question about to be asked; the angles are chosen
        for them too, so that the text is not read again when they come.
        """
        return self._turn(self._encode(text), Sampling(max_new_tokens=0), progress, ahead)

    def ask(
        self,
        text: str | Seq[int],
        sampling: Sampling | None = None,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Output:
        """Append the text, generate an answer, and keep both. Options are those of `Sampling`."""
        return self._turn(self._encode(text), self._llm.sampling(sampling, options), progress)

    def stream(
        self,
        text: str | Seq[int],
        sampling: Sampling | None = None,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Generator[str, None, Output]:
        """Like `ask`, giving the answer's text while it comes; the generator's return value is the Output."""
        request = self._request(self._encode(text), self._llm.sampling(sampling, options))
        for _, new in self._llm.drive([request], progress, self._finished):
            if new:
                yield new
        return request.output(self.rope)

    def fork(self) -> Session:
        """A second session with the same text so far; cached pages are shared, not copied."""
        self._check()
        twin = Session(self._llm, self._text.cache.start)
        twin._text = self._llm.scheduler.fork(self._text)
        return twin

    def save(self, path: str | Path, meta: Mapping[str, Any] | None = None) -> int:
        """Write the text as it is cached to a file, from which `LLM.resume` goes on without reading it again; the bytes
        of the file. What stood there is replaced when the new file is whole.

        meta: anything JSON can hold, kept with it. Raises StoreError when the disk refuses, UsageError when there is
        nothing to save.
        """
        self._check()
        if not self._text.ids:
            raise UsageError("session: nothing was read yet; feed it a text before saving it")
        return saved.save(self._llm, self._text, saved.session_path(path), dict(meta or {}))

    def close(self) -> None:
        """Free the cache. A closed session cannot go on."""
        if self._open:
            self._llm.scheduler.drop(self._text)
            self._open = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if not self._open:
            raise UsageError("session: it was closed; open a new one")

    def _encode(self, text: str | Seq[int]) -> list[int]:
        return self._llm.encode(text, special=not self._text.ids)

    def _request(self, ids: list[int], sampling: Sampling, ahead: int = 0) -> Request:
        self._check()
        if not ids and not self._text.pending:
            raise UsageError("session: the text is empty; give at least one token")
        self._llm.scheduler.check(len(self._text.ids) + len(ids), self._text.cache.start)
        self._text.extend(ids)
        self._text.ahead = ahead
        return self._llm.request(self._text, sampling)

    def _turn(self, ids: list[int], sampling: Sampling, progress: Progress | bool | None, ahead: int = 0) -> Output:
        request = self._request(ids, sampling, ahead)
        for _ in self._llm.drive([request], progress, self._finished):
            pass
        return request.output(self.rope)

    def _finished(self, request: Request) -> None:
        self._llm.scheduler.keep(request.text)


def together(
    sessions: Seq[Session],
    texts: Seq[Seq[int]],
    sampling: Sampling | Seq[Sampling],
    ahead: Seq[int] | None = None,
    progress: Progress | None = None,
) -> list[Output]:
    """Ask each session its own text, all at once: what they share is read once for all of them.

    sampling: of all, or of each. ahead: of each, as in `Session.feed`.
    """
    llm = sessions[0]._llm
    each = [sampling] * len(texts) if isinstance(sampling, Sampling) else sampling
    known = ahead or [0] * len(texts)
    requests = [
        session._request(list(text), one, more)
        for session, text, one, more in zip(sessions, texts, each, known, strict=True)
    ]
    for _ in llm.drive(requests, progress, lambda request: llm.scheduler.keep(request.text)):
        pass
    return [request.output(session.rope) for session, request in zip(sessions, requests, strict=True)]


def options(base: Sampling, given: dict[str, object]) -> Sampling:
    """`base` with the given fields changed. Raises UsageError for an unknown one."""
    known = {f.name for f in dataclasses.fields(Sampling)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return dataclasses.replace(base, **given)  # type: ignore[arg-type]
