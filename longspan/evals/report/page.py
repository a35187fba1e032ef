"""The report as one page: no script, nothing loaded from anywhere, every text escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from longspan.evals.compare import Row
from longspan.evals.numbers import size
from longspan.evals.records import REGIMES, USUAL, Loaded, Record
from longspan.evals.report.figure import Figure, Study
from longspan.evals.report.style import WIDTH
from longspan.evals.table import NAMES, sentences, table

PIXELS = 96
"""Of a page, to an inch."""
REGIME_NOTES = {
    "agnostic": "Each text was read, and whatever a plan drops of it was dropped, before any question was known. Every "
    "question then went on from what was left.",
    "aware": "The question was known when a plan chose what to keep of a text.",
    None: "Nothing is asked here: the model foresees a text, token by token.",
}
NOTES = (
    "n is the number of questions (of perplexity: of tokens); texts counts the independent ones. Questions about the "
    "same text are drawn together, so they do not make an interval narrower than it is. Of needles in one long text "
    "the facts are drawn one by one: the interval is for other facts of this text, not for other texts.",
    "The row of all tasks is the mean of the tasks' scores, each counting alike however many questions it has; of "
    "perplexity, of all tokens.",
    "Intervals of 95 % come from the bootstrap: the texts are drawn anew, with replacement, task by task, and the "
    "middle 95 % of the scores are told. Where all draws are alike, as when every answer is right, Wilson's interval "
    "for the number of texts stands instead.",
    "Change, won and lost compare a plan with the baseline (whose rows have none) on the same samples, pair by pair: "
    "in points of the score, or in % of the perplexity. If the interval of a change includes zero, chance alone could "
    "explain it.",
    "KV peak is the most memory that keys and values took at once, with scales and summaries, of all texts in work "
    "together; what lies in a file is told apart. A text: what memory and file hold of one text after reading it, on "
    "average. Process is the peak of the whole program.",
    "Front: on the Pareto front of score against bytes, in memory, or in total (memory and disk together).",
    "Query-agnostic and query-aware figures answer different questions and never stand in one table or figure.",
)


@dataclass(frozen=True)
class Drawn:
    """A figure with its files' name and its picture in both themes, as SVG."""

    figure: Figure
    name: str
    light: bytes
    dark: bytes


def render(title: str, loaded: Loaded, studies: Seq[tuple[Study, Seq[Drawn]]], made: Mapping[str, str]) -> str:
    """The page. made: what is told of how the report came about."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    parts = []
    for regime in (*REGIMES, None):
        mine = [_study(study, drawn) for study, drawn in studies if study.regime == regime]
        if mine:
            name = "Perplexity" if regime is None else REGIMES[regime].capitalize()
            parts.append({"title": name, "note": REGIME_NOTES[regime], "studies": mine})
    page: str = environment.get_template("page.html").render(
        title=title,
        lead=_lead(loaded.records),
        failures=loaded.failures,
        parts=parts,
        notes=NOTES,
        made=list(made.items()),
        evaluations=[{"title": f"{one.plan}: {one.suite}", "lines": list(about(one))} for one in loaded.records],
    )
    return page


def about(record: Record) -> Iterator[tuple[str, str]]:
    """What the JSON of an evaluation says besides its samples and results, as text."""
    left = {"samples", "results", "plan", "suite", "baseline", *USUAL}
    yield "plan", " ".join(f"--{name} {record.told[name]}" for name in USUAL if name in record.told)
    for name, value in record.told.items():
        if name in left:
            continue
        if name == "text_bytes":
            yield "bytes of a text", "not known" if value is None else f"{size(value[0])}, in a file {size(value[1])}"
        elif name.endswith(("bytes", "bytes_peak")):
            yield name.replace("_", " "), size(value)
        elif isinstance(value, Mapping):
            yield name, ", ".join(f"{key} {json.dumps(one, ensure_ascii=False)}" for key, one in value.items())
        elif isinstance(value, list):
            yield name, "; ".join(map(str, value)) or "none"
        else:
            yield name.replace("_", " "), "not known" if value is None else str(value)


def _lead(records: Seq[Record]) -> str:
    plans = list(dict.fromkeys(one.plan for one in records))
    suites = list(dict.fromkeys(one.suite for one in records))
    models = list(dict.fromkeys(str(one.told.get("model", "not named")) for one in records))
    count = f"{len(plans)} plans" if len(plans) > 1 else f"One plan, {plans[0]},"
    samples = sum(len(one.samples) for one in records)
    many = "s" * (len(records) > 1)
    return (
        f"{count} on {_and(suites)}: {samples:,} samples in {len(records):,} evaluation{many}. Model: {_and(models)}."
    )


def _and(names: Seq[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _study(study: Study, drawn: Seq[Drawn]) -> dict[str, Any]:
    first = study.records[0]
    told = [f"{name} {first.told[name]}" for name in ("dtype", "weights", "device") if first.told.get(name)]
    trained = f"trained on {study.trained:,} tokens" if study.trained else "trained length not recorded"
    return {
        "title": study.suite,
        "about": ", ".join((f"Model {first.told.get('model', 'not named')}", trained, *told)) + ".",
        "tables": [_table(rows) for rows in study.tables],
        "figures": [_figure(one) for one in drawn],
    }


def _table(rows: Seq[Row]) -> dict[str, Any]:
    rows = [*(row for row in rows if row.whole), *(row for row in rows if not row.whole)]
    header, lines = table(rows)
    whole = [place for place, row in enumerate(rows) if row.whole]
    return {"header": header, "lines": lines, "names": NAMES, "whole": whole, "sentences": list(sentences(rows))}


def _figure(drawn: Drawn) -> dict[str, Any]:
    figure = drawn.figure
    header = list(figure.rows[0])
    return {
        "title": figure.title,
        "caption": figure.caption,
        "name": drawn.name,
        "light": _inline(drawn.light),
        "dark": _inline(drawn.dark),
        "width": round(WIDTH * PIXELS),
        "height": round(figure.height * PIXELS),
        "header": header,
        "lines": [[_cell(row[name]) for name in header] for row in figure.rows],
    }


def _inline(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
