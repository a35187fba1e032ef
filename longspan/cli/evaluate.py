"""`longspan eval`: a verb for each suite; its options are the suite's fields."""

from __future__ import annotations

import dataclasses
import inspect
import platform
import time
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from longspan import __version__
from longspan.cli import options, say, texts
from longspan.errors import UsageError
from longspan.evals.suite import Evaluation, Suite, evaluate
from longspan.evals.suites import SUITES

app = typer.Typer(name="eval", help="Measure a model on generated tasks.", short_help="Measure a model.")

Text = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Text to work with; - is standard input. [default: held-out documentation]"),
]
Raw = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write each sample there as a line of JSON, as soon as it is known.")
]


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
    raw: Raw = None,
    json: options.Json = False,
) -> None:
    """Run a suite with the settings given, and tell its results. The options are those that all suites have."""
    engine = options.engine(locals())
    from longspan.engine.memory import peak_rss
    from longspan.engine.progress import bar

    given = suite(**settings)
    own = None if text is None else texts.read(text, "--text")
    if own is not None and not own.strip():
        raise UsageError(f"--text {text}: it is empty; give a file with text in it")
    if raw is not None:
        _check_writable(raw)
    llm = options.load(model, dtype=dtype, device=device, **engine)
    began = time.perf_counter()
    with bar("evaluating", "samples") as move:
        made = evaluate(given, llm, own, raw, move)
    seconds = time.perf_counter() - began
    if json:
        say.dump(
            {
                "suite": next(name for name, one in SUITES.items() if one is suite),
                "model": model or "embedded",
                "dtype": str(llm.dtype).removeprefix("torch."),
                "weights": llm.weights,
                "device": str(llm.device),
                "rope": made.rope,
                **llm.plan.texts,
                "settings": {**dataclasses.asdict(made.suite), "text": text},  # type: ignore[call-overload]
                "versions": versions(),
                "kv_bytes_peak": llm.pool.peak_bytes,
                "disk_bytes": llm.pool.disk_bytes,
                "rss_peak_bytes": peak_rss(),
                "seconds": seconds,
                "results": made.results.values,
                "samples": [dataclasses.asdict(sample) for sample in made.samples],
                "warnings": say.notes(context).texts,
            }
        )
    else:
        _show(made)
        disk = f", {say.size(llm.pool.disk_bytes)} in a file" if llm.pool.disk_bytes else ""
        say.note(
            f"{len(made.samples):,} samples of {made.suite.length:,} tokens, rope {made.rope}, {seconds:,.0f} s; "
            f"KV {say.size(llm.pool.peak_bytes)}{disk}, process {say.size(peak_rss())} at its peak"
        )


def versions() -> dict[str, str]:
    """Of all that figures depend on."""
    import torch
    import transformers

    return {
        "longspan": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _show(made: Evaluation) -> None:
    say.columns(made.results.header, made.results.rows)
    for note in made.results.notes:
        print(f"\n{note}")


def _check_writable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise UsageError(f"--raw {path}: {error.strerror}; give a file that can be written") from None


def _command(suite: type[Suite]) -> Any:
    """`run` for one suite, with the suite's fields among its options."""
    own = {field.name: _option(suite, field) for field in dataclasses.fields(suite)}  # type: ignore[arg-type]

    def command(**given: Any) -> None:
        fields = {name: given.pop(name) for name in own}
        told = {name: value for name, value in fields.items() if value not in (None, [])}
        run(suite, {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}, **given)

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
    shown = typer.Option(
        f"--{field.metadata['name'] or field.name.replace('_', '-')}",
        metavar=field.metadata["metavar"],
        help=field.metadata["help"],
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )


for _name, _suite in SUITES.items():
    app.command(_name)(_command(_suite))
