"""From requests to texts: the loop of steps, samples and stops."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq

from transformers import PreTrainedTokenizerBase

from longspan.engine.sample import Sampler, Sampling, TokenLogprob
from longspan.engine.schedule import Scheduler, Text
from longspan.engine.text import Detokenizer
from longspan.errors import DoesNotFit

Progress = Callable[[int, int], None]
"""Called with the prompt tokens read so far, and in all."""


@dataclasses.dataclass(frozen=True)
class Output:
    """What came of one request.

    finish_reason: "stop" (end token or stop string), "length" (max_new_tokens), or "memory" (the KV limit was
    reached while generating). tokens_in: ids of the whole text before the first new one; cached of them were
    already read. prefill_seconds: from the first step to the first new id. decode_seconds: from there to the
    last. rope: the method in force at the end.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: str
    tokens_in: int
    tokens_cached: int
    prefill_seconds: float
    decode_seconds: float
    rope: str
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def tokens_out(self) -> int:
        return len(self.ids)

    @property
    def decode_ms_per_token(self) -> float | None:
        """Milliseconds per id after the first; None when there was no second."""
        return 1000 * self.decode_seconds / (len(self.ids) - 1) if len(self.ids) > 1 else None


class Request:
    """One text that is to go on, and what it has become so far."""

    def __init__(
        self, text: Text, sampling: Sampling, tokenizer: PreTrainedTokenizerBase | None, vocab: int, eos: Seq[int]
    ) -> None:
        self.text, self.sampling, self.eos = text, sampling, frozenset(eos)
        self.sampler = Sampler(sampling, tokenizer, vocab)
        self.words = Detokenizer(tokenizer, sampling.stop)
        self.tokens_in = len(text.ids)
        self.tokens_cached = text.cache.length
        self.generated: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.reason: str | None = None
        self.began = self.first = self.last = 0.0

    def take(self, token: int, logprob: TokenLogprob | None) -> str:
        """Add the id that was drawn; the text that became certain. Sets `reason` when it is the last."""
        self.last = time.perf_counter()
        if not self.generated:
            self.first = self.last
        self.generated.append(token)
        self.text.ids.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        ended = token in self.eos and not self.sampling.ignore_eos
        new = "" if ended else self.words.push(token)
        if ended or self.words.stopped or self.sampler.stopped(self.generated):
            self.reason = "stop"
        elif len(self.generated) >= self.sampling.max_new_tokens:
            self.reason = "length"
        return new + self.words.finish() if self.reason else new

    def output(self, rope: str) -> Output:
        return Output(
            text=self.words.text,
            ids=tuple(self.generated),
            finish_reason=self.reason or "length",
            tokens_in=self.tokens_in,
            tokens_cached=self.tokens_cached,
            prefill_seconds=max(self.first - self.began, 0.0),
            decode_seconds=self.last - self.first,
            rope=rope,
            logprobs=tuple(self.logprobs) if self.sampling.logprobs is not None else None,
        )


def run(
    scheduler: Scheduler,
    requests: Seq[Request],
    progress: Progress | None = None,
    finished: Callable[[Request], None] | None = None,
) -> Iterator[tuple[Request, str]]:
    """Drive the requests to their ends; yields (request, new text), for each new id of each.

    A request whose max_new_tokens is 0 is only read. finished: called for each as it ends; by default its pages
    are freed. When the caller stops early, or an error is raised, all that is left is freed.
    """
    done = finished or (lambda request: scheduler.drop(request.text))
    left = {id(r.text): r for r in requests}
    reading = Reading(list(requests), progress)
    try:
        for request in requests:
            request.began = request.first = request.last = time.perf_counter()
            scheduler.submit(request.text, asks=request.sampling.max_new_tokens > 0)
        while left:
            try:
                ready = scheduler.step()
            except DoesNotFit:
                stuck = next((left[id(t)] for t in scheduler.running if id(t) in left), None)
                if stuck is None or not stuck.generated:
                    raise
                stuck.reason = "memory"
                yield stuck, stuck.words.finish()
                del left[id(stuck.text)]
                done(stuck)
                continue
            reading.report()
            for text, logits in ready:
                request = left[id(text)]
                if request.sampling.max_new_tokens == 0:
                    request.first = request.last = time.perf_counter()
                    request.reason, new = "length", ""
                else:
                    new = request.take(*request.sampler.draw(logits, text.ids))
                yield request, new
                if request.reason:
                    del left[id(text)]
                    done(request)
    finally:
        for request in left.values():
            scheduler.drop(request.text)


class Reading:
    """How much of the prompts is read; a text that must be read again counts again."""

    def __init__(self, requests: list[Request], progress: Progress | None) -> None:
        self._requests, self._progress = requests, progress
        self._total = sum(r.tokens_in - r.tokens_cached for r in requests)
        self._told = -1

    def report(self) -> None:
        if self._progress is None or self._told >= self._total:
            return
        read = sum(
            min(r.text.cache.length, r.tokens_in) - r.tokens_cached
            if r.reason is None and not r.generated
            else r.tokens_in - r.tokens_cached
            for r in self._requests
        )
        read = max(read, 0)
        if read != self._told:
            self._told = read
            self._progress(read, self._total)
