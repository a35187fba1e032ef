"""Perplexity as a suite: how well a model foresees each token of windows of text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from longspan.errors import UsageError
from longspan.evals import haystack
from longspan.evals.intervals import around_mean
from longspan.evals.progress import Progress, part
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.llm import LLM


@dataclass(frozen=True, slots=True)
class Window:
    """start: place of its first token in the text's tokens. tokens: how many were predicted, with `nats` in all;
    late_tokens and late_nats: of its second half."""

    index: int
    start: int
    tokens: int
    nats: float
    late_tokens: int
    late_nats: float


@dataclass(frozen=True)
class Perplexity:
    """How well a model foresees a text: exp of the mean of -log p over all predicted tokens.

    The text is cut into windows that do not overlap, each read on its own, without a chat template. A window begins
    with the tokenizer's own first token where the model knows it there: where `llm.encode` adds it, or the chat
    template begins with it. The window's very first token is not predicted. The interval is a normal approximation
    over the windows' mean nats, then exponentiated; windows next to each other may be alike, which it does not know.
    """

    length: int | None = option(None, "TOKENS", "Tokens of a window. [default: 1024, or the trained length if shorter]")
    samples: int = option(32, "N", "Windows at most, evenly spread over the text.", also="windows")
    seed: int = option(0, "N", "Another order of the held-out documents; 0: by name.")
    made: ClassVar[type] = Window
    regime: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        whole("length", self.length, 4)
        whole("samples", self.samples, 1)
        whole("seed", self.seed, 0)

    def measure(self, llm: LLM, text: str | None, progress: Progress, done: int) -> Iterator[Window]:
        assert self.length is not None
        begin = beginning(llm)
        ids = llm.encode(haystack.held_out(self.seed or None) if text is None else text, special=False)
        size = self.length - len(begin)
        there = len(ids) // size
        if there == 0:
            raise UsageError(
                f"length: {self.length:,}; the text has {len(ids):,} tokens and fills no window: give "
                f"{len(ids) + len(begin):,} or less, or a longer text"
            )
        taken = min(self.samples, there)
        half = self.length // 2
        progress(done, taken)
        for index in range(done, taken):
            start = index * there // taken * size
            window = [*begin, *ids[start : start + size]]
            losses = llm.losses(window, progress=part(progress, index, 1, taken)).double()
            late = losses[half - 1 :]  # the loss at i is of the token at i + 1
            yield Window(index, start, len(losses), float(losses.sum()), len(late), float(late.sum()))
            progress(index + 1, taken)

    def results(self, samples: Seq[Window]) -> Results:
        every = _figures([(one.nats, one.tokens) for one in samples])
        late = _figures([(one.late_nats, one.late_tokens) for one in samples])
        return Results(
            {"windows": len(samples), **every, "second_half": late},
            ("part", "perplexity", "95 % interval", "tokens"),
            (("whole windows", *_row(every)), ("second halves", *_row(late))),
            (
                f"{len(samples):,} windows of {self.length:,} tokens. The interval is a normal approximation over "
                "their mean logarithms.",
            ),
        )


def beginning(llm: LLM) -> list[int]:
    """The tokenizer's own first token, where `encode` adds it or the chat template begins with it; else nothing."""
    first = llm.tokenizer.bos_token_id if llm.tokenizer is not None else None
    if first is None:
        return []
    begins = [llm.encode("a")[:1]]
    if llm.has_template:
        with contextlib.suppress(UsageError):  # a template may refuse this conversation
            begins.append(llm.chat_ids([{"role": "user", "content": "a"}])[:1])
    return [first] if [first] in begins else []


def _figures(parts: Seq[tuple[float, int]]) -> dict[str, Any]:
    tokens = sum(count for _, count in parts)
    mean = sum(nats for nats, _ in parts) / tokens if tokens else math.nan
    ends = around_mean([nats / count for nats, count in parts if count])
    return {
        "tokens": tokens,
        "nats_per_token": mean,
        "perplexity": _exp(mean),
        "interval": None if ends is None else [_exp(end) for end in ends],
    }


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _row(figures: dict[str, Any]) -> tuple[str, ...]:
    ends = figures["interval"]
    between = "–" if ends is None else f"{_number(ends[0])} – {_number(ends[1])}"
    return _number(figures["perplexity"]), between, f"{figures['tokens']:,}"


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
