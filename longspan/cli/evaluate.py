"""`longspan eval`: a verb for each suite; its options are the suite's fields."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from longspan.cli import options, say, texts
from longspan.errors import UsageError
from longspan.evals import lengths, origin, regimes
from longspan.evals.ask import BATCH
from longspan.evals.raw import versions
from longspan.evals.suite import Asking, Evaluation, Suite, chosen, contents, evaluate, whole
from longspan.evals.suites import SUITES

app = typer.Typer(name="eval", help="Measure a model on generated tasks.", short_help="Measure a model.")

Text = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Text to work with; - is standard input. [default: held-out documentation]"),
]
Raw = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write each sample there as a line of JSON, as soon as it is known. One that an interrupted evaluation "
        "left is gone on with.",
    ),
]
Make = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write texts, questions and right answers there as lines of JSON, and ask nothing: of the model only "
        "tokenizer and template are used.",
    ),
]
Regime = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What may be known when a text is compressed: agnostic (no question) or aware (the question: --evict "
        "waits for it). [default: agnostic]",
    ),
]
Batch = Annotated[int, typer.Option(metavar="N", help="Texts that are read and asked about at once.")]


def run(
    suite: type[Suite],
    settings: dict[str, Any],
    *,
    context: typer.Context,
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
    text: Text = None,
    regime: Regime = None,
    batch: Batch = BATCH,
    raw: Raw = None,
    make: Make = None,
    json: options.Json = False,
) -> None:
    """Run a suite with the settings given, and tell its results. The options are those that all suites have."""
    given = suite(**settings)
    regime = chosen(given, regime)
    whole("batch", batch, 1)
    evict = regimes.evict(evict, regime)
    engine = options.engine(locals())
    from longspan.engine.memory import peak_rss
    from longspan.engine.progress import bar

    own = None if text is None else texts.read(text, "--text")
    if own is not None and not own.strip():
        raise UsageError(f"--text {text}: it is empty; give a file with text in it")
    name = next(name for name, one in SUITES.items() if one is suite)
    if make is not None:
        _make(name, given, own, make, {"model": model, "text": text, "raw": raw}, json)
        return
    if raw is not None:
        _check_writable(raw)
    held = contents(given, own)
    llm = options.load(model, dtype=dtype, device=device, **engine)
    regimes.check(llm.plan.evict, regime or "agnostic")
    with bar("evaluating", "samples") as move:
        made = evaluate(given, llm, own, raw, move, regime=regime, batch=batch)
    if json:
        say.dump(
            {
                "suite": name,
                "model": model or "embedded",
                "dtype": str(llm.dtype).removeprefix("torch."),
                "weights": llm.weights,
                "device": str(llm.device),
                "rope": made.rope,
                **llm.plan.texts,
                "regime": made.regime,
                "seed": getattr(made.suite, "seed", None),
                "settings": {**dataclasses.asdict(made.suite), "text": text, "batch": batch},  # type: ignore[call-overload]
                "contents": held,
                "versions": versions(),
                "trained": llm.shape.trained,
                "command": origin.command(sys.argv[1:]),
                "revision": origin.revision(),
                "kv_bytes_peak": made.kv_bytes_peak,
                "disk_bytes": made.disk_bytes,
                "text_bytes": made.text_bytes,
                "rss_peak_bytes": peak_rss(),
                "seconds": made.seconds,
                "decode_ms_per_token": made.decode_ms_per_token,
                "results": made.results.values,
                "samples": [dataclasses.asdict(sample) for sample in made.samples],
                "warnings": say.notes(context).texts,
            }
        )
    else:
        _show(made)
        disk = f", {say.size(made.disk_bytes)} in a file" if made.disk_bytes else ""
        asked = "" if made.regime is None else f", regime {made.regime}"
        speed = made.decode_ms_per_token
        decoded = "" if speed is None else f"; decode {say.milliseconds(speed)} a token"
        say.note(
            f"{len(made.samples):,} samples of {made.suite.length:,} tokens, rope {made.rope}{asked}, "
            f"{made.seconds:,.0f} s{decoded}; KV {say.size(made.kv_bytes_peak)}{disk}, "
            f"process {say.size(peak_rss())} at its peak"
        )


def _make(name: str, suite: Suite, own: str | None, path: Path, given: dict[str, Any], json: bool) -> None:
    """The samples of a suite as a file, without a model's answers."""
    if given["raw"] is not None:
        raise UsageError("--make asks nothing, so there are no answers for --raw; leave one of them out")
    if not isinstance(suite, Asking):
        raise UsageError(f"--make: {name} asks nothing that could be written down; leave it out")
    from longspan.engine.progress import bar
    from longspan.evals.make import make

    _check_writable(path, "--make")
    words = options.words(given["model"])
    with bar("making", "questions") as move:
        made, cases, asked = make(suite, words, own, path, move)
    if json:
        settings = {**dataclasses.asdict(made), "text": given["text"]}  # type: ignore[call-overload]
        say.dump(
            {
                "suite": name,
                "model": given["model"] or "embedded",
                "seed": getattr(made, "seed", None),
                "settings": settings,
                "contents": contents(made, own),
                "versions": versions(),
                "cases": cases,
                "questions": asked,
                "make": str(path),
            }
        )
    else:
        say.note(f"{cases:,} texts with {asked:,} questions are in {path}")


def _show(made: Evaluation) -> None:
    say.columns(made.results.header, made.results.rows)
    for note in made.results.notes:
        print(f"\n{note}")


def _check_writable(path: Path, name: str = "--raw") -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise UsageError(f"{name} {path}: {error.strerror}; give a file that can be written") from None


def _command(suite: type[Suite]) -> Any:
    """`run` for one suite, with the suite's fields among its options."""
    own = {field.name: _option(suite, field) for field in dataclasses.fields(suite)}  # type: ignore[arg-type]
    several = {name for name, kind in get_type_hints(suite).items() if kind == tuple[int, ...]}

    def command(**given: Any) -> None:
        fields = {name: given.pop(name) for name in own}
        told = {name: value for name, value in fields.items() if value not in (None, [])}
        for name, value in told.items():
            if isinstance(value, list):
                told[name] = lengths.parse(value) if name in several else tuple(value)
        run(suite, told, **given)

    shared = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    first = [p for p in shared if p.name in ("context", "model")]
    rest = [p for p in shared if p not in first]
    command.__signature__ = inspect.Signature([*first, *own.values(), *rest])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*first, *own.values(), *rest)}
    command.__doc__ = suite.__doc__
    return command


def _option(suite: type[Suite], field: dataclasses.Field[Any]) -> inspect.Parameter:
    kind, default = get_type_hints(suite)[field.name], field.default
    if get_origin(kind) is tuple:
        kind, default = list[str] | None, None
    names = (field.metadata["name"] or field.name.replace("_", "-"), field.metadata["also"])
    shown = typer.Option(
        *(f"--{name}" for name in names if name is not None),
        metavar=field.metadata["metavar"],
        help=field.metadata["help"],
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )


for _name, _suite in SUITES.items():
    app.command(_name)(_command(_suite))
