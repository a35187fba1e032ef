"""`longspan bench`: how fast this machine reads and decodes, in how much memory, and how near its limits that is."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from longspan.cli import options, plans, say
from longspan.errors import DoesNotFit, UsageError
from longspan.evals.raw import versions

if TYPE_CHECKING:
    from longspan.bench.machine import Machine
    from longspan.bench.measure import Case, Row

app = typer.Typer(
    name="bench",
    help="Measure speed and memory on this machine. Each row runs in a process of its own.",
    short_help="Measure speed and memory.",
)
VERBS = {
    "decode": ("4K", "Time decoded tokens at each context, and count the bytes that they have to read."),
    "prefill": ("4K", "Time reading a text of each context, and count the operations that it asks for."),
    "scale": ("1K,2K,4K,8K,16K,32K,64K,128K", "Time both for several plans as the context grows; --plot draws them."),
}
"""The usual contexts of each verb, and what it does."""
PLANS = {
    "full": "",
    "int8": "--format int8",
    "int4": "--format int4",
    "window": "--evict sliding_window:budget=2048",
    "h2o": "--evict h2o:budget=2048",
    "sketch": "--select sketch:pages=8,near=512 --place far:near=512",
}


def text(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help)


@dataclasses.dataclass(frozen=True)
class Given:
    """The options of a verb that are not the engine's."""

    shape: Annotated[
        str,
        text(
            "SHAPE",
            "S (SmolLM2-135M's), 1b (Llama-3.2-1B's) or 8b (Llama-3.1-8B's), with random weights made on the spot; "
            "embedded; or the folder of a model.",
        ),
    ] = "S"
    context: Annotated[
        list[str] | None, text("TOKENS", "Lengths, as in 4096 or 1K,8K,128K (K is 1,024). Repeatable.")
    ] = None
    batch: Annotated[int, text("N", "Texts at once, all different.")] = 1
    fill: Annotated[
        str,
        text(
            "HOW",
            "How texts come into the cache before decoding: read, random (random keys and values in the pages that "
            "reading takes), or auto (random beyond 16,384 tokens).",
        ),
    ] = "auto"
    repeats: Annotated[int, text("N", "How often each is measured; medians are told.")] = 3
    steps: Annotated[int, text("N", "Tokens decoded each time.")] = 16
    threads: Annotated[int | None, text("N", "[default: as many as torch takes]")] = None
    dtype: options.Dtype = "auto"
    device: options.Device = "auto"
    plot: Annotated[Path | None, text("FILE", "Draw the rows: a .png, .pdf or .svg.")] = None
    json: options.Json = False
    plan: Annotated[
        list[str] | None,
        text(
            "NAME=OPTIONS",
            'A plan in the words of this command, as in "mine=--format int8 --chunk 512". Repeatable; replaces the '
            "usual ones: " + ", ".join(PLANS) + ".",
        ),
    ] = None


def run(verb: str, notes: say.Notes, given: Given, engine: dict[str, Any]) -> None:
    """Measure every plan at every context, and tell."""
    contexts = plans.tokens(given.context or [VERBS[verb][0]])
    for name in ("batch", "repeats", "steps", "threads"):
        if (value := getattr(given, name)) is not None and value < 1:
            raise UsageError(f"--{name}: {value}; give 1 or more")
    words = PLANS if verb == "scale" else {plans.label(engine): ""}
    words = plans.named(given.plan) if given.plan else words
    chosen = {name: engine | plans.settings(name, some) for name, some in words.items()}

    import torch

    from longspan.bench import measure, plot, shapes
    from longspan.bench.machine import Machine
    from longspan.engine.progress import bar

    if given.fill not in measure.FILLS:
        raise UsageError(f"--fill: {given.fill}; give one of {', '.join(measure.FILLS)}")
    if given.plot is not None:
        plot.check(given.plot)
    threads = given.threads or torch.get_num_threads()
    rows: list[Row] = []
    with bar("writing random weights", "bytes") as move, shapes.folder(given.shape, move) as model:
        machine = Machine.of(model, given.dtype, given.device, threads)
        before = machine.limits()
        for number, (context, name) in enumerate(((c, n) for c in contexts for n in chosen), 1):
            say.note(f"{number} of {len(contexts) * len(chosen)}: {name} at {context:,} tokens")
            case = measure.Case(
                model=model,
                plan=name,
                context=context,
                batch=given.batch,
                reads=1 if verb == "decode" else given.repeats,
                rounds=0 if verb == "prefill" else given.repeats,
                steps=given.steps,
                fill="read" if verb == "prefill" else given.fill,
                threads=threads,
                engine=chosen[name] | {"dtype": given.dtype, "device": given.device},
            )
            row = attempt(case, several=verb == "scale")
            after = machine.limits()
            rows.append(measure.shares(row, before.best(after)))
            before = after
    if given.plot is not None:
        plot.draw(rows, given.plot, f"{given.shape}, {name_of(machine)}")
    if given.json:
        about = {name: getattr(given, name) for name in ("shape", "batch", "repeats", "steps")}
        made = [dataclasses.asdict(row) for row in rows]
        drawn = None if given.plot is None else str(given.plot)
        on = {"dtype": str(machine.dtype).removeprefix("torch."), "device": str(machine.device), "threads": threads}
        report = {"verb": verb, **about, **on, "versions": versions(), "rows": made, "plot": drawn}
        say.dump({**report, "warnings": notes.texts})
    else:
        show(rows, machine, given)


