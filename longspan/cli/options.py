"""Options that several verbs share. Bad ones are refused before a model is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longspan.attention.prefill import PREFILLS
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.rope import METHODS

if TYPE_CHECKING:
    from longspan.engine.llm import LLM
    from longspan.engine.sample import Sampling
    from longspan.engine.words import Words

Model = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Folder or hub id of the model. [default: the embedded one]")
]
Rope = Annotated[
    str,
    typer.Option(
        metavar="ROPE",
        help="How positions are scaled: auto (YaRN, when the text outgrows the trained length), checkpoint (as the "
        f"model declares), or a method with options, as in yarn:factor=8. Methods: {', '.join(METHODS)}.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help=f"How the cache stores full pages, with options, as in int4:hadamard=true. Formats: "
        f"{', '.join(FORMATS)}. [default: dense]",
    ),
]
Evict = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help="Which tokens stay in layers without a window: none (all of them), or a policy with options, as in "
        f"h2o:budget=4096,merge=true. Policies: {', '.join(POLICIES)}. [default: none]",
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="Which pages a question reads in layers without a window: all, or the best by a summary, as in "
        f"sketch:pages=8,near=512. Methods: {', '.join(SELECTIONS)}. [default: all]",
    ),
]
Place = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="At which distance what stayed stands: text (the true one), slot (that in the cache), or far:near=512 "
        "(the true one up to there, beyond it one for all). [default: text]",
    ),
]
Prefill = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="What a text looks at while it is read, in layers without a window: dense (all that stands before), or "
        f"sparse:mass=0.95 (the pages that hold so much of its attention). Methods: {', '.join(PREFILLS)}. "
        "[default: dense]",
    ),
]
Offload = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Keep full pages in a file in this folder. It has no name and goes when the program ends."
    ),
]
Resident = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="With --offload: memory for the pages that were used last. [default: 32MB, or 48 pages of every KV head "
        "of every layer; at most a quarter of --memory]",
    ),
]
Dtype = Annotated[
    str, typer.Option(metavar="DTYPE", help="auto (as stored), float32, bfloat16 or float16, for weights and cache.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
Weights = Annotated[
    str,
    typer.Option(
        metavar="FORM",
        help="How weights are kept: stored (as they are), int8 (layers and output head) or int4 (layers).",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Limit of the KV cache, as in 800MB or 2GiB. [default: 80 % of what the machine has free]"
    ),
]
Page = Annotated[int, typer.Option(metavar="TOKENS", help="Tokens in a page of the cache: 16, 32, 64 or 128.")]
Chunk = Annotated[int, typer.Option(metavar="TOKENS", help="Tokens read in one step.")]
Backend = Annotated[str, typer.Option(metavar="NAME", help="Attention kernels: auto, or as `longspan doctor` lists.")]

MaxNewTokens = Annotated[int, typer.Option(metavar="N", help="Longest answer, in tokens; 0 only reads.")]
Temperature = Annotated[float, typer.Option(metavar="T", help="0 takes the likeliest token, always.")]
TopK = Annotated[int, typer.Option(metavar="K", help="Draw from the K likeliest tokens; 0 is off.")]
TopP = Annotated[float, typer.Option(metavar="P", help="Draw from the likeliest tokens that make P; 1 is off.")]
MinP = Annotated[float, typer.Option(metavar="P", help="Drop tokens below P times the likeliest; 0 is off.")]
RepetitionPenalty = Annotated[float, typer.Option(metavar="X", help="Above 1, make used tokens less likely.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Draw the same text again. [default: another each time]")]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text. Repeatable.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on after the end token.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def sampling(**fields: Any) -> Sampling:
    """Raises UsageError for a value that makes no sense."""
    from longspan.cli.texts import clean
    from longspan.engine.sample import Sampling

    fields["stop"] = tuple(clean(text, "--stop") for text in fields.get("stop") or ())
    return Sampling(**fields)


def check(
    *,
    rope: str = "auto",
    format: str | None = None,
    evict: str | None = None,
    select: str | None = None,
    place: str | None = None,
    prefill: str | None = None,
    offload: str | None = None,
    resident: str | None = None,
    weights: str = "stored",
    memory: str | None = None,
    page: int = 64,
    chunk: int = 2048,
    backend: str = "auto",
) -> None:
    """Raises UsageError for a value that the engine would refuse after loading the model."""
    from longspan.cache.pool import PAGE_SIZES
    from longspan.engine.memory import parse_bytes
    from longspan.engine.plan import Plan
    from longspan.engine.ropes import Ropes
    from longspan.errors import UsageError
    from longspan.kernels import backend as backend_named
    from longspan.model.quantized import check as check_weights

    check_weights(weights)
    Ropes({}, (), rope)
    plan = Plan.parse(format or "dense", evict or "none", select or "all", place or "text", offload, prefill or "dense")
    if memory is not None:
        parse_bytes(memory)
    if resident is not None:
        parse_bytes(resident, "resident")
    if page not in PAGE_SIZES:
        raise UsageError(f"page: {page} tokens; choose one of {', '.join(map(str, PAGE_SIZES))}")
    if chunk < 1:
        raise UsageError(f"chunk: {chunk}; give the tokens per step, at least 1")
    plan.check_chunk(chunk)
    backend_named(backend)


def engine(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a verb's options those of the engine, checked: call it first, with `locals()`."""
    mine = {name: given[name] for name in inspect.signature(check).parameters}
    check(**mine)
    return mine


def load(model: str | None, **settings: Any) -> LLM:
    """The model, or the embedded one."""
    from longspan.engine.llm import LLM

    return LLM(_named(model), **settings)


def words(model: str | None) -> Words:
    """The tokenizer and the template of the model, or of the embedded one."""
    from longspan.engine.words import Words

    return Words.of(_named(model))


def _named(model: str | None) -> str | Path:
    from longspan.engine.llm import EMBEDDED
    from longspan.errors import ModelError

    if model is None and not (EMBEDDED / "config.json").is_file():
        raise ModelError("this copy of longspan carries no embedded model; give --model with a folder or a hub id")
    return model or EMBEDDED
