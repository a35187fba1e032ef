"""`longspan chat`: a conversation whose cache is kept from turn to turn."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from longspan.cli import options, say
from longspan.engine.answers import follow
from longspan.errors import DoesNotFit, UsageError

if TYPE_CHECKING:
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM
    from longspan.engine.sample import Sampling
    from longspan.engine.session import Session


def chat(
    model: options.Model = None,
    rope: options.Rope = "auto",
    format: options.Format = None,
    evict: options.Evict = None,
    select: options.Select = None,
    place: options.Place = None,
    prefill: options.Prefill = None,
    offload: options.Offload = None,
    resident: options.Resident = None,
    dtype: options.Dtype = "auto",
    weights: options.Weights = "stored",
    device: options.Device = "auto",
    memory: options.Memory = None,
    page: options.Page = 64,
    chunk: options.Chunk = 2048,
    backend: options.Backend = "auto",
    max_new_tokens: options.MaxNewTokens = 256,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = None,
    stop: options.Stop = None,
    ignore_eos: options.IgnoreEos = False,
) -> None:
    """Talk with a model. /reset forgets the conversation, /quit or the end of input ends it.

    Ctrl-C stops an answer; at the prompt it ends the conversation.
    """
    engine = options.engine(locals())
    settings = options.sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        ignore_eos=ignore_eos,
    )
    llm = options.load(model, dtype=dtype, device=device, **engine)
    if not llm.has_template:
        raise UsageError(
            f"{model or 'the embedded model'} has no chat template, so it cannot tell who speaks; "
            "use longspan run --prompt TEXT, with --question TEXT to ask about it"
        )
    conversation = Conversation(llm, settings)
    terminal = sys.stdin.isatty()
    if terminal:
        say.note("/reset forgets the conversation, /quit ends it, Ctrl-C stops an answer.")
    for line in _lines(terminal):
        if line == "/quit":
            break
        if line == "/reset":
            conversation.reset()
            continue
        try:
            conversation.turn(line, lambda piece: print(piece, end="", flush=True))
        except KeyboardInterrupt:
            if not terminal:
                raise  # nobody is there to go on
        except DoesNotFit as error:
            if not terminal:
                raise
            say.note(f"longspan: error: {error}\nThis turn was left out; /reset forgets the conversation.")
            continue
        print(flush=True)


def _lines(terminal: bool) -> Iterator[str]:
    """What the user types, line by line, without empty lines."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() then edits lines and remembers them)
    while True:
        try:
            line = (input("> ") if terminal else input()).strip()
        except EOFError:
            return
        if line:
            yield line


class Conversation:
    """Messages, and the sessions that hold them.

    Two states are kept: with the newest answer as it was generated, and before it. The next turn goes on from
    the first when the template renders the answer as it was generated, else from the second (a template may
    trim answers, or drop their thoughts), else the conversation is read anew. Their pages are shared.
    """

    def __init__(self, llm: LLM, sampling: Sampling) -> None:
        self._llm, self._sampling = llm, sampling
        self.messages: list[dict[str, str]] = []
        self._kept: list[tuple[Session, list[int]]] = []  # each with the ids that it holds

    def turn(self, text: str, said: Callable[[str], None]) -> Output:
        """Add a message and answer it. When the answer is stopped half-way, what was said of it stays."""
        messages = [*self.messages, {"role": "user", "content": text}]
        ids = self._llm.chat_ids(messages)
        before = self._begin(ids)
        answered: list[str] = []

        def listen(piece: str) -> None:
            piece = piece if any(answered) else piece.lstrip()
            answered.append(piece)
            said(piece)

        after = before.fork()
        try:
            output = follow(after.stream(ids[-1:], self._sampling), listen)
        except BaseException:
            after.close()
            self._keep((before, ids[:-1]))
            if any(answered):
                self.messages = [*messages, {"role": "assistant", "content": "".join(answered)}]
            raise
        self._keep((after, [*ids, *output.ids]), (before, ids[:-1]))
        self.messages = [*messages, {"role": "assistant", "content": output.text.strip()}]
        return output

    def reset(self) -> None:
        """Forget everything."""
        self._keep()
        self.messages = []

    def _begin(self, ids: list[int]) -> Session:
        """A session that has read all of `ids` but the last."""
        for session, held in self._kept:
            if len(held) < len(ids) and ids[: len(held)] == held:
                session, new = session.fork(), ids[len(held) : -1]
                break
        else:
            self._keep()
            session, new = self._llm.session(), ids[:-1]
        try:
            if new:
                session.feed(new, progress=True)
        except BaseException:
            session.close()
            raise
        return session

    def _keep(self, *states: tuple[Session, list[int]]) -> None:
        for session, _ in self._kept:
            session.close()
        self._kept = list(states)
