"""What a suite is: settings, the samples that they make of a model, and the results that follow from samples alone.

A suite is one file: a frozen dataclass whose fields, declared with `option`, are what the command line offers, and with
the methods of `Asking` or of `Measuring`. It is listed in `longspan.evals.suites`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from longspan.errors import UsageError
from longspan.evals import regimes
from longspan.evals.ask import BATCH, Answerer, ask
from longspan.evals.cases import Case, Scored
from longspan.evals.progress import Progress
from longspan.evals.raw import Cost, opened, versions

if TYPE_CHECKING:
    from longspan.engine.llm import LLM
    from longspan.engine.words import Words

T = TypeVar("T")

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
    """One kind of evaluation. Its fields are its settings, among them `samples`, how many are taken, and `seed`; making
    one with bad values raises UsageError."""

    @property
    def length(self) -> int | None: ...

    def results(self, samples: Seq[Any]) -> Results:
        """What all samples come to."""


@runtime_checkable
class Asking(Suite, Protocol):
    """A suite of texts and questions about them; its samples are `Scored`."""

    def cases(self, llm: Words, text: str | None) -> Iterator[Case]:
        """The cases, one after the other as they are wanted, always the same ones. text: the user's own, instead of the
        held-out one. Tokenizer and template are all that is needed of the model."""

    def count(self) -> int:
        """Questions in all."""


@runtime_checkable
class Measuring(Suite, Protocol):
    """A suite with a way of its own to come by samples. made: their class. regime: the one that it has, if any."""

    made: ClassVar[type]
    regime: ClassVar[str | None]

    def measure(self, llm: LLM, text: str | None, progress: Progress, done: int) -> Iterator[Any]:
        """The samples as they come, but for the first `done`."""


@runtime_checkable
class Reading(Suite, Protocol):
    """A suite that takes its questions from the user's files."""

    def paths(self) -> tuple[Path, ...]:
        """All files that it reads."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was done and what came of it. suite: with the length that was used. rope: in force at that length. regime:
    None where nothing is asked. costs: of each sample, also of those that an earlier run left in the file."""

    suite: Suite
    samples: tuple[Any, ...]
    results: Results
    rope: str
    regime: str | None
    costs: tuple[Cost, ...]

    @property
    def decode_ms_per_token(self) -> float | None:
        """Milliseconds per token of the answers after their first, of as many at once as were asked at once; None where
        there are none."""
        steps = sum(cost.decode_steps for cost in self.costs)
        return 1000 * sum(cost.decode_seconds for cost in self.costs) / steps if steps else None

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.costs)

    @property
    def kv_bytes_peak(self) -> int:
        """The most memory that the cache had, of all texts that were asked about at once."""
        return max((cost.kv_bytes_peak for cost in self.costs), default=0)

    @property
    def disk_bytes(self) -> int:
        return max((cost.disk_bytes for cost in self.costs), default=0)

    @property
    def text_bytes(self) -> tuple[float, float] | None:
        """What the cache has of one text when it was read (or of text and question when they are one prompt), the mean
        over the questions: in memory and in a file; None where that was not looked at."""
        known = [cost for cost in self.costs if cost.text_bytes]
        if not known:
            return None
        memory, file = sum(cost.text_bytes for cost in known), sum(cost.text_disk_bytes for cost in known)
        return memory / len(known), file / len(known)


def evaluate(
    suite: Suite,
    llm: LLM,
    text: str | None = None,
    raw: Path | None = None,
    progress: Progress = lambda done, total: None,
    *,
    regime: str | None = None,
    batch: int = BATCH,
    answerer: Answerer | None = None,
) -> Evaluation:
    """Run a suite.

    raw: a file that gets each sample as soon as it is known. One that an earlier run of the same evaluation left is
    gone on with; one of another is refused. regime: see `longspan.evals.regimes`; None: agnostic, where questions are
    asked. batch: texts that are asked about at once. answerer: who answers instead of the model.
    """
    whole("batch", batch, 1)
    suite, regime = settled(suite, llm), chosen(suite, regime)
    assert suite.length is not None
    kind = suite.made if isinstance(suite, Measuring) else Scored
    told = header(suite, llm, text, regime, batch)
    samples, costs = [], []
    with opened(raw, told, kind) as file:
        for sample, cost in [] if file is None else file.held:
            samples.append(sample)
            costs.append(cost)
        for sample, cost in _timed(_samples(suite, llm, text, progress, regime, batch, answerer, len(samples)), llm):
            samples.append(sample)
            costs.append(cost)
            if file is not None:
                file.add(sample, cost)
    rope = llm.ropes.used(llm.reach(suite.length))
    return Evaluation(suite, tuple(samples), suite.results(samples), rope, regime, tuple(costs))


