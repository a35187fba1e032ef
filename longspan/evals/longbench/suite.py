"""LongBench as a suite: real texts and their questions from public files, cut in the middle to the length.

After Bai et al. 2023, "LongBench: A Bilingual, Multitask Benchmark for Long Context Understanding", arXiv 2308.14508:
its prompts, lengths of answers and scores. What differs is told in docs/ruler.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from longspan.errors import UsageError
from longspan.evals.cases import Case, Question, Scored
from longspan.evals.intervals import around_mean
from longspan.evals.longbench.cut import fitted
from longspan.evals.longbench.datasets import DATASETS
from longspan.evals.longbench.files import Row, listed, read
from longspan.evals.longbench.scores import segmenter
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.words import Words


@dataclass(frozen=True)
class LongBench:
    """LongBench: questions, summaries, classes and code over real texts, from its public files."""

    data: str = option("", "PATH", "LongBench's .jsonl file, or the folder of them. Required.")
    length: int | None = option(
        None,
        "TOKENS",
        "The prompt with the room for its answer; of a longer one the middle is left out. "
        "[default: 1024, or the trained length if shorter]",
    )
    datasets: tuple[str, ...] = option(
        (), "NAME", f"One of {', '.join(DATASETS)}. Repeatable. [default: all in the data]", "dataset"
    )
    samples: int | None = option(None, "N", "Of each data set. [default: all]")
    seed: int = option(0, "N", "Other samples, where not all are taken.")

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("samples", 1), ("seed", 0)):
            whole(name, getattr(self, name), least)
        if not self.data:
            raise UsageError("data: LongBench's files are needed; give --data FILE, or a folder of .jsonl files")
        for name in self.datasets:
            if name not in DATASETS:
                raise UsageError(f"dataset: unknown {name!r}; known: {', '.join(DATASETS)}")
        object.__setattr__(self, "datasets", tuple(dict.fromkeys(self.datasets)))
        there = read(self.data)
        for name in self.datasets:
            if name not in there:
                raise UsageError(f"dataset {name}: {self.data} has none of it; it has {', '.join(there) or 'nothing'}")
            if DATASETS[name].chinese:
                segmenter()
        if not self.chosen():
            raise UsageError(
                f"data: {self.data}: nothing in it can be scored without jieba; pip install 'longspan[chinese]'"
            )

    def chosen(self) -> dict[str, tuple[Row, ...]]:
        """The samples of this run, by data set."""
        there = read(self.data)
        names = self.datasets or tuple(one for one in there if one not in self._left_out())
        return {name: self._some(name, there[name]) for name in names}

    def _left_out(self) -> tuple[str, ...]:
        """Data sets of the files whose answers cannot be scored here."""
        chinese = tuple(name for name in read(self.data) if DATASETS[name].chinese)
        try:
            segmenter()
        except UsageError:
            return () if self.datasets else chinese
        return ()

    def _some(self, name: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        if self.samples is None or self.samples >= len(rows):
            return rows
        drawn = random.Random(f"{self.seed}/longbench/{name}").sample(range(len(rows)), self.samples)
        return tuple(rows[place] for place in sorted(drawn))

    def paths(self) -> tuple[Path, ...]:
        return listed(self.data)

    def count(self) -> int:
        return sum(map(len, self.chosen().values()))

    def cases(self, llm: Words, text: str | None) -> Iterator[Case]:
        assert self.length is not None
        if text is not None:
            raise UsageError("--text: this suite has texts of its own; leave it out")
        for name, rows in self.chosen().items():
            for index, row in enumerate(rows):
                yield _case(llm, name, index, row, self.length)

    def results(self, samples: Seq[Scored]) -> Results:
        groups = {name: [100 * one.score for one in samples if one.group == name] for name in DATASETS}
        figures = {name: _figures(scores) for name, scores in groups.items() if scores}
        average = fmean(one["score"] for one in figures.values()) if figures else None
        values: dict[str, Any] = {"datasets": figures, "average": average, "left_out": list(self._left_out())}
        rows = [(name, DATASETS[name].metric, *_row(one)) for name, one in figures.items()]
        if average is not None and len(figures) > 1:
            rows.append(("average", "", f"{average:.1f}", "–", f"{sum(one['asked'] for one in figures.values()):,}"))
        notes = []
        if values["left_out"]:
            notes.append(
                f"Left out: {', '.join(values['left_out'])}, scored with jieba (pip install 'longspan[chinese]')."
            )
        return Results(values, ("data set", "score by", "score", "95 % interval", "asked"), tuple(rows), tuple(notes))


def _case(llm: Words, name: str, index: int, row: Row, length: int) -> Case:
    dataset = DATASETS[name]
    references = (*row.answers, "", *row.classes) if dataset.metric == "classification" else row.answers
    plain = dataset.plain or not llm.has_template
    text, asked = dataset.written(row.context, row.asked)
    if not plain:
        asked = asked.lstrip("\n")  # a message has an empty line between the two
    text, asked = fitted(llm, text, asked, dataset.room, length, plain)
    return Case(name, index, length, text, (Question(asked, references, dataset.metric, dataset.room),), plain=plain)


def _figures(scores: Seq[float]) -> dict[str, Any]:
    ends = around_mean(scores)
    interval = None if ends is None else (max(0.0, ends[0]), min(100.0, ends[1]))
    return {"score": fmean(scores), "asked": len(scores), "interval": interval}


def _row(figures: dict[str, Any]) -> tuple[str, str, str]:
    ends = figures["interval"]
    between = "–" if ends is None else f"{ends[0]:.1f} – {ends[1]:.1f}"
    return f"{figures['score']:.1f}", between, f"{figures['asked']:,}"
