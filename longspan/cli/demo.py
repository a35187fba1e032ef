"""`longspan demo`: a real text hundreds of times longer than the model was trained on, read in bounded memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longspan.cli import options, say
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.engine.answers import Answers
    from longspan.engine.llm import LLM
    from longspan.evals.needles import Needle

MEMORY = "400MB"
DEPTHS = 10
STREAMING = "streaming:budget=516"
"""Four sinks and the newest 512 tokens, as StreamingLLM keeps them."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one way to read the text came to."""

    right: int
    asked: int
    tokens: int
    prefill_seconds: float
    seconds_per_question: float
    kv_bytes_peak: int
    plan: dict[str, str]
    needles: list[dict[str, Any]]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.prefill_seconds


def demo(
    context: typer.Context,
    tokens: Annotated[int, typer.Option(metavar="N", help="Length of the text.")] = 262_144,
    questions: Annotated[int, typer.Option(metavar="N", help="Facts in it, each asked about.")] = 50,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Limit of the KV cache.")] = MEMORY,
    seed: Annotated[int, typer.Option(metavar="N", help="Another text and other facts.")] = 0,
    json: options.Json = False,
    model: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Read a text far longer than the embedded model was trained on, and answer questions about it.

    Invented facts stand at even depths of Python's own sources and documentation. The plan follows from the memory.
    Beside it: what full attention would need, what plain StreamingLLM forgets, and the same questions about texts
    inside the trained length.
    """
    from longspan.engine.memory import give_back, parse_bytes, peak_rss
    from longspan.evals.needles import Needles

    if tokens < 1 or tokens > 1 << 32:
        raise UsageError(f"--tokens: {tokens}; give the length of the text, as in 262144")
    suite = Needles(length=tokens, samples=questions, depths=DEPTHS, phrasing="plain", seed=seed)
    options.check(memory=memory)
    tell: Callable[[str], None] = (lambda line: None) if json else (lambda line: print(line, flush=True))
    llm = options.load(model, memory=parse_bytes(memory), context=tokens)
    trained = llm.shape.trained
    text = suite.text(llm)
    give_back()
    tell(f"A text of {tokens:,} tokens, {tokens / trained:,.0f} times the {trained:,} that the model was trained on:")
    tell(f"Python's library and documentation, with {questions:,} invented facts at {DEPTHS} depths.")
    tell(f"Plan for {memory}: {' '.join(f'--{name} {value}' for name, value in llm.plan.texts.items())}")
    tell(f"  because {llm.plan.why}\n")
    far = attempt(llm, suite, text, lambda row: tell(row))
    peak = peak_rss()
    full = llm.shape.layout(llm.dtype.itemsize, llm.layout.page).bytes(tokens)
    heads = sum(layer.window is None for layer in llm.shape.layers) * llm.shape.heads
    products = tokens * (tokens - 1) * heads * llm.shape.head_dim  # two products of half of all pairs
    disk = llm.pool.disk_bytes
    tell(
        f"\n{far.right:,} of {far.asked:,} right. Read at {say.rate(far.tokens_per_second)}, "
        f"{far.seconds_per_question:.2g} s a question.\n"
        f"Peak memory of the process {say.size(peak)}, of it KV cache {say.size(far.kv_bytes_peak)}"
        f"{f'; {say.size(disk)} of pages in a file' if disk else ''}.\n"
        f"Full attention would hold {say.size(full)} of KV cache and take {products:.1e} multiply-adds for its scores "
        "and sums.\n"
    )
    del llm
    stream = attempt(options.load(model, evict=STREAMING, place="slot"), suite, text)
    tell(f"StreamingLLM, 4 sinks and the newest 512 tokens: {stream.right:,} of {stream.asked:,}, the rest forgotten")
    plain = options.load(model)
    short = [right for right, _ in suite.short(plain)]
    tell(
        f"The same questions inside the trained length ({suite.inside} facts a text): {sum(short):,} of {len(short):,}"
    )
    if json:
        say.dump(
            {
                "model": model or "embedded",
                "tokens": tokens,
                "trained_tokens": trained,
                "questions": questions,
                "seed": seed,
                "selected": _report(far),
                "streaming": _report(stream),
                "inside_trained_length": {"right": sum(short), "asked": len(short)},
                "full_attention": {"kv_bytes": full, "multiply_adds": products},
                "rss_peak_bytes": peak,
                "disk_bytes": disk,
                "warnings": say.notes(context).texts,
            }
        )


def attempt(llm: LLM, suite: Any, text: str, told: Callable[[str], None] = lambda row: None) -> Trial:
    """Read the text and ask all questions; told of each depth when its last question is answered."""
    llm.pool.reset_peak()
    held: list[Needle] = []

    def answered(index: int, one: Needle) -> None:
        if held and held[-1].depth != one.depth:
            told(_row(held))
            held.clear()
        held.append(one)

    began = time.perf_counter()
    made: Answers
    needles, made = suite.long(llm, text, answered)
    told(_row(held))
    seconds = time.perf_counter() - began - made.read_seconds
    return Trial(
        sum(one.right for one in needles),
        len(needles),
        made.tokens_in,
        made.prefill_seconds,
        seconds / len(needles),
        llm.pool.peak_bytes,
        llm.plan.texts,
        [dataclasses.asdict(one) for one in needles],
    )


def _report(trial: Trial) -> dict[str, Any]:
    return {**dataclasses.asdict(trial), "tokens_per_second": trial.tokens_per_second}


def _row(held: list[Needle]) -> str:
    """One depth: how many were right, and an example; a wrong one where there is one."""
    one = next((one for one in held if not one.right), held[0])
    said = one.answer if one.right else f"{_shown(one.answer)}, expected {one.expected}"
    right = sum(one.right for one in held)
    return f"at {100 * one.depth:>2.0f} %  {right} of {len(held)} right   {one.question} {said}"


def _shown(answer: str) -> str:
    """An answer on one line, cut where it goes on and on."""
    text = " ".join(answer.split()) or "nothing"
    return text if len(text) <= 50 else f"{text[:49]}…"
