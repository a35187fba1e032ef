"""Evaluations into a folder: the page, every figure as PNG, SVG and CSV, all numbers as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longspan.errors import UsageError
from longspan.evals.bootstrap import RESAMPLES
from longspan.evals.compare import compare, setups
from longspan.evals.records import Loaded, Record
from longspan.evals.report import lengths, needles, positions, quality, style
from longspan.evals.report.figure import Figure, Study, slug
from longspan.evals.report.page import Drawn, render

PAGE, NUMBERS, TABLE = "report.html", "report.json", "scores.csv"
FIGURES: tuple[Callable[[Study], Iterator[Figure]], ...] = (
    quality.fronts,
    lengths.scores,
    needles.heatmaps,
    positions.deciles,
    lengths.memory,
)
"""Every kind of figure, in the order of the page. Each draws what it finds numbers for."""


@dataclass(frozen=True)
class Origin:
    """What is told of how a report came about. revision: of longspan's sources, None where that is not known."""

    command: str
    revision: str | None
    versions: Mapping[str, str]
    date: str


def write(
    loaded: Loaded,
    folder: Path,
    origin: Origin,
    *,
    title: str = "Evaluation",
    baseline: str | None = None,
    seed: int = 0,
    trained: int | None = None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> tuple[Path, ...]:
    """Write the report; the files that were written, the page first. An earlier report in the folder is replaced.

    baseline: the plan that others are compared with; None: that of the comparison, or where it came to no result the
    full cache, or else the first plan. trained: the trained length, where the evaluations do not say it. seed: of the
    intervals. Raises UsageError where nothing can be drawn or the folder has other files in it.
    """
    style.check()
    _ready(folder)
    plans = list(dict.fromkeys(one.plan for one in loaded.records))
    if baseline is not None and baseline not in plans:
        raise UsageError(f"baseline {baseline!r}: there is no such plan; plans: {', '.join(plans)}")
    studies = list(_studies(loaded.records, baseline or loaded.baseline, seed, trained))
    figures = [(study, figure) for study in studies for kind in FIGURES for figure in kind(study)]
    files: dict[str, bytes] = {}
    drawn: dict[int, list[Drawn]] = {id(study): [] for study in studies}
    for number, (study, figure) in enumerate(figures):
        progress(number, len(figures))
        name = _free(slug(study.suite, study.regime, figure.kind), files)
        light, dark = (style.rendered(figure.draw, figure.height, theme, "svg") for theme in style.PAPER)
        files[f"{name}.png"] = style.rendered(figure.draw, figure.height, "light", "png")
        files[f"{name}.svg"] = light
        files[f"{name}.csv"] = _csv(figure.rows)
        drawn[id(study)].append(Drawn(figure, name, light, dark))
    progress(len(figures), len(figures))
    every = [asdict(row) for study in studies for row in study.rows]
    files[TABLE] = _csv(every)
    made = {
        "command": origin.command,
        "longspan's sources": origin.revision or "not in a git repository",
        "date": origin.date,
        **{f"version of {name}": version for name, version in origin.versions.items()},
        "intervals": f"95 %, {RESAMPLES:,} resamples, seed {seed}",
    }
    shown = [(study, drawn[id(study)]) for study in studies]
    page = render(title, loaded, shown, made)
    numbers = {
        "title": title,
        **asdict(origin),
        "intervals": {"level": 0.95, "resamples": RESAMPLES, "seed": seed},
        "evaluations": [_evaluation(one) for one in loaded.records],
        "failures": [dict(zip(("plan", "suite", "error"), one, strict=True)) for one in loaded.failures],
        "scores": every,
        "figures": {
            one.name: {"title": one.figure.title, "caption": one.figure.caption, "rows": one.figure.rows}
            for _, mine in shown
            for one in mine
        },
        "files": [PAGE, NUMBERS, *files],
    }
    files = {PAGE: page.encode(), NUMBERS: (json.dumps(_plain(numbers), indent=1) + "\n").encode(), **files}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return tuple(folder / name for name in files)


def _studies(records: Seq[Record], baseline: str | None, seed: int, trained: int | None) -> Iterator[Study]:
    looks = style.looks(list(dict.fromkeys(one.plan for one in records)))
    found: dict[str, list[Record]] = {}
    for one in records:
        found.setdefault(one.study, []).append(one)
    for mine in found.values():
        tables = []
        for some in sorted(setups(mine), key=lambda some: some[0].lengths):
            named = baseline if any(one.plan == baseline for one in some) else None
            tables.append(compare(some, named, seed=seed))
        known = trained or next((int(n) for one in mine if (n := one.number("trained"))), None)
        yield Study(mine[0].suite, mine[0].regime, tuple(mine), tuple(tables), looks, known, seed)


def _evaluation(record: Record) -> dict[str, Any]:
    """All but the samples."""
    return {"plan": record.plan, **{name: value for name, value in record.told.items() if name != "samples"}}


def _ready(folder: Path) -> None:
    """Makes the folder, or clears it of an earlier report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / NUMBERS).is_file():
            listed = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["files"]
            for name in listed:
                if Path(name).name == name:
                    (folder / name).unlink(missing_ok=True)
        left = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--out {folder}: {getattr(error, 'strerror', None) or error}; give a new folder") from None
    if left:
        raise UsageError(f"--out {folder}: there is {left[0]!r} in it, which is of no report; give a new folder")


def _free(name: str, taken: Mapping[str, bytes]) -> str:
    """The name, or the first with a number behind it that no file has."""
    number, free = 1, name
    while f"{free}.csv" in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _csv(rows: Seq[Mapping[str, Any]]) -> bytes:
    """Numbers as JSON writes them, so that both hold the same."""
    file = io.StringIO()
    header = list(rows[0])
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        plain = (_plain(row[name]) for name in header)
        writer.writerow(["" if x is None else x if isinstance(x, str) else json.dumps(x) for x in plain])
    return file.getvalue().encode()


def _plain(value: Any) -> Any:
    """What JSON can hold; numbers that it cannot write are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
