"""`longspan eval report`: evaluations as a page with figures."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Annotated

import typer

from longspan.cli import options, say
from longspan.errors import UsageError
from longspan.evals.suite import whole

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH…",
        help="What longspan eval … --json printed, as files; or folders that longspan eval compare --out made.",
    ),
]
Out = Annotated[
    Path, typer.Option(metavar="DIR", help="A new folder, or that of an earlier report, which is replaced.")
]
Title = Annotated[str, typer.Option(metavar="TEXT", help="The heading of the page.")]
Against = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The plan that others are compared with. [default: full, or the first]"),
]
Trained = Annotated[
    int | None, typer.Option(metavar="TOKENS", help="The trained length, where the evaluations do not say it.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the intervals.")]


def report(
    context: typer.Context,
    paths: Paths,
    out: Out,
    title: Title = "Evaluation",
    against: Against = None,
    trained: Trained = None,
    seed: Seed = 0,
    json: options.Json = False,
) -> None:
    """Write a page that shows evaluations and loads nothing, with every figure as PNG, SVG and CSV and all numbers as
    JSON.

    Figures: score against length, what is found by length and depth, perplexity by position, memory against length,
    quality against bytes. Each appears where the evaluations have numbers for it.
    """
    whole("trained", trained, 1)
    whole("seed", seed, 0)

    from longspan.engine.progress import bar
    from longspan.evals import origin, records
    from longspan.evals.raw import versions
    from longspan.evals.report import style, write

    style.check()
    if any(out.resolve() == path.resolve() for path in paths):
        raise UsageError(f"--out {out}: the evaluations are in it; give another folder")
    loaded = records.load(paths)
    made = write.Origin(
        command=origin.command(sys.argv[1:]),
        revision=origin.revision(),
        versions=versions() | {"matplotlib": style.version()},
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with bar("drawing", "figures") as move:
        files = write.write(loaded, out, made, title=title, baseline=against, seed=seed, trained=trained, progress=move)
    if json:
        say.dump(
            {
                "page": str(files[0]),
                "files": [str(file) for file in files],
                "evaluations": len(loaded.records),
                "warnings": say.notes(context).texts,
            }
        )
    else:
        print(files[0])
        say.note(f"{len(loaded.records):,} evaluations, {len(files):,} files in {out}")
