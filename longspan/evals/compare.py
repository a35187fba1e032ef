"""Several plans on the same samples: scores with intervals, paired differences, and which plans no other beats."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from longspan.errors import UsageError
from longspan.evals.bootstrap import RESAMPLES, Interval, ratio
from longspan.evals.numbers import perplexity
from longspan.evals.pareto import front
from longspan.evals.records import FULL, Record, Sample

ALL = "all"


@dataclass(frozen=True)
class Row:
    """One plan on one task.

    length: None where a suite has several and the row is of all. task: ALL where it is of all; score and change are
    then means over the tasks (and lengths) of their means, so that each counts alike; of perplexity, over all tokens.
    measure: of score, "share" (0 … 1) or "perplexity". low, high: the 95 % interval, by: how it came about
    (`longspan.evals.bootstrap`). questions: answers, or tokens foreseen. texts: that they are about, the independent
    ones. drawn: what chance drew, and the interval draws anew: "text", "fact" (of the one text) or "window".

    The next are of the whole evaluation, and None in rows of a part of it. kv_bytes_peak: of memory, disk_bytes: of a
    file, rss_peak_bytes: of the process. text_kv_bytes, text_disk_bytes: what memory and file have of one text when it
    was read, the mean. on_front: no other plan has a better score with no more KV bytes in memory, or as good a one
    with fewer; on_total_front: the same with bytes in memory and on disk together.

    The last compare with the baseline on the same samples, and are None in its own rows. against: its name. change: of
    the share; of perplexity, as a part of the baseline's. won, lost: samples that were better, worse.
    """

    suite: str
    regime: str | None
    length: int | None
    task: str
    plan: str
    measure: str
    score: float
    low: float | None
    high: float | None
    by: str
    questions: int
    texts: int
    drawn: str
    whole: bool
    kv_bytes_peak: int | None = None
    disk_bytes: int | None = None
    rss_peak_bytes: int | None = None
    text_kv_bytes: float | None = None
    text_disk_bytes: float | None = None
    decode_ms_per_token: float | None = None
    on_front: bool | None = None
    on_total_front: bool | None = None
    against: str | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    change_by: str | None = None
    won: int | None = None
    lost: int | None = None


def compare(
    records: Seq[Record], baseline: str | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Row, ...]:
    """The rows of plans with one setup, task by task, the whole last.

    baseline: a plan's name; None: the full cache, or else the first. Raises UsageError where regimes, settings or
    samples differ, since such figures do not belong in one table.
    """
    base = _baseline(records, baseline)
    for one in records:
        if one.regime != base.regime:
            raise UsageError(f"plans {base.plan!r} and {one.plan!r}: regimes {base.regime} and {one.regime} never mix")
        if one.setup != base.setup or sorted(s.key for s in one.samples) != sorted(s.key for s in base.samples):
            raise UsageError(f"plans {base.plan!r} and {one.plan!r} were not given the same samples of {base.suite}")
    rows = []
    for length, task, chosen in _parts(base):
        part = [_row(one, base, length, task, chosen, seed, resamples) for one in records]
        rows += _fronts(part) if part[0].whole else part
    return tuple(rows)


def setups(records: Seq[Record]) -> list[list[Record]]:
    """The records that may stand in one table, together."""
    found: dict[str, list[Record]] = {}
    for one in records:
        found.setdefault(one.setup, []).append(one)
    return list(found.values())


def quality(row: Row) -> float:
    """More is better."""
    return row.score if row.measure == "share" else -row.score


def _baseline(records: Seq[Record], name: str | None) -> Record:
    for one in records:
        if one.plan == (FULL if name is None else name):
            return one
    if name is None:
        return records[0]
    raise UsageError(f"baseline {name!r}: there is no such plan; plans: {', '.join(one.plan for one in records)}")


Chosen = Callable[[Sample], bool]


def _parts(record: Record) -> Iterator[tuple[int | None, str, Chosen]]:
    """Length, task and which samples: every task at every length, all tasks of a length, all."""
    lengths, tasks = record.lengths, tuple(dict.fromkeys(one.group for one in record.samples))
    for length in lengths:
        for task in tasks:
            if any(one.length == length and one.group == task for one in record.samples):
                yield length, task, lambda one, length=length, task=task: (one.length, one.group) == (length, task)  # type: ignore[misc]
        if len(tasks) > 1:
            yield length, ALL, lambda one, length=length: one.length == length  # type: ignore[misc]
    if len(lengths) > 1:
        yield None, tasks[0] if len(tasks) == 1 else ALL, lambda one: True


def _row(record: Record, base: Record, length: int | None, task: str, chosen: Chosen, seed: int, resamples: int) -> Row:
    mine = _weighted(record, chosen)
    whole = len(mine) == len(record.samples)
    bounds = None if record.windows else (0.0, 1.0)
    value = sum(one.value for one in mine.values()) / sum(one.weight for one in mine.values())
    interval = _interval(list(mine.values()), [one.value for one in mine.values()], bounds, seed, resamples)
    if record.windows:
        value, interval = perplexity(value), interval.through(perplexity)
    row = Row(
        suite=record.suite,
        regime=record.regime,
        length=length,
        task=task,
        plan=record.plan,
        measure="perplexity" if record.windows else "share",
        score=value,
        low=interval.low,
        high=interval.high,
        by=interval.by,
        questions=round(sum(one.weight for one in mine.values())),
        texts=1 if record.facts else len({one.case for one in mine.values()}),
        drawn="window" if record.windows else "fact" if record.facts else "text",
        whole=whole,
    )
    if whole:
        row = dataclasses.replace(
            row,
            kv_bytes_peak=_whole(record.number("kv_bytes_peak")),
            disk_bytes=_whole(record.number("disk_bytes")),
            rss_peak_bytes=_whole(record.number("rss_peak_bytes")),
            text_kv_bytes=_of_text(record, 0),
            text_disk_bytes=_of_text(record, 1),
            decode_ms_per_token=record.number("decode_ms_per_token"),
        )
    if record is base:
        return row
    return _changed(dataclasses.replace(row, against=base.plan), mine, _weighted(base, chosen), seed, resamples)


def _weighted(record: Record, chosen: Chosen) -> dict[str, Sample]:
    """The chosen samples by their keys. Answers have weights that are 1 on average, so that each task at each length
    counts alike however many they are; they are 1 where all have as many."""
    mine = {one.key: one for one in record.samples if chosen(one)}
    if record.windows:
        return mine
    counts = Counter((one.group, one.length) for one in mine.values())
    even = len(mine) / len(counts)
    return {key: one.times(even / counts[one.group, one.length]) for key, one in mine.items()}


def _changed(row: Row, mine: dict[str, Sample], other: dict[str, Sample], seed: int, resamples: int) -> Row:
    """The row with what is different from the baseline's, sample by sample."""
    differences = [one.value - other[key].value for key, one in mine.items()]
    windows = row.measure == "perplexity"
    interval = _interval(list(mine.values()), differences, None if windows else (-1.0, 1.0), seed, resamples)
    change = sum(differences) / sum(one.weight for one in mine.values())
    if windows:  # a difference of nats is a ratio of perplexities
        change, interval = perplexity(change) - 1, interval.through(lambda nats: perplexity(nats) - 1)
    more, less = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    won, lost = (less, more) if windows else (more, less)
    return dataclasses.replace(
        row,
        change=change,
        change_low=interval.low,
        change_high=interval.high,
        change_by=interval.by,
        won=won,
        lost=lost,
    )


