"""What a task, questions, a rate or a quality ask besides: the further parts of the report."""

from __future__ import annotations

import dataclasses
from typing import Any

from longspan.errors import DoesNotFit, UsageError
from longspan.plan import advice
from longspan.plan.capacity import Replica, assumptions, replicas_for
from longspan.plan.cost import Timing, Use, choose
from longspan.plan.hardware import DEVICES, machine
from longspan.plan.latency import COMPUTE, MEASURED, decode_at, prefill
from longspan.plan.machine import Machine
from longspan.plan.memory import CEILING, memory
from longspan.plan.mix import Mix, room
from longspan.plan.report import Case, size
from longspan.plan.tasks import Task, effective


def task_part(case: Case, task: Task) -> dict[str, Any]:
    """Whether the context is what such a task wants."""
    context, trained = case.work.context, case.shape.trained
    reach = effective(case.shape.listed)
    if context < task.least:
        verdict = f"{context:,} are too few: a small case of it has {task.least:,}"
    elif context < task.most:
        verdict = f"{context:,} hold a small case, not a large one"
    elif context >= 4 * task.most:
        verdict = f"{context:,} are more than it needs; a shorter context is cheaper, and read better"
    else:
        verdict = f"{context:,} are enough"
    if task.most > trained:
        verdict += f". The model is trained for {trained:,}"
    elif reach is not None and task.most > reach:
        verdict += f". The model is known to use {reach:,} well (RULER)"
    return {
        "name": task.name,
        "least": task.least,
        "most": task.most,
        "rule": list(task.rule),
        "parts": [dataclasses.asdict(part) for part in task.parts],
        "enough": context >= task.most,
        "effective_tokens": reach,
        "verdict": f"{verdict}.",
    }


def timing(case: Case) -> Timing:
    """The times of this model on this machine, one text at a time. Raises UsageError where the machine is not known."""
    device = _machine(case)

    def at(context: int, new: int = 0) -> Any:
        return dataclasses.replace(case.work, context=max(context, 1), new=new, batch=1)

    def read(tokens: int) -> float:
        return prefill(case.shape, at(tokens), device).seconds.mid

    def step(tokens: int) -> float:
        return decode_at(case.shape, at(tokens), device, tokens).seconds.mid

    def more(cached: int, new: int) -> float:
        return max(
            read(cached + new) - read(cached), step(cached + new)
        )  # a step reads weights and cache once at least

    alone = dataclasses.replace(case, work=dataclasses.replace(case.work, batch=1))
    longest = CEILING if alone.longest is None else alone.longest
    return Timing(read, more, step, longest, max(case.work.new, 1))


def cost_part(case: Case, use: Use, task: Task | None) -> dict[str, Any]:
    """Reading all, reading once, or retrieving. Raises UsageError where the machine is not known."""
    device = _machine(case)
    speed = device.flops * (MEASURED if device.measured else COMPUTE)[1]
    found = choose(timing(case), use, speed, task, effective(case.shape.listed))
    return {
        "corpus": use.corpus,
        "questions_a_day": use.questions,
        "updates_a_day": use.updates,
        "attribution": use.attribution,
        "ttft": use.ttft,
        "price": use.price,
        "best": found.best,
        "why": list(found.why),
        "even": found.even,
        "ways": [dataclasses.asdict(way) for way in found.ways.values()],
    }


def capacity_part(case: Case, mix: Mix, rate: float | None, ttft: float | None) -> dict[str, Any]:
    """Texts at once, and with a rate and a target the devices. Raises UsageError where no limit is known."""
    if case.limit is None:
        raise UsageError("lengths: how many texts fit is known with --hardware or --memory only")
    if (rate is None) != (ttft is None):
        raise UsageError("rate: give --rate and --ttft together: how many devices depends on both")
    work = dataclasses.replace(case.work, batch=1)
    one = memory(case.shape, dataclasses.replace(work, context=max(mix.lengths) + work.new), case.machine)
    pool = case.limit - (one.total - one.cache)

    def held(prompt: int) -> int:
        return memory(case.shape, dataclasses.replace(work, context=prompt + work.new), case.machine).cache

    found = room(mix, held, max(pool, 0))
    part: dict[str, Any] = {
        "lengths": str(mix),
        "pool": max(pool, 0),
        "room": dataclasses.asdict(found),
        "rate": rate,
        "ttft": ttft,
        "served": None,
        "assumptions": [],
        "problem": None,
    }
    if rate is None or ttft is None:
        return part
    device = _machine(case)
    known: dict[int, float] = {}

    def read(prompt: int) -> float:
        if prompt not in known:
            known[prompt] = prefill(case.shape, dataclasses.replace(work, context=prompt, new=0), device).seconds.mid
        return known[prompt]

    def step(batch: int, length: int) -> float:
        together = dataclasses.replace(work, batch=batch, context=length + work.new)
        return decode_at(case.shape, together, device, length).seconds.mid

    replica = Replica(read, step, found.sure, device.devices)
    part["assumptions"] = list(assumptions(work.new))
    try:
        served = replicas_for(replica, mix, rate, work.new, ttft)
    except DoesNotFit as error:
        part["problem"] = str(error)
        return part
    part["served"] = {
        "replicas": served.replicas,
        "devices": served.devices,
        "ttft_p50": served.ttft[0],
        "ttft_p95": served.ttft[1],
        "token": served.token,
        "reading": served.reading,
        "load": served.load,
        "batch": served.batch,
        "waits_for_memory": served.waits,
    }
    return part


def options_part(case: Case, worst: float) -> list[dict[str, Any]]:
    """Plans by expected loss; the best is the first that fits and loses no more than `worst` points. Raises UsageError
    for a loss below 0 or above 100, and where no limit is known."""
    if not 0 <= worst <= 100:
        raise UsageError(f"quality: {worst:g} points; give how many right answers of a hundred may be lost, 0 to 100")
    if case.limit is None:
        raise UsageError("quality: which plan fits is known with --hardware or --memory only")
    found = advice.options(case.shape, case.work, case.machine, case.limit, size, worst, case.weights)
    best = next((option for option in found if option.fits and option.good), None)
    return [
        {
            "words": option.words,
            "bytes": option.bytes,
            "points": option.points,
            "fits": option.fits,
            "good": option.good,
            "best": option is best,
            "dominated": any(_beats(other, option) for other in found),
        }
        for option in found
    ]


def _beats(one: advice.Option, other: advice.Option) -> bool:
    """Whether a plan with no more parts loses no more and takes no more."""
    if one is other or one.points is None or len(one.words.split()) > len(other.words.split()):
        return False
    points = -100.0 if other.points is None else other.points
    return one.points >= points and one.bytes <= other.bytes and (one.points, -one.bytes) != (points, -other.bytes)


def nearest_part(case: Case) -> list[dict[str, Any]]:
    """What would fit; [] where it does, or no limit is known."""
    if case.limit is None:
        return []
    known = {name: machine(name) for name in DEVICES}
    cards = dict(sorted(known.items(), key=lambda pair: (pair[1].memory, -pair[1].bandwidth)))
    found = advice.nearest(
        case.shape, case.work, case.machine, case.limit, size, case.longest or 0, cards, case.weights
    )
    return [dataclasses.asdict(near) for near in found]


def _machine(case: Case) -> Machine:
    why = case.untimed
    if case.machine is not None and case.work.offloaded:
        raise UsageError(f"offload: times and costs cannot be told: {why}; leave out --offload")
    if case.machine is None or why:
        raise UsageError(f"hardware: times and costs cannot be told: {why}; give --hardware NAME, or --calibrate")
    return case.machine
