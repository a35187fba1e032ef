"""`longspan run`: continue a text, or answer questions about it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longspan.cli import options, plans, say, texts
from longspan.engine import prompts
from longspan.engine.answers import Answers, answer
from longspan.errors import DoesNotFit, UsageError

if TYPE_CHECKING:
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM
    from longspan.engine.session import Session


USUAL = {"format": "dense", "evict": "none", "select": "all", "place": "text"}
USUAL |= {"prefill": "dense", "offload": "none"}
ANSWER = 1024
"""Tokens of an answer that a plan has room for; a longer one ends with the memory."""
TEMPLATE = 64
"""Tokens that a chat template may put around a text and its question."""


def run(
    context: typer.Context,
    model: options.Model = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text.")] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="A text file, joined to the text; - is standard input. Repeatable."),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A question about the text, answered on its own. Repeatable."),
    ] = None,
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
    length: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="TOKENS",
            help="Plan for texts of so many tokens, answers included, as in 128K. [default with --memory: this text's]",
        ),
    ] = None,
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
    logprobs: Annotated[
        int | None, typer.Option(metavar="N", help="With --json: log-probabilities, and those of N alternatives.")
    ] = None,
    ignore_eos: options.IgnoreEos = False,
    save: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Keep the text, as it was read, in this file, for --resume.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Go on with a text that was kept, without reading it again."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Continue a text of any length, or answer questions about it.

    The text is --prompt and every --file, or else standard input. With --question it is read once and each
    question is asked about it alone, through the model's chat template where it has one. With --memory or --context,
    what is not given of --format, --evict, --select, --place and --offload is chosen so that the text fits, and said.
    """
    engine = options.engine(locals())
    if resume is not None and (prompt is not None or file):
        raise UsageError("--resume: the text is the one that was kept; leave out --prompt and --file")
    if resume is not None and length is not None:
        raise UsageError("--resume: the plan is the one that the text was kept under; leave out --context")
    text = "" if resume is not None else texts.gather(prompt, file or [])
    asked = [texts.clean(one, "--question") for one in question or ()]
    if any(not one.strip() for one in asked):
        raise UsageError("--question: it is empty; leave it out to continue the text")
    settings = options.sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        logprobs=logprobs,
        ignore_eos=ignore_eos,
    )
    context_tokens = None if length is None else plans.tokens([length])[0]
    if resume is None and (memory is not None or context_tokens is not None):
        context_tokens = planned(context_tokens, longest(model, text, asked), min(max_new_tokens, ANSWER))
    llm = options.load(model, dtype=dtype, device=device, context=context_tokens, **engine)
    if llm.plan.why is not None and any(llm.plan.texts[name] != usual for name, usual in USUAL.items()):
        say.note(f"{plan_line(llm)}\n  because {llm.plan.why}")
    session = None if resume is None else llm.resume(resume)
    if session is not None:
        text = str(session.meta.get("text", ""))
    split = prompts.questions(llm, text, asked) if asked else prompts.completion(llm, text)
    if not split.rests:
        raise UsageError("the text has no token of this model; give more text")
    printer = _Silent() if json else _Printer(asked)

    def read(kept: Session) -> None:
        if save is not None:
            say.note(f"{save}: {say.size(kept.save(save, {'text': text}))}")

    answers = answer(llm, split, settings, printer.started, printer.said, printer.finished, session, read)
    if any(output.finish_reason == "memory" for output in answers.outputs):
        warnings.warn("an answer was cut off, the KV cache is full; raise --memory or shorten the text", stacklevel=2)
    if json:
        told = {"predicted": predicted(llm, split, answers, resumed=resume is not None)}
        say.dump(_report(model, llm, asked, answers) | told | {"warnings": say.notes(context).texts})
    else:
        say.note(figures(llm, answers))


def predicted(llm: LLM, split: prompts.Split, answers: Answers, resumed: bool) -> dict[str, Any]:
    """What the planner says of the longest answer and of the text before it: bytes of the cache, and, where this
    machine was calibrated, times and the process's memory. None, and why, where it says nothing."""
    from longspan.engine.foresee import kv_bytes
    from longspan.engine.foretell import NOTHING, foretell

    if resumed:
        return {**NOTHING, "kv_bytes": None, "kv_bytes_exact": False, "why_none": "the text was read before"}
    new = max(output.tokens_out for output in answers.outputs)
    size, exact = kv_bytes(llm, len(split.common), [len(rest) for rest in split.rests], new)
    return {**foretell(llm, answers.tokens_in + new, new), "kv_bytes": size, "kv_bytes_exact": exact}


def planned(wanted: int | None, text: int, answer: int) -> int:
    """Tokens that the plan is made for: those asked for, or else those of the text and its answer. Raises DoesNotFit
    for a text that is longer than what was asked for."""
    if wanted is None:
        return text + answer
    if text > wanted:
        raise DoesNotFit(
            f"--context: {wanted:,} tokens are planned for, the text with its question has about {text:,}; raise "
            "--context or shorten the text"
        )
    return wanted


