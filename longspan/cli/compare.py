"""`longspan eval compare`: several plans on the same samples, each evaluation in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longspan.cli import options, plans, say, tasks, texts
from longspan.errors import LongspanError, UsageError
from longspan.evals import regimes
from longspan.evals.ask import BATCH
from longspan.evals.records import FULL, read
from longspan.evals.suite import contents, whole
from longspan.evals.suites import SUITES

if TYPE_CHECKING:
    from longspan.evals.compare import Row

Plans = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=OPTIONS",
        help='A plan in the words of `longspan run`, as in "mine=--format int8 --chunk 512". Repeatable. The full '
        "cache is there by itself, as full.",
    ),
]
Suites = Annotated[
    list[str],
    typer.Option(
        metavar="SUITE",
        help=f"One of {', '.join(SUITES)}, with options, as in lookup:length=1024,samples=100,abilities=single+count. "
        "Repeatable.",
    ),
]
Against = Annotated[
    str | None, typer.Option(metavar="NAME", help="The plan that others are compared with. [default: full]")
]
NoFull = Annotated[bool, typer.Option("--no-full", help="Leave out the full cache.")]
Regime = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What may be known when a text is compressed: agnostic (no question) or aware (the question). A "
        "comparison has one.",
    ),
]
Samples = Annotated[int | None, typer.Option(metavar="N", help="For every suite that does not name its own.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of suites that do not name their own, and of the intervals.")]
Text = Annotated[str | None, typer.Option(metavar="FILE", help="Text to work with. [default: held-out documentation]")]
Batch = Annotated[int, typer.Option(metavar="N", help="Texts that are read and asked about at once.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep every evaluation with its samples there: a comparison that was interrupted goes on, more plans "
        "can be added later, and `longspan eval report DIR` draws it.",
    ),
]
OWN = ("format", "evict", "select", "place", "prefill", "offload")
"""What plans differ in; the engine's other options are given for all of them."""


def compare(
    context: typer.Context,
    suite: Suites,
    plan: Plans = None,
    against: Against = None,
    no_full: NoFull = False,
    regime: Regime = "agnostic",
    model: options.Model = None,
    samples: Samples = None,
    seed: Seed = 0,
    text: Text = None,
    batch: Batch = BATCH,
    out: Out = None,
    rope: options.Rope = "auto",
    resident: options.Resident = None,
    dtype: options.Dtype = "auto",
    weights: options.Weights = "stored",
    device: options.Device = "auto",
    memory: options.Memory = None,
    page: options.Page = 64,
    chunk: options.Chunk = 2048,
    backend: options.Backend = "auto",
    json: options.Json = False,
) -> None:
    """Score several plans on the same samples, and tell what each costs.

    The table has for every task and plan the score with its 95 % interval, the bytes of the cache, the time of a
    token, whether another plan beats it (the Pareto front of score against bytes), and the difference from the
    baseline, sample by sample. Each evaluation runs in a process of its own.
    """
    shared = options.engine({**dict.fromkeys(OWN), **locals()})
    words = plans.named(plan or ())
    words = words if no_full or FULL in words else {FULL: "", **words}
    if not words:
        raise UsageError("--no-full leaves no plan; give --plan")
    baseline = against or (FULL if FULL in words else next(iter(words)))
    if baseline not in words:
        raise UsageError(f"--against {baseline}: there is no such plan; plans: {', '.join(words)}")
    regimes.named(regime)
    own = _text(text)
    for name, value, least in (("samples", samples, 1), ("batch", batch, 1), ("seed", seed, 0)):
        whole(name, value, least)
    suites = {one: tasks.suite(one, {"samples": samples, "seed": seed}, regime) for one in dict.fromkeys(suite)}
    chosen = {name: plans.settings(name, some) for name, some in words.items()}
    given = {"model": model, "text": text, "dtype": dtype, "device": device, "batch": batch}
    usual = {"dtype": "auto", "device": "auto", "batch": BATCH}
    given = {name: value for name, value in given.items() if value != usual.get(name)}
    planned = []
    for asked, made in suites.items():
        held = contents(made, own)
        for name in words:
            args = tasks.arguments(made, regime, {**given, **shared, **chosen[name]})
            planned.append(tasks.Task(name, words[name], asked, args, held))

    from longspan.engine.llm import EMBEDDED
    from longspan.evals import origin
    from longspan.evals.bootstrap import RESAMPLES
    from longspan.evals.raw import versions
    from longspan.model.load import inspect

    trained = inspect(EMBEDDED if model is None else model).trained
    about = {"trained": trained, "revision": origin.revision()}
    done: list[tasks.Done] = []
    with _folder(out) as folder:
        for one in tasks.run(planned, folder, about):
            done.append(one)
            tasks.listed(done, folder, {"regime": regime, "baseline": baseline})
    rows = _rows(done, baseline, seed)
    failures = [(one.task.plan, one.task.suite, one.error or "") for one in done if one.told is None]
    if json:
        first = next(one.told for one in done if one.told is not None)
        say.dump(
            {
                "verb": "compare",
                "model": model or "embedded",
                **{name: first[name] for name in ("dtype", "weights", "device")},
                **about,
                "regime": regime,
                "baseline": baseline,
                "plans": words,
                "suites": list(suites),
                "seed": seed,
                "resamples": RESAMPLES,
                "command": origin.command(sys.argv[1:]),
                "versions": versions(),
                "out": None if out is None else str(out),
                "rows": [dataclasses.asdict(row) for row in rows],
                "failures": [dict(zip(("plan", "suite", "error"), one, strict=True)) for one in failures],
                "warnings": list(
                    dict.fromkeys(
                        [*say.notes(context).texts, *(x for one in done if one.told for x in one.told["warnings"])]
                    )
                ),
            }
        )
    else:
        show(rows, failures)


