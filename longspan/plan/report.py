"""All that a plan is known to come to, as the object that `longspan plan --json` prints."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from longspan import spec
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.errors import DoesNotFit, UsageError
from longspan.plan import advice, caches
from longspan.plan.engines import engines
from longspan.plan.latency import Band, Latency, Phase, decode_at, latency
from longspan.plan.machine import Machine
from longspan.plan.memory import CEILING, Memory, max_context, memory
from longspan.plan.resident import resident
from longspan.plan.scaling import advise
from longspan.plan.shape import Shape
from longspan.plan.verdicts import verdicts
from longspan.plan.work import Work

SCHEMA = 1
"""Raised when a key goes or changes its meaning; new keys may come at any time."""
POINTS = 7
"""Lengths of the plot, each twice the one before."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What is asked: a model, the work and a machine. weights: as `advice.WEIGHTS` names them. limit: bytes of a
    device;
    None: not known, so nothing is said of fitting."""

    shape: Shape
    work: Work
    machine: Machine | None
    weights: str = "stored"
    limit: int | None = None

    @property
    def need(self) -> Memory:
        return memory(self.shape, self.work, self.machine)

    @property
    def fits(self) -> bool | None:
        return None if self.limit is None else self.need.total <= self.limit

    @property
    def untimed(self) -> str | None:
        """Why no times can be told; None: they can."""
        if self.machine is None:
            return "no machine was named"
        if self.machine.costs is None and not (self.machine.bandwidth > 0 and self.machine.flops > 0):
            return f"the speeds of {self.machine.name} are not known"
        if self.work.offloaded:
            return "pages in a file are not measured"
        try:
            latency(self.shape, self.work, self.machine)
        except UsageError as error:  # a calibration that does not know this plan or model
            return str(error)
        return None

    @property
    def longest(self) -> int | None:
        """Tokens that fit, 0: none; None: no limit is known."""
        if self.limit is None:
            return None
        try:
            return max_context(self.shape, self.work, self.limit, self.machine)
        except DoesNotFit:
            return 0


def size(shape: Shape, work: Work, machine: Machine | None) -> int:
    """Bytes on the fullest device."""
    return memory(shape, work, machine).total


def report(case: Case) -> dict[str, Any]:
    """The object, without what only questions, tasks and rates ask for (`longspan.plan.asked`)."""
    need = case.need
    longest = case.longest
    untimed = case.untimed
    timed = None if untimed else case.machine
    times = None if timed is None else latency(case.shape, case.work, timed)
    known = advice.expected(case.work, case.weights)
    return {
        "schema_version": SCHEMA,
        "model": _model(case.shape, case.work),
        "work": _work(case),
        "machine": None if case.machine is None else _machine(case.machine),
        "limit": case.limit,
        "fits": case.fits,
        "max_context": None if longest is None or longest >= CEILING else longest,
        "unbounded": longest is not None and longest >= CEILING,
        "memory": _memory(need),
        "resident": _resident(case),
        "engines": [dataclasses.asdict(found) for found in engines(case.shape, case.work)],
        "latency": None if times is None else _latency(times),
        "curve": _curve(case, timed),
        "scaling": _scaling(case),
        "losses": {name: str(loss) if loss else "not measured" for name, loss in known.items()},
        "loss_sources": sorted({loss.source for loss in known.values() if loss}),
        "losses_elsewhere": advice.elsewhere(case.work),
        "warnings": _warnings(case, need, untimed),
        "options": [],
        "nearest": [],
        "task": None,
        "cost": None,
        "capacity": None,
        "export": None,
        "verdicts": [dataclasses.asdict(found) for found in verdicts(case.shape, case.work, case.machine)],
    }


def _model(shape: Shape, work: Work) -> dict[str, Any]:
    kinds = Counter(layer.kind for layer in shape.layers)
    windows = sorted({layer.window for layer in shape.layers if layer.window})
    text = f"{len(shape.layers)} layers"
    if len(kinds) > 1 or "full" not in kinds:
        text += f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})"
    first = next((layer for layer in shape.layers if layer.kv_heads), shape.layers[0])
    return {
        "name": shape.name,
        "source": shape.source,
        "family": shape.family,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "layers": dict(kinds),
        "layers_text": text,
        "windows": windows,
        "heads": first.heads,
        "kv_heads": first.kv_heads,
        "head_dim": first.qk_dim,
        "hidden": shape.hidden,
        "vocab": shape.vocab,
        "tied": shape.tied,
        "trained_tokens": shape.trained,
        "original_tokens": shape.original,
        "rope": shape.rope,
        "kv_bytes_per_token": caches.per_token(shape, work.element),
        "kv_bytes_constant": caches.constant(shape, work.element),
        "notes": list(shape.notes),
    }


def _work(case: Case) -> dict[str, Any]:
    work = case.work
    return {
        "context": work.context,
        "new": work.new,
        "batch": work.batch,
        "format": "dense" if work.format is None else spec.render(work.format, FORMATS),
        "evict": "none" if work.evict is None else spec.render(work.evict, POLICIES),
        "select": "all" if work.select is None else spec.render(work.select, SELECTIONS),
        "offloaded": work.offloaded,
        "weights": case.weights,
        "weight_bits": work.weights,
        "element": work.element,
        "page": work.page,
        "chunk": work.chunk,
        "ranks": work.ranks,
    }


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "name": machine.name,
        "kind": machine.kind,
        "devices": machine.devices,
        "memory": machine.memory,
        "bandwidth": machine.bandwidth,
        "flops": machine.flops,
        "flops8": machine.flops8,
        "link": machine.link,
        "source": machine.source,
        "measured": machine.measured,
    }


def _memory(need: Memory) -> dict[str, Any]:
    parts = [
        {"name": part.name, "bytes": part.bytes, "formula": part.formula, "spread": part.spread, "cache": part.cache}
        for part in need.parts
    ]
    return {
        "total": need.total,
        "low": need.low,
        "high": need.high,
        "cache": need.cache,
        "token": need.token,
        "constant": need.constant,
        "minimum": need.minimum,
        "largest": max(need.parts, key=lambda part: part.bytes).name,
        "parts": parts,
        "notes": list(need.notes),
    }


def _resident(case: Case) -> dict[str, Any] | None:
    """The peak of our engine's process on a machine that was calibrated."""
    if case.machine is None or case.machine.costs is None:
        return None
    held = resident(case.shape, case.work, case.machine)
    return {"total": held.total, "parts": [dataclasses.asdict(part) for part in held.parts]}


