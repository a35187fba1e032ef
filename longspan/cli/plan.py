"""`longspan plan`: does it fit, what binds, how long does it take, what would make it fit, and is it wise at all."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longspan.cli import options, plan_compare, plan_page, say
from longspan.cli.planned import Settings, compared, label
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.plan.cost import Use
    from longspan.plan.report import Case

ASKED = "Questions, for costs: "
PRICED = "price", "corpus", "questions", "updates", "attribution"
"""Options that ask for costs."""
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A well-known model, as in llama-3.1-8b, a folder with config.json, or a hub id.",
        show_default=False,
    ),
]


def text(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help)


def plan(
    model: Model = None,
    context: Annotated[
        str | None, text("TOKENS", "Text and answer, as in 4096, 128K or 1M. [default: the trained length]")
    ] = None,
    new: Annotated[
        int | None, text("TOKENS", "Of these, tokens of the answer. [default: 256, at most half of the context]")
    ] = None,
    batch: Annotated[int, text("N", "Texts at once.")] = 1,
    hardware: Annotated[
        str | None,
        text(
            "NAME[xN]", "A GPU or CPU, N of them sharing the model, as in h100x8; this: this machine. [default: this]"
        ),
    ] = None,
    memory: Annotated[str | None, text("SIZE", "Memory of a device, in place of the hardware's own.")] = None,
    format: options.Format = None,
    evict: options.Evict = None,
    select: options.Select = None,
    offload: Annotated[bool, typer.Option("--offload", help="Full pages lie in a file.")] = False,
    weights: Annotated[
        str, text("FORM", "How weights are kept: stored (as published), fp8, int8 or int4 (64 with a scale).")
    ] = "stored",
    dtype: Annotated[str, text("DTYPE", "Numbers of the cache: auto (as published), float32, bfloat16, float16.")] = (
        "auto"
    ),
    page: options.Page = 64,
    chunk: options.Chunk = 2048,
    task: Annotated[
        str | None,
        text("TASK", "chat, code-completion, document-qa, multi-document or book: is the context what it wants?"),
    ] = None,
    quality: Annotated[
        float | None, text("POINTS", "List plans; the best fits and loses at most so many right answers of a hundred.")
    ] = None,
    price: Annotated[float | None, text("DOLLARS", ASKED + "of an hour of one device.")] = None,
    corpus: Annotated[str | None, text("TOKENS", ASKED + "all that they may be about. [default: the context]")] = None,
    questions: Annotated[float | None, text("N", ASKED + "how many a day. [default: 100]")] = None,
    updates: Annotated[float | None, text("N", ASKED + "changes of the corpus a day. [default: 1]")] = None,
    attribution: Annotated[
        bool, typer.Option("--attribution", help=ASKED + "answers must say which passage they are from.")
    ] = False,
    lengths: Annotated[
        str | None,
        text("MIX", "Prompts of several lengths with their parts, as in 4K:70,32K:30: how many fit at once?"),
    ] = None,
    rate: Annotated[float | None, text("N", "Requests a second, with --ttft: how many devices?")] = None,
    ttft: Annotated[float | None, text("SECONDS", "The first token after at most so long (95th percentile).")] = None,
    export: Annotated[str | None, text("ENGINE", "A launch line: vllm, sglang, llama.cpp or hf.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first (about a minute) and remember it.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every formula with its numbers, and what is often said, checked.")
    ] = False,
    compare: Annotated[
        list[str] | None,
        text("PLAN", 'Another plan beside this one, as in "qwen3-8b --hardware h200x2 --format int4". Repeatable.'),
    ] = None,
    plot: Annotated[Path | None, text("FILE", "Draw memory and decode time: a .png, .pdf or .svg.")] = None,
    json: options.Json = False,
) -> None:
    """Say whether it fits, what binds, how long it takes, and what would make it fit. Nothing is loaded.

    Exit code 0: it fits; 3: it does not, and the nearest that does is told, or not one text of --lengths fits, or no
    number of devices serves --rate. With --compare it is that of the plan asked for.
    """
    given = locals()
    settings = Settings(
        **{name: given[name] for name in inspect.signature(Settings).parameters if name != "model"}
        | {"model": model or ""}
    )
    if plot is not None:
        from longspan.bench.plot import check

        check(plot)
    if calibrate:
        from longspan.cli import calibrate as here

        if model is None:
            here.calibrate(json)
            return
        here.measured()
    if model is None:
        raise UsageError("model: name one, as in longspan plan llama-3.1-8b --context 128K --hardware h100")
    _consistent(given)
    others = [compared(settings, words) for words in compare or ()]
    first = settings.case()
    reports = {label(settings): _whole(first, given)}
    for words, other in others:
        reports[_another(words, reports)] = _report(other.case())
    if plot is not None:
        from longspan.cli.plan_plot import draw

        draw(reports, plot)
    whole = next(iter(reports.values()))
    if json:
        say.dump(whole if not others else {"schema_version": whole["schema_version"], "plans": reports})
    elif others:
        plan_compare.compare(reports)
    else:
        plan_page.show(whole, explain)
    if plot is not None:
        say.note(f"drawn: {plot}")
    short = _short(whole)
    if short is not None:
        say.note(f"longspan: {short}")
        raise typer.Exit(3)


def _another(words: str, others: Mapping[str, object]) -> str:
    """A name that no other plan has: the words, numbered where they come again."""
    names = itertools.chain([words], (f"{words} ({n})" for n in itertools.count(2)))
    return next(name for name in names if name not in others)


ALONE = ("task", "quality", *PRICED, "lengths", "rate", "ttft", "export", "explain")
"""Options whose answers have no column where plans stand side by side."""


def _said(value: object) -> bool:
    """Whether an option was given; 0 is something that can be."""
    return value is not None and value is not False


def _consistent(given: dict[str, Any]) -> None:
    """Raises UsageError for options that contradict each other, or of which one would be ignored."""
    if given["rate"] is not None and given["ttft"] is None:
        raise UsageError("rate: give --ttft too: how many devices depends on how long a first token may take")
    priced = any(_said(given[name]) for name in PRICED)
    if given["ttft"] is not None and given["rate"] is None and not priced:
        raise UsageError("ttft: give --rate, or --price for what questions cost: nothing else depends on it")
    if given["compare"]:
        extra = [name for name in ALONE if _said(given[name])]
        if extra:
            raise UsageError(f"--compare: side by side nothing is said of --{extra[0]}; leave it out, or --compare")


def _report(case: Case) -> dict[str, Any]:
    from longspan.plan.asked import nearest_part
    from longspan.plan.report import report

    made = report(case)
    if made["fits"] is False:
        made["nearest"] = nearest_part(case)
    return made


def _whole(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """The report with all that was asked besides."""
    from longspan.plan import asked
    from longspan.plan.mix import Mix
    from longspan.plan.tasks import task_named

    task = None if given["task"] is None else task_named(given["task"])
    use = _use(case, given)
    mix = None if given["lengths"] is None else Mix.parse(given["lengths"])
    if mix is None and given["rate"] is not None:
        mix = Mix.parse(str(case.work.context - case.work.new))
    made = _report(case)
    if task is not None:
        made["task"] = asked.task_part(case, task)
    if given["quality"] is not None:
        made["options"] = asked.options_part(case, given["quality"])
    if use is not None:
        made["cost"] = asked.cost_part(case, use, task)
    if mix is not None:
        made["capacity"] = asked.capacity_part(
            case, mix, given["rate"], None if given["rate"] is None else given["ttft"]
        )
    if given["export"] is not None:
        made["export"] = _export(case, given["export"])
    return made


def _use(case: Case, given: dict[str, Any]) -> Use | None:
    """What questions are asked; None: nothing of costs was. Checked before anything is reckoned."""
    from longspan.plan.cost import Use
    from longspan.plan.mix import tokens

    if not any(_said(given[name]) for name in PRICED):
        return None
    corpus = case.work.context - case.work.new if given["corpus"] is None else tokens(given["corpus"], "corpus")
    devices = 1 if case.machine is None else case.machine.devices
    price = None if given["price"] is None else given["price"] * devices
    rates = {name: given[name] for name in ("questions", "updates") if given[name] is not None}
    return Use(corpus, **rates, attribution=given["attribution"], ttft=given["ttft"], price=price)


def _short(report: dict[str, Any]) -> str | None:
    """Why what was asked for cannot be had; None: it can."""
    if report["fits"] is False:
        near = report["nearest"][0]["words"] if report["nearest"] else "none found"
        need, limit = say.size(report["memory"]["total"]), say.size(report["limit"])
        return f"does not fit: {need} of {limit} a device; nearest: {near}"
    found = report["capacity"]
    if found is not None and not found["room"]["worst"]:
        return "the longest text of --lengths does not fit; give shorter ones, or more memory"
    return None if found is None else found["problem"]


def _export(case: Case, engine: str) -> dict[str, Any]:
    from longspan.plan.export import export

    made = export(engine, case.shape, case.work, case.machine)
    return {"engine": made.engine, "text": made.text, "notes": list(made.notes)}