def show(rows: Seq[Row], failures: Seq[tuple[str, str, str]]) -> None:
    """One table for each kind of score, and what it says in words."""
    from longspan.evals.table import NAMES, sentences, table

    for number, measure in enumerate(dict.fromkeys(row.measure for row in rows)):
        mine = [row for row in rows if row.measure == measure]
        header, lines = table(mine)
        print("" if number == 0 else "\n", end="")
        say.columns(header, lines, NAMES)
        print()
        for suite in dict.fromkeys(row.suite for row in mine):
            for sentence in sentences([row for row in mine if row.suite == suite]):
                print(f"{suite}: {sentence}")
    for plan, suite, why in failures:
        print(f"{suite}: no result of {plan}: {why}")


def _rows(done: Seq[tasks.Done], baseline: str, seed: int) -> list[Row]:
    """The rows of all suites; each is called as it was asked for. Where the baseline came to no result, the full
    cache stands for it, or else the first plan."""
    from longspan.evals.compare import compare as compared

    rows: list[Row] = []
    for suite in dict.fromkeys(one.task.suite for one in done):
        records = [read(one.told, suite) for one in done if one.task.suite == suite and one.told is not None]
        if records:
            base = baseline if any(one.plan == baseline for one in records) else None
            rows += [dataclasses.replace(row, suite=suite) for row in compared(records, base, seed=seed)]
    if not rows:
        raise LongspanError("no plan came to a result: " + "; ".join(dict.fromkeys(one.error or "" for one in done)))
    return rows


def _text(path: str | None) -> str | None:
    """What is in the file."""
    if path == "-":
        raise UsageError("--text -: every plan reads the text for itself, standard input only once; give a file")
    text = None if path is None else texts.read(path, "--text")
    if text is not None and not text.strip():
        raise UsageError(f"--text {path}: it is empty; give a file with text in it")
    return text


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where evaluations are kept; without `out`, until the end."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="longspan-") as path:
            yield Path(path)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; give a folder that can be written") from None
    yield out
