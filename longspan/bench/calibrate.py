"""What this machine takes for each amount of work of our engine (`longspan.plan.features`), measured within a minute.

Small models of random weights run through the engine as any model does: bodies apart from attention, attention over
caches of several lengths in every format, what eviction and selection do. The costs are fitted to their steps.
"""

from __future__ import annotations

import datetime
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch.nn import functional

from longspan.bench import fit, held, machine, shapes
from longspan.bench.fit import Observation
from longspan.bench.probes import Bench, Probe, Took, clocked, options
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.kernels.cpu import NATIVE
from longspan.kernels.cpu.linear import Prepared
from longspan.plan import features
from longspan.plan.calibration import Calibration
from longspan.plan.costs import Costs
from longspan.plan.features import Steps
from longspan.plan.here import identity
from longspan.plan.work import Work
from longspan.spec import parse

WEIGHTS = "stored", "int8", "int4"
ROWS = {
    Probe("deep", 32, 256, 512, 4, 2, 64): WEIGHTS[:1],
    Probe("long", 40, 512, 1536, 8, 2, 64): WEIGHTS[:1],
    Probe("wide", 2, 1536, 5120, 12, 4, 128, 24_576): WEIGHTS,
}
"""The models of whose bodies one row is timed, and as what their weights are kept. Those of "long" and "wide" are far
more than a core's own caches hold."""
BLOCKS = {
    Probe("narrow", 6, 512, 1536, 8, 2, 64): WEIGHTS,
    Probe("thick", 1, 1536, 5120, 12, 4, 128): WEIGHTS,
}
"""And of which blocks of rows are."""
SIZES = tuple(size << 20 for size in (64, 128, 192, 256, 384, 512, 768))
"""Bytes of weights that are read again and again, from a processor's last cache or from memory."""
WIDE = 4096
"""Columns of their matrix."""
ATTENTION = Probe("grouped", 4, 256, 256, 8, 2, 64), Probe("plain", 2, 256, 256, 8, 8, 128)

FAR = {"grouped": 32_768, "plain": 12_288}
"""Tokens whose keys and values are far more than a core's own caches hold."""
TIDY = "evict", "seal", "summarise"

Told = Callable[[str, int, int], None]


class Gathered:
    """Times by group of costs."""

    def __init__(self) -> None:
        self.groups: dict[str, list[Observation]] = defaultdict(list)

    def add(self, amounts: features.Amounts, seconds: float, whole: float | None = None) -> None:
        """Amounts of one group. whole: what was timed, where the seconds are a part of that, by difference: less than
        nothing too, where noise makes it so, or what is small would come out dear."""
        groups = {group for (group, _), much in amounts.items() if much}
        assert len(groups) == 1, f"amounts of {groups}"
        some = {name: much for (_, name), much in amounts.items()}
        self.groups[groups.pop()].append((some, seconds, seconds if whole is None else whole))

    def steps(self, probe: Probe, work: Work, took: list[Took], body: float) -> None:
        """Steps that read, beside a body that takes so long."""
        for step in took:
            steps = Steps.at(step.first, step.rows)
            amounts = features.reading(probe.shape(), work, steps, features.ASKED if step.asked else 0)
            for name in TIDY:
                some = _only(amounts, (name,))
                if some:
                    self.add(some, step.tidy)
            some = _only(amounts, ("pages", "lanes", "select", "asked"))
            if some:
                self.add(some, step.forward - body, step.forward)

    def answers(self, probe: Probe, work: Work, took: list[Took], body: float) -> None:
        """Steps that answer, one after another: the median of them. Each takes so little time that one that was held up
        would count for more than all others."""
        middle = len(took) // 2
        amounts = features.answering(probe.shape(), work, took[middle].first + 1, middle)
        some = _only(amounts, ("pages.few", "lanes.few", "select.few"))
        if some:
            whole = statistics.median(step.forward + step.tidy for step in took)
            self.add(some, whole - body, whole)


def _only(amounts: features.Amounts, groups: tuple[str, ...]) -> features.Amounts:
    return {key: much for key, much in amounts.items() if key[0].startswith(groups) and much}


def work_of(plan: str, weights: str = "stored") -> Work:
    """The plan of a probe, as `probes.options` writes it, in the words of plans."""
    given = options(plan)
    return Work(
        context=1,
        new=0,
        format=None if given["format"] == "dense" else parse(given["format"], FORMATS, "format"),
        evict=parse(given["evict"], POLICIES, "evict") if "evict" in given else None,
        select=parse(given["select"], SELECTIONS, "select") if "select" in given else None,
        weights={"stored": 16, "int8": 8, "int4": 4}[weights],
        group=0 if weights == "stored" else 64,
    )


