"""What a question costs: reading all of a text, reading it once, or retrieving some of it; and which of these is
wise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from longspan.errors import UsageError
from longspan.plan.tasks import Task

QUESTION = 64
"""Tokens of a question."""
PASSAGES, PASSAGE = 8, 512
"""Retrieved passages, and tokens of each."""
EMBEDDING = 110e6
"""Parameters of a model that embeds passages, as BERT-base has."""
LOOKUP = 0.05
"""Seconds of searching an index."""
WIDE = 32_768
"""Tokens that are read where retrieval chooses and the model reads at length (hybrid)."""

TWICE = 2.0
"""A text that fits is read whole where that takes at most so many times the machine time of retrieval."""

WHOLE = (
    "read whole, texts are answered better on average than by retrieval, where there is machine time enough "
    "(Self-Route, https://arxiv.org/abs/2407.16833)"
)
SELF_ROUTE = (
    "letting the model say when passages are not enough, and only then reading all, saved 65 % (Gemini-1.5-Pro) and "
    "39 % "
    "(GPT-4o) of the cost at equal quality (Self-Route, https://arxiv.org/abs/2407.16833)"
)
LONG_RAG = "retrieving units of 4,000 tokens reached EM 62.7 (NQ) and 64.3 (HotpotQA) (LongRAG, https://arxiv.org/abs/2406.15319)"

NOTHING = "none"
NO_WAY = "no way is left; give more memory or faster devices, a smaller corpus, or more time for the first token"


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """read: seconds of reading a text of so many tokens from nothing. more: of reading (cached, new) tokens behind a
    cache. step: of a generated token with so many cached. fits: tokens of the longest text that fits. answer:
    tokens."""

    read: Callable[[int], float]
    more: Callable[[int, int], float]
    step: Callable[[int], float]
    fits: int
    answer: int


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """corpus: tokens that questions may be about. questions, updates: a day; an update makes what was read before
    useless. attribution: whether an answer must say which passage it is from. ttft: seconds that a first token may
    take;
    None: any. price: dollars of an hour of all devices together."""

    corpus: int
    questions: float = 100.0
    updates: float = 1.0
    attribution: bool = False
    ttft: float | None = None
    price: float | None = None

    def __post_init__(self) -> None:
        for name in ("corpus", "questions", "updates"):
            value = getattr(self, name)
            least = 0 if name == "updates" else 1e-9
            if not least <= value < 1e15:
                raise UsageError(f"{name}: {value:g}; give a number {'of at least' if not least else 'above'} 0")
        if self.price is not None and not 0 <= self.price < 1e9:
            raise UsageError(f"price: {self.price:g}; give dollars an hour, at least 0")
        if self.ttft is not None and not 0 < self.ttft < 1e9:
            raise UsageError(f"ttft: {self.ttft:g}; give seconds above 0")


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A way of answering. possible: whether its text fits. ttft: seconds to the first token. each: seconds that the
    machine computes for a question, and nothing else meanwhile. once: seconds after every update, for all questions
    until
    the next. seconds: of a question with its part of these. dollars: for `seconds`, at the price given."""

    name: str
    possible: bool
    ttft: float
    each: float
    once: float
    seconds: float
    dollars: float | None
    how: str


def ways(timing: Timing, use: Use, flops: float) -> dict[str, Way]:
    """cold, cached, rag and hybrid. flops: operations a second that the machine reaches (for embeddings)."""
    answer = timing.answer
    fits = use.corpus + QUESTION + answer <= timing.fits
    asked = _asked(use)

    def way(name: str, tokens: int, ttft: float, once: float, how: str) -> Way:
        """tokens: that are there when the answer begins."""
        possible = tokens + answer <= timing.fits
        each = ttft + answer * timing.step(tokens)
        seconds = each + once / asked
        price = None if use.price is None else seconds / 3600 * use.price
        return Way(name, possible, ttft, each, once, seconds, price, how)

    whole = use.corpus + QUESTION
    few, wide = (min(size, use.corpus) + QUESTION for size in (PASSAGES * PASSAGE, WIDE))
    read, more = timing.read(use.corpus), timing.more(use.corpus, QUESTION)
    embed = 2 * EMBEDDING * use.corpus / flops
    note = "" if fits else f"; not possible, at most {timing.fits:,} tokens fit"
    kept = (
        f"read once for {asked:,.4g} questions ({use.questions:,g} questions and {use.updates:,g} updates a day) and "
        "kept; "
        f"memory that waits is not counted{note}"
    )
    retrieved = (
        f"{PASSAGES} passages of {PASSAGE} tokens; after every update the index is made anew by a model of "
        f"{EMBEDDING / 1e6:.0f}M parameters; a search takes {LOOKUP * 1000:.0f} ms"
    )
    made = (
        way("cold", whole, read + more, 0.0, f"all {use.corpus:,} tokens are read for every question{note}"),
        way("cached", whole, more, read, kept),
        way("rag", few, LOOKUP + timing.read(few), embed, retrieved),
        way("hybrid", wide, LOOKUP + timing.read(wide), embed, f"the {wide - QUESTION:,} tokens ranked first are read"),
    )
    return {way.name: way for way in made}