def _band(band: Band) -> dict[str, float]:
    return {"low": band.low, "mid": band.mid, "high": band.high}


def _phase(phase: Phase) -> dict[str, Any]:
    terms = [
        {"name": term.name, "seconds": _band(term.seconds), "bound": term.bound, "formula": term.formula}
        for term in phase.terms
    ]
    return {"tokens": phase.tokens, "seconds": _band(phase.seconds), "binds": phase.binds, "terms": terms}


def _latency(times: Latency) -> dict[str, Any]:
    return {
        "prefill": _phase(times.prefill),
        "decode_first": _phase(times.first),
        "decode_last": _phase(times.last),
        "whole": _band(times.whole),
        "tokens_per_second": times.tokens_per_second,
        "attention_share": times.attention_share,
        "linear_flops": times.linear_flops,
        "attention_flops": times.attention_flops,
        "weights_read": times.weights_read,
        "cache_read": times.cache_read,
    }


def lengths(context: int) -> list[int]:
    """Lengths around `context`, each twice the one before."""
    least = max(context // (1 << (POINTS - 2)), 1)
    return [least * 2**i for i in range(POINTS)] if least > 1 else [2**i for i in range(POINTS)]


def _curve(case: Case, timed: Machine | None) -> list[dict[str, Any]]:
    """Memory of a device, and milliseconds of a token, as the context grows."""
    made = []
    for tokens in sorted({*lengths(case.work.context), case.work.context}):
        work = dataclasses.replace(case.work, context=tokens, new=min(case.work.new, tokens - 1))
        step = None if timed is None else decode_at(case.shape, work, timed, tokens).seconds.mid * 1000
        made.append(
            {
                "context": tokens,
                "memory": size(case.shape, work, case.machine),
                "decode_ms": step,
            }
        )
    return made


def _scaling(case: Case) -> dict[str, Any]:
    found = advise(case.shape, case.work.context)
    return {
        "rope": found.rope,
        "factor": found.factor,
        "trains": found.trains,
        "why": found.why,
        "plan": found.plan,
        "evidence": [dataclasses.asdict(evidence) for evidence in found.evidence],
    }


def _warnings(case: Case, need: Memory, untimed: str | None) -> list[str]:
    found = []
    if case.limit is not None and need.total <= case.limit < need.high:
        found.append(
            f"it fits by less than the estimates are sure of: up to {need.high:,} of {case.limit:,} bytes a device"
        )
    if case.machine is not None and untimed:
        found.append(f"no times are told: {untimed}")
    if case.work.evict is not None and case.work.evict.budgets(1)[0] >= case.work.context:
        found.append("the eviction keeps more tokens than there are: it changes nothing")
    if case.work.select is not None and case.work.select.pages is not None:
        read = case.work.select.pages * case.work.page + case.work.select.near
        if read >= case.work.context:
            found.append("the selection reads as many tokens as there are: it changes nothing but the summaries' cost")
    return found