def calibrate(told: Told = lambda what, done, total: None) -> Calibration:
    """Measure this machine. told: called with what comes next, and how many of how many are done."""
    began = time.perf_counter()
    found = Gathered()
    ways = [f"{form} {way}" for form in features.FORMS for way in ("-", "h2o:budget=2048", "landmark")]
    timed = (one_row, ROWS), (blocks, BLOCKS)
    parts = [(clock, body, form) for clock, some in timed for body, forms in some.items() for form in forms]
    # how pages of each form are gathered is told by one model, and by another what is done with them then
    every = [way for way in ways if way.endswith("-") or way.startswith("dense")]
    seen = [*((ATTENTION[0], way) for way in ways), *((probe, way) for probe in ATTENTION[1:] for way in every)]
    with tempfile.TemporaryDirectory(prefix="longspan-calibrate-") as made:
        for probe in (*ROWS, *BLOCKS, *ATTENTION):
            shapes.write(Path(made) / probe.name, probe.config())
        where = Path(made)
        layers = {
            (clock, probe, form): (
                f"layers of {probe.hidden}, weights {form}",
                functools.partial(clock, found, probe, form, where),
            )
            for clock, probe, form in parts
        }
        # what every step does is timed at two moments, half a minute apart: a shared machine is not the same in both
        every_step = [
            *(job for (_, _, form), job in layers.items() if form == "stored"),
            ("weights of several sizes", functools.partial(sizes, found, where)),
        ]
        jobs = [
            *every_step,
            *(job for (_, _, form), job in layers.items() if form != "stored"),
            *(
                (f"attention of {probe.heads} heads, {plan}", functools.partial(attention, found, probe, plan, where))
                for probe, plan in seen
            ),
            *every_step,
        ]
        for done, (what, job) in enumerate(jobs):
            told(what, done, len(jobs) + 1)
            job()
        told("memory", len(jobs), len(jobs) + 1)
        memory = held.measure(Path(made) / list(ROWS)[-1].name)
        limits = machine.Machine(torch.bfloat16, torch.device("cpu"), torch.get_num_threads()).limits()
    rates, spread = fitted(found)
    return Calibration(
        identity=identity(),
        taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - began,
        memory=psutil.virtual_memory().total,
        bandwidth=limits.bytes_per_second,
        flops=limits.flops_per_second,
        costs=Costs(rates, spread, memory),
    )


def fitted(found: Gathered) -> tuple[dict[str, dict[str, float]], float]:
    """The costs of each group, and the median of what they miss."""
    rates, missed = {}, []
    for group, observations in found.groups.items():
        rates[group] = fit.costs(observations)
        missed += [abs(x) for x in fit.off(observations, rates[group])]
    return rates, statistics.median(missed)


def one_row(found: Gathered, probe: Probe, weights: str, made: Path) -> None:
    """All but attention; and drawing a token, which depends on the vocabulary alone: once for each size of it."""
    bench, work = Bench(made / probe.name, weights=weights), work_of("dense -", weights)
    found.add(_only(features.body(probe.shape(), work, Steps.at(0, 1).rows), ("body.few",)), bench.one_row(25))
    drawn = _only(features.answering(probe.shape(), work, 64, 0), ("token",))
    if all(drawn["token", "logit"] != before["logit"] for before, *_ in found.groups["token"]):
        found.add(drawn, bench.token(20))


def sizes(found: Gathered, made: Path) -> None:
    """What reading weights takes by how many there are. As those of checkpoints they are mapped from a file, whose
    pages are small."""
    most = min(SIZES[-1], psutil.virtual_memory().available // 4)
    path = made / "weights"
    with path.open("wb") as file:
        file.truncate(most)
    numbers = torch.from_file(str(path), size=most // 2, dtype=torch.bfloat16)
    row = torch.zeros((1, WIDE), dtype=torch.bfloat16)
    for size in SIZES:
        if size <= most:
            took = statistics.median(clocked(functools.partial(_product, numbers[: size // 2], row), 5))
            amounts = {"byte.plain": size, **features.far(size)}
            found.add({("body.few", name): much for name, much in amounts.items()}, took)


def _product(numbers: torch.Tensor, row: torch.Tensor) -> None:
    matrix = numbers.view(-1, WIDE)
    if NATIVE is None:
        functional.linear(row, matrix)
    else:
        Prepared([matrix])(row)


def blocks(found: Gathered, probe: Probe, weights: str, made: Path) -> None:
    """The same of many rows. The head's bytes are few there, and belong to the other group."""
    bench, work = Bench(made / probe.name, weights=weights), work_of("dense -", weights)
    for rows, times in ((64, 3), (256, 2), (1024, 2)):
        if weights == "stored" or rows != 256:
            amounts = features.body(probe.shape(), work, Steps.at(0, rows).rows)
            found.add(_only(amounts, ("body.many",)), statistics.median(bench.body(rows, times)))


def attention(found: Gathered, probe: Probe, plan: str, made: Path) -> None:
    """What a step takes beside that of the same model with all pages and nothing in them."""
    plain = Bench(made / probe.name).one_row(9)
    bench, work = Bench(made / probe.name, **options(plan)), work_of(plan)
    warm = bench.text()
    bench.read(warm, 64)
    bench.answer(warm, 1)
    bench.drop(warm)
    body = {1: plain} | {rows: statistics.median(bench.body(rows, 3)) for rows in (32, 128, 256, 2048)}
    text = bench.text()

    def read(tokens: int, rows: int, asks: bool = False) -> None:
        took = bench.read(text, tokens, rows, asks)
        found.steps(probe, work, [step for step in took if step.rows == rows], body[rows])

    def answer(steps: int) -> None:
        found.answers(probe, work, bench.answer(text, steps)[1:], body[1])

    def fill(tokens: int) -> None:
        bench.fill(text, tokens - len(text.ids))

    if work.evict is not None:
        read(512, 256)
        answer(8)
        bench.read(text, 1024 - len(text.ids))
        read(1024, 256)
        answer(8)
        bench.read(text, 2304 - len(text.ids))
        read(512, 256)  # now tokens go
        read(64, 32)
    elif work.select is not None:
        read(1536, 256)
        read(128, 128, asks=True)
        answer(8)
        fill(8192)
        read(32, 32, asks=True)
        read(64, 32)
        read(256, 256)
        read(128, 128, asks=True)
        answer(8)
    else:
        read(512, 256)
        answer(8)
        fill(4096)
        read(512, 256)
        if work.format is None:
            read(2048, 2048)
        answer(10)
        fill(FAR[probe.name])
        read(256, 256)
        answer(10)