def _asked(use: Use) -> float:
    """Questions between two updates; what is kept is made anew once a year at least."""
    return max(use.questions / max(use.updates, 1 / 365), 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """best: a way's name, or "none" where none fits and is in time. why: the reasons, each a sentence. even: questions
    between two updates from which on a kept text costs no more than retrieval; None: it never does, or the text does
    not fit."""

    best: str
    why: tuple[str, ...]
    ways: dict[str, Way]
    even: float | None


def choose(timing: Timing, use: Use, flops: float, task: Task | None = None, reach: int | None = None) -> Choice:
    """The way that is wise, by stated rules. reach: tokens up to which the model is known to use what it reads."""
    found = ways(timing, use, flops)
    why = []
    if not (found["cold"].possible or found["cached"].possible):
        why.append(f"the corpus of {use.corpus:,} tokens does not fit; at most {timing.fits:,} do")
    why += [f"{name}: what it reads does not fit" for name in ("rag", "hybrid") if not found[name].possible]
    beyond = reach is not None and use.corpus > reach
    if beyond:
        why.append(f"the model is known to use {reach:,} tokens well, the corpus has {use.corpus:,}")
    left = {name: way for name, way in found.items() if way.possible}
    if use.ttft is not None:
        late = [way for way in left.values() if way.ttft > use.ttft]
        why += [f"{way.name}: the first token comes after {way.ttft:.3g} s, later than {use.ttft:g} s" for way in late]
        left = {name: way for name, way in left.items() if way.ttft <= use.ttft}
    if use.attribution:
        why.append("answers must name their passage: retrieval knows it, a text read whole does not")
    scattered = task is not None and task.scattered
    if scattered:
        why.append("an answer may need any place of the text, which few passages do not hold")
    long_ways = [left[name] for name in ("cached", "cold") if name in left]
    cheapest = min(long_ways, key=lambda way: way.seconds, default=None)
    if cheapest is not None and "rag" in left:
        cheaper, times = _ratio(cheapest.seconds, left["rag"].seconds)
        why.append(f"{cheapest.name} takes {times} {'less' if cheaper else 'more'} machine time a question than rag")
    best = _best(use, left, cheapest, scattered, beyond)
    why.append({"hybrid": SELF_ROUTE, "rag": LONG_RAG, NOTHING: NO_WAY}.get(best, WHOLE))
    return Choice(best, tuple(why), found, _even(found))


def _best(use: Use, left: dict[str, Way], long: Way | None, scattered: bool, beyond: bool) -> str:
    """left: the ways that fit and are in time. long: the cheapest of those that read all of the text."""
    if long is None or beyond or use.attribution:
        order = ("hybrid", "rag") if scattered or beyond or use.attribution else ("rag", "hybrid")
        return next((name for name in order if name in left), NOTHING)
    if scattered or "rag" not in left or long.seconds <= TWICE * left["rag"].seconds:
        return long.name
    return "rag"


def _ratio(ours: float, others: float) -> tuple[bool, str]:
    low, high = sorted((ours, others))
    return ours <= others, f"{high / max(low, 1e-12):.3g} times"


def _even(found: dict[str, Way]) -> float | None:
    """Questions n with each + once / n the same for a kept text and for retrieval."""
    cached, rag = found["cached"], found["rag"]
    if not (cached.possible and rag.possible) or cached.each >= rag.each:
        return None
    return max((cached.once - rag.once) / (rag.each - cached.each), 1.0)