def name_of(machine: Machine) -> str:
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    return f"{str(machine.dtype).removeprefix('torch.')}, {threads}"


def attempt(case: Case, several: bool) -> Row:
    """A row, or, where it is one of several plans, why there is none: what does not fit in one does not end all."""
    from longspan.bench import child, measure

    try:
        return child.run(case)
    except DoesNotFit as error:
        if not several:
            raise
        say.note(f"longspan: {error}")
        return measure.Row(case.plan, case.context, case.batch, case.fill, {}, error=str(error))


def show(rows: Sequence[Row], machine: Machine, given: Given) -> None:
    """A table, without the columns that nothing was measured for."""
    cells = [figures(row) for row in rows]
    used = [i for i in range(len(HEADER)) if any(line[i] != "–" for line in cells)]
    lines = [(row.plan, f"{row.context:,}", *(line[i] for i in used)) for row, line in zip(rows, cells, strict=True)]
    say.columns(("plan", "context", *(HEADER[i] for i in used)), lines)
    limits = [row.limits for row in rows if row.limits is not None]
    memory, matrix = ([one[name] / 1e9 for one in limits] for name in ("bytes_per_second", "flops_per_second"))
    print(
        f"\n{given.shape}, {name_of(machine)}, texts at once: {given.batch}. Meanwhile memory was read at "
        f"{min(memory):.1f} to {max(memory):.1f} GB/s, matrices were multiplied at {min(matrix):,.0f} to "
        f"{max(matrix):,.0f} GFLOP/s."
    )
    if any(row.fill == "random" for row in rows):
        print(
            "random: not read, but filled with random keys and values in the pages that reading takes; the peak is "
            "without what reading takes besides."
        )


HEADER = (
    *("fill", "prefill s", "tok/s", "GFLOP", "of matrix", "decode ms", "mean", "tok/s", "MB/token", "of memory"),
    *("KV", "peak"),
)


def figures(row: Row) -> tuple[str, ...]:
    """A row's cells under `HEADER`."""

    def cell(form: str, value: float | None, unit: float = 1) -> str:
        return "–" if value is None else form.format(value / unit)

    return (
        row.fill,
        cell("{:,.2f}", row.prefill_seconds),
        cell("{:,.0f}", row.prefill_tokens_per_second),
        cell("{:,.0f}", row.prefill_flops, 1e9),
        cell("{:.0%}", row.matrix_share),
        cell("{:,.1f}", row.decode_ms),
        cell("{:,.1f}", row.decode_mean_ms),
        cell("{:,.1f}", row.decode_tokens_per_second),
        cell("{:,.0f}", row.bytes_per_token, 1e6),
        cell("{:.0%}", row.bandwidth_share),
        "–" if row.kv_bytes_peak is None else say.size(row.kv_bytes_peak),
        "–" if row.rss_peak_bytes is None else say.size(row.rss_peak_bytes),
    )


def _command(verb: str) -> Any:
    """One verb, with every option of the engine that `options.check` knows among its own."""
    hints = get_type_hints(Given, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    mine = [
        inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(Given)
        if verb == "scale" or field.name != "plan"
    ]
    engine = [
        inspect.Parameter(name, kind, default=one.default, annotation=getattr(options, name.title().replace("_", "")))
        for name, one in inspect.signature(options.check).parameters.items()
    ]
    context = inspect.Parameter("ctx", kind, annotation=typer.Context)

    def command(ctx: typer.Context, **given: Any) -> None:
        checked = options.engine(given)
        run(verb, say.notes(ctx), Given(**{one.name: given[one.name] for one in mine}), checked)

    parameters = [context, *mine, *engine]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = VERBS[verb][1]
    return command


for _verb in VERBS:
    app.command(_verb)(_command(_verb))
