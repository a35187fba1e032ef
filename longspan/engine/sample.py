"""From logits to the next token, and when to stop: transformers' own processors, one set per request."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from longspan.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a text goes on. The default is greedy.

    max_new_tokens: at most so many. temperature: 0 is greedy. top_k: 0 is off; top_p: 1 is off; min_p: 0 is
    off. repetition_penalty: 1 is off (CTRL, arXiv:1909.05858). seed: same seed, same text; None draws one.
    stop: the text ends before the first of these strings. logprobs: None, or how many alternatives to report
    beside each token's own log-probability (of the model, before any processor). ignore_eos: go on after the
    end token.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        given: object = self.stop  # a bare string is taken as one stop string, not as its letters
        object.__setattr__(self, "stop", (given,) if isinstance(given, str) else tuple(self.stop))
        _whole("max_new_tokens", self.max_new_tokens, 0)
        _within("temperature", self.temperature, 0, 100)
        _whole("top_k", self.top_k, 0)
        _within("top_p", self.top_p, 0, 1, open_below=True)
        _within("min_p", self.min_p, 0, 1)
        _within("repetition_penalty", self.repetition_penalty, 0, 100, open_below=True)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
            if self.seed >= 1 << 63:
                raise UsageError(f"seed: {self.seed} is too large; give a whole number below 2^63")
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0)
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise UsageError("stop: an empty stop string would stop everything; leave it out")


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}: {value!r}; give a whole number ≥ {least}")


def _within(name: str, value: object, low: float, high: float, open_below: bool = False) -> None:
    number = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    if not number or not low <= value <= high or (open_below and value == low):  # type: ignore[operator]
        bounds = f"a number above {low:g}, at most {high:g}" if open_below else f"a number from {low:g} to {high:g}"
        raise UsageError(f"{name}: {value!r}; give {bounds}")


@dataclasses.dataclass(frozen=True)
class TokenLogprob:
    """One generated token's log-probability, and those of the likeliest tokens at its place."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Draws one request's tokens. State: its random generator, and the ids that the penalty looks at."""

    def __init__(self, sampling: Sampling, tokenizer: PreTrainedTokenizerBase | None, vocab: int) -> None:
        self.sampling = sampling
        self._generator = torch.Generator().manual_seed(
            sampling.seed if sampling.seed is not None else torch.seed() & ((1 << 63) - 1)
        )
        self._processors = LogitsProcessorList()
        if sampling.repetition_penalty != 1:
            self._processors.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
        if sampling.temperature > 0:
            if sampling.temperature != 1:
                self._processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k:
                self._processors.append(TopKLogitsWarper(min(sampling.top_k, vocab)))
            if sampling.top_p < 1:
                self._processors.append(TopPLogitsWarper(float(sampling.top_p)))
            if sampling.min_p > 0:
                self._processors.append(MinPLogitsWarper(float(sampling.min_p)))
        self._stop: Any = None
        if sampling.stop:
            if tokenizer is None:
                raise UsageError("stop: this checkpoint has no tokenizer, so stop strings cannot be found; use ids")
            self._stop = StopStringCriteria(tokenizer, list(sampling.stop))

    def draw(self, logits: torch.Tensor, ids: Iterable[int]) -> tuple[int, TokenLogprob | None]:
        """The next id after `ids`, from float32 logits [V]; with its log-probabilities if asked."""
        scores = logits[None].float().cpu()
        penalised = self.sampling.repetition_penalty != 1
        context = torch.tensor([list(ids) if penalised else []], dtype=torch.long)
        processed = self._processors(context, scores) if self._processors else scores
        if self.sampling.temperature > 0:
            chosen = int(torch.multinomial(torch.softmax(processed[0], -1), 1, generator=self._generator))
        else:
            chosen = int(processed[0].argmax())
        if self.sampling.logprobs is None:
            return chosen, None
        logprobs = torch.log_softmax(scores[0], -1)
        best = torch.topk(logprobs, min(self.sampling.logprobs, logprobs.numel()))
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return chosen, TokenLogprob(chosen, float(logprobs[chosen]), top)

    def stopped(self, generated: list[int]) -> bool:
        """Whether a stop string ends within the newest of the generated ids."""
        if self._stop is None or not generated:
            return False
        return bool(self._stop(torch.tensor([generated]), None)[0])
