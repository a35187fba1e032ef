"""What a suite is: settings, the samples that they make of a model, and the results that follow from samples alone.

A suite is one file: a frozen dataclass with the two methods of `Suite`, whose fields, declared with `option`, are
what the command line offers. It is listed in `longspan.evals.suites`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.engine.llm import LLM

T = TypeVar("T")
Progress = Callable[[float, float], None]
"""Called with the samples done so far (the one in work counts in parts), and in all."""

LENGTH = 1024
"""Tokens of a prompt or window where none is given; fewer where the model was trained on fewer."""


@dataclasses.dataclass(frozen=True)
class Results:
    """values: for programs. header, rows: a table for people. notes: sentences below it."""

    values: Mapping[str, Any]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


class Suite(Protocol):
    """One kind of evaluation. Its fields are its settings; making one with bad values raises UsageError."""

    @property
    def length(self) -> int | None: ...

    def samples(self, llm: LLM, text: str | None, progress: Progress) -> Iterator[Any]:
        """The raw results, dataclasses, as they come. text: the user's own text, instead of the held-out one."""

    def results(self, samples: Seq[Any]) -> Results:
        """What all samples come to."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was done and what came of it. suite: with the length that was used. rope: in force at that length."""

    suite: Suite
    samples: tuple[Any, ...]
    results: Results
    rope: str


def evaluate(
    suite: Suite,
    llm: LLM,
    text: str | None = None,
    raw: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Run a suite. raw: a file that gets each sample as a line of JSON as soon as it is known."""
    if suite.length is None:
        suite = dataclasses.replace(suite, length=min(LENGTH, llm.shape.trained))  # type: ignore[type-var]
    assert suite.length is not None
    samples = []
    with nullcontext() if raw is None else raw.open("w", encoding="utf-8") as file:
        for sample in suite.samples(llm, text, progress):
            samples.append(sample)
            if file is not None:
                file.write(json.dumps(dataclasses.asdict(sample), ensure_ascii=False) + "\n")
                file.flush()
    return Evaluation(suite, tuple(samples), suite.results(samples), llm.ropes.used(llm.reach(suite.length)))


def part(progress: Progress, done: float, size: float, total: float) -> Progress:
    """Told how far a piece of the work is, reports how far all of it is: `size` samples after the `done` ones."""
    return lambda now, end: progress(done + size * now / end, total)


def option(default: T, metavar: str, help: str, name: str | None = None) -> T:
    """A field of a suite that the command line offers as `--name`, by default the field's own name."""
    given: T = dataclasses.field(default=default, metadata={"metavar": metavar, "help": help, "name": name})
    return given


def whole(name: str, value: int | None, least: int) -> None:
    """Raises UsageError for a number below `least`; None stands for a default."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise UsageError(f"{name}: {value!r}; give a whole number, {least:,} or more")
