"""What the planner says of an engine that is there: of a machine that was calibrated, seconds and memory beforehand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from longspan.errors import LongspanError
from longspan.plan import calibration
from longspan.plan.latency import latency
from longspan.plan.resident import resident
from longspan.plan.shape import Shape
from longspan.plan.shapes.config import from_config
from longspan.plan.work import Work

if TYPE_CHECKING:
    from longspan.engine.llm import LLM

BITS = {"int8": 8, "int4": 4}
NOTHING: dict[str, Any] = {"prefill_seconds": None, "decode_ms_per_token": None, "rss_peak_bytes": None}


def shape_of(llm: LLM) -> Shape:
    """The model's shape, from its config alone."""
    return from_config(json.loads((llm.path / "config.json").read_text()), llm.path.name)


def work_of(llm: LLM, context: int, new: int) -> Work:
    """A text of `context` tokens, of which the last `new` are generated, under the engine's plan."""
    return Work(
        context=context,
        new=new,
        format=llm.plan.format,
        evict=llm.plan.evict,
        select=llm.plan.select,
        offloaded=llm.plan.offload is not None,
        element=llm.dtype.itemsize,
        weights=BITS.get(llm.weights, 8 * llm.dtype.itemsize),
        group=64 if llm.weights in BITS else 0,
        page=llm.layout.page,
        chunk=llm.scheduler.chunk,
    )


def why_not(llm: LLM) -> str | None:
    """Why times of this engine are not foretold; None: they are."""
    if llm.device.type != "cpu":
        return f"it runs on {llm.device}, and calibration measures the CPU"
    if llm.plan.prefill is not None:
        return "how much sparse reading leaves out depends on the text"
    if llm.plan.offload is not None:
        return "pages in a file are not measured"
    return None


def foretell(llm: LLM, context: int, new: int) -> dict[str, Any]:
    """Seconds of reading, milliseconds of a generated token, and the process's peak memory; None each, and why, where
    the machine was not calibrated, or the plan is not one that calibration measures."""
    try:
        reason = why_not(llm)
        if reason is not None:
            return {**NOTHING, "why_none": reason}
        machine = calibration.read().machine
        shape, work = shape_of(llm), work_of(llm, context, new)
        found = latency(shape, work, machine)
        held = resident(shape, work, machine).total
    except LongspanError as error:
        return {**NOTHING, "why_none": str(error)}
    each = 1000 * found.answer.mid / new if new else 1000 * found.first.seconds.mid
    return {
        "prefill_seconds": found.prefill.seconds.mid,
        "decode_ms_per_token": each,
        "rss_peak_bytes": held,
        "why_none": None,
    }