def longest(model: str | None, text: str, asked: list[str]) -> int:
    """Tokens of the text with its longest question, near enough to choose a plan by."""
    from longspan.engine.encode import Encoder
    from longspan.engine.llm import EMBEDDED
    from longspan.model.load import tokenizer_of

    tokenizer = tokenizer_of(EMBEDDED if model is None else model)
    if tokenizer is None:
        raise UsageError("this checkpoint has no tokenizer; use the library with token ids")
    ids = Encoder(tokenizer, tokenizer.vocab_size)
    return len(ids(text, True)) + max((len(ids(one, False)) for one in asked), default=0) + TEMPLATE


def plan_line(llm: LLM) -> str:
    """The plan as the options that give it."""
    return "plan: " + " ".join(f"--{name} {text}" for name, text in llm.plan.texts.items() if text != USUAL[name])


class _Silent:
    def started(self, index: int) -> None: ...

    def said(self, piece: str) -> None: ...

    def finished(self, index: int, output: Output) -> None: ...


class _Printer(_Silent):
    """Writes answers as they come, each under its question."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked
        self._begun = False

    def started(self, index: int) -> None:
        if self._asked:
            print(f"{chr(10) * (index > 0)}Q: {self._asked[index]}\nA: ", end="", flush=True)
            self._begun = False

    def said(self, piece: str) -> None:
        if self._asked and not self._begun:
            piece = piece.lstrip()  # many templates leave the space before an answer to the model
        self._begun = self._begun or bool(piece)
        print(piece, end="", flush=sys.stdout.isatty())

    def finished(self, index: int, output: Output) -> None:
        print(flush=True)


def figures(llm: LLM, answers: Answers) -> str:
    """One line: what was read and written, how fast, and in what."""
    written = f", {answers.tokens_out:,} written" if answers.tokens_out else ""
    each = answers.decode_ms_per_token
    return (
        f"{answers.tokens_in:,} tokens read ({say.rate(answers.prefill_tokens_per_second)}){written}"
        f"{'' if each is None else f' ({say.milliseconds(each)} each)'}, "
        f"KV {say.size(llm.pool.peak_bytes)}, rope {answers.rope}{_reading(llm)}"
    )


def _reading(llm: LLM) -> str:
    """How the text was read, where that was not left open."""
    if llm.plan.prefill is None:
        return ""
    share = llm.pages.share
    if share is None:
        return f", prefill dense (sparse after {llm.plan.prefill.least:,} tokens of a text)"
    return f", prefill sparse ({100 * share:.0f} % of the pages)"


def _report(model: str | None, llm: LLM, asked: list[str], answers: Answers) -> dict[str, Any]:
    from longspan.engine.memory import peak_rss

    results = []
    for i, output in enumerate(answers.outputs):
        result: dict[str, Any] = {
            "question": asked[i] if asked else None,
            "text": output.text,
            "finish_reason": output.finish_reason,
            "tokens_in": output.tokens_in,
            "tokens_out": output.tokens_out,
            # a text that is only continued has no question whose reading could be told apart
            "prefill_seconds": output.prefill_seconds if asked else answers.prefill_seconds,
            "decode_ms_per_token": output.decode_ms_per_token,
            "rope": output.rope,
        }
        if output.logprobs is not None:
            result["logprobs"] = [
                {
                    **_token(llm, one.id, one.logprob),
                    "top": [_token(llm, id, logprob) for id, logprob in one.top],
                }
                for one in output.logprobs
            ]
        results.append(result)
    return {
        "model": model or "embedded",
        "dtype": str(llm.dtype).removeprefix("torch."),
        "weights": llm.weights,
        "device": str(llm.device),
        "results": results,
        "tokens_in": answers.tokens_in,
        "tokens_out": answers.tokens_out,
        "prefill_seconds": answers.prefill_seconds,
        "prefill_tokens_per_second": answers.prefill_tokens_per_second,
        "decode_ms_per_token": answers.decode_ms_per_token,
        "kv_bytes_peak": llm.pool.peak_bytes,
        "rss_peak_bytes": peak_rss(),
        "rope": answers.rope,
        **llm.plan.texts,
        "prefill_used": "dense" if llm.pages.share is None else "sparse",
        "prefill_density": llm.pages.share,
        "plan_why": llm.plan.why,
        "why_no_program": llm.why_no_program,
        "disk_bytes": llm.pool.disk_bytes,
    }


def _token(llm: LLM, id: int, logprob: float) -> dict[str, Any]:
    return {"id": id, "token": llm.tokenizer.decode([id]) if llm.tokenizer else None, "logprob": logprob}
