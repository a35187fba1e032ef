"""Perplexity as a suite: how well a model foresees each token of windows of text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from longspan.errors import UsageError
from longspan.evals import haystack, lengths
from longspan.evals.intervals import around_mean
from longspan.evals.numbers import perplexity
from longspan.evals.progress import Progress, part
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.llm import LLM


PARTS = 10
"""Parts of a window, by position, that are told apart."""


@dataclass(frozen=True, slots=True)
class Window:
    """start: place of its first token in the text's tokens. tokens: how many were predicted and count, with `nats` in
    all; late_tokens and late_nats: of its second half; part_tokens and part_nats: of each tenth of it. length: of the
    window in tokens."""

    index: int
    start: int
    tokens: int
    nats: float
    late_tokens: int
    late_nats: float
    length: int
    part_tokens: tuple[int, ...]
    part_nats: tuple[float, ...]


@dataclass(frozen=True)
class Perplexity:
    """How well a model foresees a text: exp of the mean of -log p over all predicted tokens.

    The text is cut into windows that do not overlap, or (--stride) slide over it; each is read on its own, without a
    chat template. A window begins with the tokenizer's own first token where the model knows it there: where
    `llm.encode` adds it, or the chat template begins with it. The window's very first token is not predicted. The
    interval is a normal approximation over the windows' mean nats, then exponentiated; windows next to each other may
    be alike, which it does not know.
    """

    length: int | None = option(None, "TOKENS", "Tokens of a window. [default: 1024, or the trained length if shorter]")
    lengths: tuple[int, ...] = option((), "TOKENS", lengths.SEVERAL)
    stride: int | None = option(
        None,
        "TOKENS",
        "Windows slide: each begins so many tokens after the one before, and only so many, its last, count. [default: "
        "windows lie side by side, and all counts]",
    )
    samples: int = option(32, "N", "Windows of each length at most, evenly spread over the text.", also="windows")
    seed: int = option(0, "N", "Another order of the held-out documents; 0: by name.")
    made: ClassVar[type] = Window
    regime: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        lengths.check(self, 4)
        whole("stride", self.stride, 1)
        whole("samples", self.samples, 1)
        whole("seed", self.seed, 0)

    def measure(self, llm: LLM, text: str | None, progress: Progress, done: int) -> Iterator[Window]:
        begin = beginning(llm)
        ids = llm.encode(haystack.held_out(self.seed or None) if text is None else text, special=False)
        places = [
            (length, start) for length in lengths.of(self) for start in self._starts(length, len(ids), len(begin))
        ]
        progress(done, len(places))
        for index, (length, start) in list(enumerate(places))[done:]:
            window = [*begin, *ids[start : start + length - len(begin)]]
            losses = llm.losses(window, progress=part(progress, index, 1, len(places))).double().tolist()
            yield self._window(index, start, length, losses)
            progress(index + 1, len(places))

    def _starts(self, length: int, tokens: int, begin: int) -> list[int]:
        """The places of the windows of one length in a text of so many tokens. begin: tokens before it in each."""
        size = length - begin
        step = size if self.stride is None else self.stride
        if step > size:
            raise UsageError(f"stride: {step:,} tokens are more than the {size:,} of text in a window; lower it")
        there = (tokens - size) // step + 1
        if there < 1:
            raise UsageError(
                f"length: {length:,}; the text has {tokens:,} tokens and fills no window: give {tokens + begin:,} or "
                "less, or a longer text"
            )
        taken = min(self.samples, there)
        return [i * there // taken * step for i in range(taken)]

    def _window(self, index: int, start: int, length: int, losses: list[float]) -> Window:
        """losses: of the window's second token, the third, and so on."""
        first = 1 if self.stride is None or start == 0 else length - self.stride  # what was counted before it
        found = [(place, nats) for place, nats in enumerate(losses, 1) if place >= first]
        late = [nats for place, nats in found if place >= length // 2]
        parts: list[list[float]] = [[] for _ in range(PARTS)]
        for place, nats in found:
            parts[place * PARTS // length].append(nats)
        return Window(
            index,
            start,
            len(found),
            math.fsum(nats for _, nats in found),
            len(late),
            math.fsum(late),
            length,
            tuple(map(len, parts)),
            tuple(map(math.fsum, parts)),
        )

    def results(self, samples: Seq[Window]) -> Results:
        by_length = {length: [one for one in samples if one.length == length] for length in lengths.of(self)}
        told = {length: _told(windows) for length, windows in by_length.items()}
        rows = []
        for length, one in told.items():
            before = f"{length:,} tokens: " if len(told) > 1 else ""
            rows.append((f"{before}whole windows", *_row(one)))
            rows.append((f"{before}second halves", *_row(one["second_half"])))
        assert self.length is not None
        longest = told[self.length]
        rows += [(one["part"], *_row(one)) for one in longest["deciles"] if one["tokens"]]
        among = f"The rows in percent are parts of the windows of {self.length:,} tokens, by position. "
        slide = "" if self.stride is None else f"They slide by {self.stride:,} tokens. "
        return Results(
            {**longest, "lengths": {str(length): one for length, one in told.items()}},
            ("part", "perplexity", "95 % interval", "tokens"),
            tuple(rows),
            (
                f"{len(samples):,} windows of {', '.join(f'{length:,}' for length in told)} tokens. {slide}{among}"
                "The interval is a normal approximation over their mean logarithms.",
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


def _told(windows: Seq[Window]) -> dict[str, Any]:
    """Figures of the windows of one length."""
    deciles = [
        {
            "part": f"{100 * i // PARTS} – {100 * (i + 1) // PARTS} %",
            **_figures([(one.part_nats[i], one.part_tokens[i]) for one in windows]),
        }
        for i in range(PARTS)
    ]
    return {
        "windows": len(windows),
        **_figures([(one.nats, one.tokens) for one in windows]),
        "second_half": _figures([(one.late_nats, one.late_tokens) for one in windows]),
        "deciles": deciles,
    }


def _figures(parts: Seq[tuple[float, int]]) -> dict[str, Any]:
    tokens = sum(count for _, count in parts)
    mean = sum(nats for nats, _ in parts) / tokens if tokens else math.nan
    ends = around_mean([nats / count for nats, count in parts if count])
    return {
        "tokens": tokens,
        "nats_per_token": mean,
        "perplexity": perplexity(mean),
        "interval": None if ends is None else [perplexity(end) for end in ends],
    }


def _row(figures: dict[str, Any]) -> tuple[str, ...]:
    ends = figures["interval"]
    between = "–" if ends is None else f"{_number(ends[0])} – {_number(ends[1])}"
    return _number(figures["perplexity"]), between, f"{figures['tokens']:,}"


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
