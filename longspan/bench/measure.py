"""One row of a benchmark: a model, a plan and a context, measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from longspan.bench import cost
from longspan.bench.clock import decode, read
from longspan.bench.fill import fill, refusal
from longspan.bench.machine import Limits
from longspan.engine.llm import LLM
from longspan.engine.memory import peak_rss
from longspan.errors import UsageError

FILLS = ("auto", "read", "random")
READ_UP_TO = 16_384
"""Tokens of the longest text that `auto` reads."""
WARM = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """What is to be measured. model: a folder; None: the embedded one. plan: its name. context: tokens of each of
    `batch` texts. reads: how often these are read, where they are. rounds: how often `steps` tokens of each
    text are decoded; 0: not at all. fill: one of `FILLS`. engine: arguments of `LLM`."""

    model: str | None
    plan: str
    context: int
    batch: int
    reads: int
    rounds: int
    steps: int
    fill: str
    threads: int
    engine: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured; None where it was not. Bytes per token are those that have to be read, counted; decode_ms is
    the median step, decode_mean_ms the mean, looking for pages and sealing included, of the median round."""

    plan: str
    context: int
    batch: int
    fill: str
    options: Mapping[str, str]
    prefill_seconds: float | None = None
    prefill_tokens_per_second: float | None = None
    prefill_flops: int | None = None
    matrix_share: float | None = None
    decode_ms: float | None = None
    decode_mean_ms: float | None = None
    decode_tokens_per_second: float | None = None
    weight_bytes: int | None = None
    cache_bytes: int | None = None
    scanned_bytes: int | None = None
    looks_every: int | None = None
    bytes_per_token: float | None = None
    bandwidth_share: float | None = None
    kv_bytes_peak: int | None = None
    disk_bytes: int | None = None
    rss_peak_bytes: int | None = None
    limits: Mapping[str, float] | None = None
    error: str | None = None


def measure(case: Case) -> Row:
    """Load, warm up, repeat; medians. The process's peak memory is that of this row where nothing else ran in it."""
    torch.set_num_threads(case.threads)
    llm = LLM(case.model, rows=case.batch, **case.engine)
    how = filling(case, llm)
    ids = np.random.default_rng(0).integers(0, llm.shape.vocab, (case.batch, case.context))
    prompts: list[list[int]] = ids.tolist()
    # another text than those measured, so that nothing of it could be used again
    warm, _ = read(llm, [prompts[0][::-1][:WARM]])
    decode(llm, warm, 2)
    llm.scheduler.drop(warm[0])
    llm.pool.reset_peak()
    row = Row(case.plan, case.context, case.batch, how, llm.plan.texts)
    seconds: list[float] = []
    ahead = case.rounds * (case.steps + 1)
    texts, taken = (read if how == "read" else fill)(llm, prompts, ahead)
    if how == "read":
        seconds.append(taken)
    for _ in range(case.reads - 1 if how == "read" else 0):
        for text in texts:
            llm.scheduler.drop(text)
        texts, taken = read(llm, prompts, ahead)
        seconds.append(taken)
    if seconds:
        row = _read(row, llm, statistics.median(seconds))
    if case.rounds:
        row = _decoded(row, llm, [decode(llm, texts, case.steps + 1) for _ in range(case.rounds)])
        counted = [cost.reads(llm, text) for text in texts]
        weights = cost.weights(llm)
        row = dataclasses.replace(
            row,
            weight_bytes=weights,
            cache_bytes=sum(one.pages for one in counted) // case.batch,
            scanned_bytes=sum(one.scanned for one in counted) // case.batch,
            looks_every=counted[0].looks_every,
            bytes_per_token=(weights + sum(one.usual for one in counted)) / case.batch,
        )
    return dataclasses.replace(
        row, kv_bytes_peak=llm.pool.peak_bytes, disk_bytes=llm.pool.disk_bytes, rss_peak_bytes=peak_rss()
    )


def filling(case: Case, llm: LLM) -> str:
    """How the texts come into the cache: "read" or "random". Raises UsageError where random is asked for and the plan
    cannot have it."""
    why = refusal(llm.plan)
    if case.fill == "random" and why is not None:
        raise UsageError(f"--fill random: {why}; give --fill read")
    if case.fill != "auto":
        return case.fill
    return "random" if case.context > READ_UP_TO and case.rounds and why is None else "read"


def shares(row: Row, limits: Limits) -> Row:
    """The row with what the machine could do at that time, and what part of it was reached."""
    bandwidth = matrix = None
    if row.bytes_per_token is not None and row.decode_tokens_per_second is not None:
        bandwidth = row.bytes_per_token * row.decode_tokens_per_second / limits.bytes_per_second
    if row.prefill_flops is not None and row.prefill_seconds:
        matrix = row.prefill_flops / row.prefill_seconds / limits.flops_per_second
    return dataclasses.replace(row, bandwidth_share=bandwidth, matrix_share=matrix, limits=dataclasses.asdict(limits))


def _read(row: Row, llm: LLM, seconds: float) -> Row:
    return dataclasses.replace(
        row,
        prefill_seconds=seconds,
        prefill_tokens_per_second=row.batch * row.context / seconds,
        prefill_flops=row.batch * cost.flops(llm, row.context),
    )


def _decoded(row: Row, llm: LLM, rounds: Sequence[Sequence[float]]) -> Row:
    """The first step of a round is a question, and what it costs besides counts in the mean only."""
    step = statistics.median(second for steps in rounds for second in steps[1:])
    mean = statistics.median(statistics.fmean(steps) for steps in rounds)
    return dataclasses.replace(
        row, decode_ms=1000 * step, decode_mean_ms=1000 * mean, decode_tokens_per_second=row.batch / step
    )