def _interval(
    samples: Seq[Sample], values: Seq[float], bounds: tuple[float, float] | None, seed: int, resamples: int
) -> Interval:
    """Texts are drawn, with all their questions, task by task."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    strata: dict[str, tuple[str, int]] = {}
    for one, value in zip(samples, values, strict=True):
        sums[one.case] = sums.get(one.case, 0.0) + value
        counts[one.case] = counts.get(one.case, 0.0) + one.weight
        strata[one.case] = (one.group, one.length)
    return ratio(
        list(sums.values()),
        list(counts.values()),
        list(strata.values()),
        bounds=bounds,
        seed=seed,
        resamples=resamples,
    )


def _fronts(rows: Seq[Row]) -> list[Row]:
    """Rows of wholes with where they stand against each other; one whose bytes are not known stands nowhere."""
    known = [row for row in rows if row.kv_bytes_peak is not None]
    memory = front([(row.kv_bytes_peak or 0, quality(row)) for row in known])
    total = front([((row.kv_bytes_peak or 0) + (row.disk_bytes or 0), quality(row)) for row in known])
    stands = {row.plan: (a, b) for row, a, b in zip(known, memory, total, strict=True)}
    return [
        dataclasses.replace(row, on_front=stands[row.plan][0], on_total_front=stands[row.plan][1])
        if row.plan in stands
        else row
        for row in rows
    ]


def _of_text(record: Record, place: int) -> float | None:
    both = record.told.get("text_bytes")
    return None if both is None else float(both[place])


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