def settled(suite: Suite, llm: Words) -> Suite:
    """The suite with a length, if none was given."""
    if suite.length is not None:
        return suite
    made: Suite = dataclasses.replace(suite, length=min(LENGTH, llm.shape.trained))  # type: ignore[type-var]
    return made


def chosen(suite: Suite, regime: str | None) -> str | None:
    """The regime of an evaluation. Raises UsageError for one that the suite does not have."""
    if not isinstance(suite, Measuring):
        return regimes.named(regime or "agnostic")
    if regime is not None and regimes.named(regime) != suite.regime:
        why = "asks nothing" if suite.regime is None else f"is always {suite.regime}"
        raise UsageError(f"regime: this suite {why}; leave out --regime")
    return suite.regime


def contents(suite: Suite, text: str | None) -> dict[str, str]:
    """The SHA-256 of all that a suite takes from the user: of the `text`, and of each file by its path. Nothing where
    it takes nothing."""
    found = {} if text is None else {"text": _digest(text.encode("utf-8", "surrogatepass"))}
    for path in suite.paths() if isinstance(suite, Reading) else ():
        try:
            found[f"file {path}"] = _digest(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}; give a file that can be read") from None
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def header(suite: Suite, llm: LLM, text: str | None, regime: str | None, batch: int) -> dict[str, Any]:
    """All that samples depend on."""
    return {
        "suite": type(suite).__name__,
        "settings": {**dataclasses.asdict(suite), "batch": batch},  # type: ignore[call-overload]
        "text": None,
        **contents(suite, text),
        "regime": regime,
        "model": str(llm.path),
        "dtype": str(llm.dtype).removeprefix("torch."),
        "weights": llm.weights,
        "device": llm.device.type,
        "rope": llm.ropes.choice,
        "plan": {**llm.plan.texts, "page": llm.layout.page, "chunk": llm.scheduler.chunk},
        "versions": versions(),
    }


def _samples(
    suite: Suite,
    llm: LLM,
    text: str | None,
    progress: Progress,
    regime: str | None,
    batch: int,
    answerer: Answerer | None,
    done: int,
) -> Iterator[tuple[Any, Cost]]:
    if isinstance(suite, Measuring):
        for sample in suite.measure(llm, text, progress, done):
            yield sample, Cost()
        return
    assert isinstance(suite, Asking)
    assert regime is not None
    if answerer is None:
        from longspan.evals.asker import Asker

        answerer = Asker(llm, regime)
    for sample, said in ask(suite.cases(llm, text), suite.count(), answerer, batch, progress, done):
        yield (
            sample,
            Cost(
                decode_steps=said.steps,
                decode_seconds=said.seconds,
                text_bytes=said.held,
                text_disk_bytes=said.filed,
            ),
        )


def _timed(samples: Iterator[tuple[Any, Cost]], llm: LLM) -> Iterator[tuple[Any, Cost]]:
    """With the time since the sample before, and the memory that the cache had so far."""
    began = time.perf_counter()
    for sample, cost in samples:
        now = time.perf_counter()
        pool = llm.pool
        seen = {"kv_bytes_peak": pool.peak_bytes, "disk_bytes": pool.disk_bytes}
        yield sample, dataclasses.replace(cost, seconds=now - began, **seen)
        began = now


def option(default: T, metavar: str, help: str, name: str | None = None, also: str | None = None) -> T:
    """A field of a suite that the command line offers as `--name`, by default the field's own name. also: another
    name, that it once had."""
    given: T = dataclasses.field(
        default=default, metadata={"metavar": metavar, "help": help, "name": name, "also": also}
    )
    return given


def whole(name: str, value: int | None, least: int) -> None:
    """Raises UsageError for a number below `least`; None stands for a default."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise UsageError(f"{name}: {value!r}; give a whole number, {least:,} or more")
