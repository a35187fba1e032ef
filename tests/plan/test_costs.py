"""Times from costs: amounts counted by hand, and what must never happen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_latency import MIXED, model, plan

from longspan.attention import select
from longspan.engine import schedule
from longspan.errors import UsageError
from longspan.plan import features
from longspan.plan.costs import Costs
from longspan.plan.features import Steps
from longspan.plan.latency import latency
from longspan.plan.machine import Machine
from longspan.plan.shape import Layer

PARAMETERS = 2 * 64 * 12 * 16 + 3 * 64 * 256
LAYER = Layer("full", None, 8, 4, 16, 16, 2 * 64 * 12 * 16, 3 * 64 * 256, 3 * 64 * 256)
SMALL = model([LAYER] * 3, hidden=64, vocab=1000, tied=True)

GATHERED = (*(f"gather.{form}" for form in features.FORMS), "score", "product")
OF_PAGES = {
    "pages.few": ("layer", "read", "pair", "exp", "row"),
    "pages.many": ("layer", "read", "pair", "exp", "row"),
    "lanes.few": ("step", *GATHERED),
    "select.few": ("step", "read", "pair", "exp", "row"),
    "evict": ("layer", "lane", "slot", "moved"),
    "seal": ("layer", "number"),
}
KINDS = {
    "body.few": ("step", "layer", "byte.plain", "byte.int8", "byte.int4", "middle", "far"),
    "body.many": ("layer", "weight", "flop.plain", "flop.int8", "flop.int4", "number", "open.int8", "open.int4"),
    "lanes.many": ("layer", *GATHERED),
    "select.many": ("part", *GATHERED),
    "asked": ("part", *GATHERED, "open", "scan"),
    "summarise": ("layer", "number"),
    "token": ("call", "logit"),
    **{f"{group}.{form}": names for group, names in OF_PAGES.items() for form in features.FORMS},
}
COSTS = Costs({group: dict.fromkeys(names, 1e-9) for group, names in KINDS.items()}, 0.05, 1 << 28)
HERE = Machine("here", 1 << 34, 4e10, 9e11, measured=True, kind="cpu", costs=COSTS)


def test_numbers_of_the_engine_are_those_of_the_engine():
    assert features.SCORED == select.SCORED
    assert features.ASKED == schedule.ASKED


def alone(**amounts):
    """Costs of one second for each of these amounts, none for others."""
    rates = {group: dict.fromkeys(names, 0.0) for group, names in KINDS.items()}
    for name, seconds in amounts.items():
        group, _, what = name.replace("__", ".").rpartition(".")
        rates[group] = rates[group] | {what: seconds}
    return dataclasses.replace(HERE, costs=Costs(rates, 0.05))


def test_dense_reading_is_counted_in_steps_of_a_chunk():
    found = features.reading(SMALL, plan(5000, new=0), Steps.of(5000, 2048))
    pairs = sum(range(1, 5001))
    assert found["pages.many.dense", "layer"] == 3 * 3
    assert found["pages.many.dense", "pair"] == 3 * pairs * 8 * 16
    assert found["pages.many.dense", "exp"] == 3 * pairs * 8
    assert found["pages.many.dense", "read"] == 3 * (2048 + 4096 + 5000) * 4 * 16
    assert found["body.many", "flop.plain"] == 2 * 3 * PARAMETERS * 5000
    assert found["body.few", "byte.plain"] == 3 * 1000 * 64 * 2  # the head, of one row a step
    assert not any(group.startswith(("evict", "seal", "asked", "lanes")) for group, _ in found)


def test_with_a_format_steps_end_where_pages_are_sealed():
    work = plan(1000, new=0, format="int8")
    found = features.reading(SMALL, work, Steps.of(1000, 256))
    assert found["pages.many.int8", "layer"] == 3 * 4
    assert found["seal.int8", "layer"] == 3 * 3
    assert found["seal.int8", "number"] == 3 * 3 * 256 * 4 * 16


def test_eviction_holds_a_budget_and_the_step():
    work = plan(2048, new=0, evict="h2o:budget=512")
    found = features.reading(SMALL, work, Steps.of(2048, 256))
    slots = 256 + 512 + 6 * 768
    assert found["lanes.many", "gather.dense"] == found["evict.dense", "slot"] == 3 * slots * 4 * 16
    assert found["lanes.many", "score"] == 3 * 256 * 8 * slots
    assert found["evict.dense", "lane"] == 3 * 8 * 4
    assert found["evict.dense", "moved"] == 3 * 6 * 768 * 4 * 16


def test_selection_reads_a_window_and_its_question_chooses():
    work = plan(4096, new=0, select="landmark:pages=2,near=128,sinks=4")
    found = features.reading(SMALL, work, Steps.of(4096, 256))
    always = 2 + 1 + 1
    assert found["asked", "part"] == 3 * 128 / 64
    assert found["asked", "scan"] == 3 * 128 * (64 - always) * 8 * 16
    assert found["asked", "gather.dense"] == 3 * 128 * (always + 2) * 64 * 4 * 16
    assert found["select.many", "part"] == 3 * (4096 - 128) / 64
    assert found["summarise", "number"] == 3 * 4096 * 4 * 16


def test_a_step_that_answers():
    dense = features.answering(SMALL, plan(1000, batch=3), 900, 0)
    assert dense["body.few", "byte.plain"] == 2 * (3 * PARAMETERS + 64_000)
    assert dense["pages.few.dense", "read"] == pytest.approx(3 * 3 * 901 * 64)
    assert dense["pages.few.dense", "layer"] == 3
    assert (dense["token", "call"], dense["token", "logit"]) == (3, 3000)
    evicted = features.answering(SMALL, plan(1000, evict="h2o:budget=512"), 900, 10)
    assert evicted["lanes.few.dense", "gather.dense"] == 3 * (512 + 10) * 64
    assert evicted["evict.dense", "layer"] == 3 / 256
    chosen = features.answering(SMALL, plan(9000, select="landmark:pages=2,near=128,sinks=4,hold=10"), 8192, 0)
    assert chosen["select.few.dense", "read"] == pytest.approx(3 * 6 * 64 * 64, rel=0.01)
    assert chosen["asked", "part"] == pytest.approx(3 * 12 / 128)  # 12 looks in 128 tokens
    short = features.answering(SMALL, plan(9000, select="landmark:pages=2,near=128,sinks=4,hold=10", new=9), 8192, 0)
    assert short["asked", "part"] == 0
    # where pages and slots stand is told once for all layers
    assert evicted["lanes.few.dense", "step"] == chosen["select.few.dense", "step"] == 1
    assert not {("lanes.few.dense", "layer"), ("select.few.dense", "layer")} & {*evicted, *chosen}


def test_weights_as_codes_are_read_as_codes_and_opened_for_many_rows():
    work = plan(1000, weights=4, group=64)
    few = features.body(SMALL, work, np.array([1]))
    assert few["body.few", "byte.int4"] == 3 * PARAMETERS * (4 / 8 + 2 / 64)
    assert few["body.few", "byte.plain"] == 64_000 * 2
    many = features.body(SMALL, work, np.array([100, 1]))
    assert many["body.many", "flop.int4"] == 2 * 3 * PARAMETERS * 100  # in bytes or not, which takes another time
    assert many["body.many", "flop.plain"] == 0
    assert features.body(SMALL, work, np.array([100, 1]))["body.many", "open.int4"] == 3 * PARAMETERS


@pytest.mark.parametrize(("much", "middle", "far"), [(0.5, 0, 0), (2, 1, 0), (3, 2, 0), (5.5, 2, 2.5)])
def test_what_every_step_reads_again_is_told_apart_by_how_much_it_is(much: float, middle: float, far: float):
    near = features.NEAR
    assert features.far(much * near, 2) == {"middle": 2 * middle * near, "far": 2 * far * near}


def test_cached_tokens_drive_weights_out_of_the_last_cache():
    few = features.answering(SMALL, plan(1_000_000), 1000, 0)
    assert few["body.few", "middle"] == few["body.few", "far"] == 0
    many = features.answering(SMALL, plan(1_000_000), 900_000, 0)
    cache = 3 * 900_000 * 2 * 4 * 16 * 2
    weights = 2 * (3 * PARAMETERS + 64_000)
    assert many["body.few", "middle"] + many["body.few", "far"] == cache + weights - features.NEAR
    assert many["body.few", "middle"] == features.FAR - features.NEAR
    assert many["body.few", "byte.plain"] == weights


def test_terms_are_amounts_times_costs():
    found = latency(SMALL, plan(5000, new=10), alone(pages__many__dense__layer=1e-3, body__few__step=0.5))
    assert [(term.name, term.seconds.mid) for term in found.prefill.terms] == [("attention", pytest.approx(9e-3))]
    assert "9 layer × 0.001 s" in found.prefill.terms[0].formula
    assert found.first.seconds.mid == found.last.seconds.mid == 0.5
    assert found.first.binds == "linear layers (measured)"
    assert found.first.seconds.low == pytest.approx(0.45)
    assert found.answer.mid == pytest.approx(5.0)


def test_costs_that_are_missing_are_said():
    machine = dataclasses.replace(HERE, costs=Costs({"body.few": {}, "body.many": {}}, 0.1))
    with pytest.raises(UsageError, match=r"no costs of pages\.many\.dense; run longspan plan --calibrate"):
        latency(SMALL, plan(5000), machine)


WAYS = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from(["int8", "int4", "fp8"]),
        "batch": st.sampled_from([1, 3, 40]),
        "chunk": st.sampled_from([100, 2048]),
        "weights": st.sampled_from([4, 8, 16]),
    },
)
WAY = st.sampled_from(
    [
        {},
        {"evict": "h2o:budget=700"},
        {"evict": "snapkv:budget=300,wait=true"},
        {"select": "landmark"},
        {"select": "sketch:pages=3,near=64,hold=1"},
    ]
)


@settings(max_examples=150)
@given(st.integers(1, 40_000), st.integers(0, 9000), st.integers(0, 64), WAYS, WAY)
def test_more_context_never_takes_less_time(context, more, new, ways, way):
    layers = [layer for layer in MIXED.layers if layer.kind in ("full", "sliding")]
    shape = model(layers, tied=True)
    new = min(new, context)
    before, after = (latency(shape, plan(tokens, new=new, **ways, **way), HERE) for tokens in (context, context + more))
    for phase in ("prefill", "first", "last"):
        least, most = (getattr(found, phase).seconds.mid for found in (before, after))
        assert most >= least * (1 - 1e-9), phase
