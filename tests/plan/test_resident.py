"""What our engine's process holds at its most, part by part."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_costs import HERE, SMALL
from test_latency import plan

from longspan.errors import UsageError
from longspan.plan.memory import memory
from longspan.plan.resident import resident


def parts(work):
    return {part.name: part.bytes for part in resident(SMALL, work, HERE).parts}


def test_dense_reading_holds_weights_cache_and_a_step():
    found = parts(plan(5000, new=0))
    assert found["process"] == 1 << 28
    assert found["layers"] == 3 * 350_000
    assert found["weights"] == 2 * SMALL.parameters
    assert found["cache"] == memory(SMALL, plan(5000, new=0)).cache
    assert found["activations"] == 2048 * 2 * (3 * 64 + 4 * 14_336)
    assert found["attention"] == 2048 * 8 * 16 * 10


def test_what_is_gathered_is_held_besides():
    evicted = parts(plan(5000, new=0, evict="h2o:budget=512"))["attention"]
    slots = 512 + 128 + 256
    assert evicted == 256 * 8 * 16 * 10 + slots * 4 * 16 * (2 * 2 + 12)
    selected = parts(plan(50_000, new=0, select="landmark:pages=8,near=512"))["attention"]
    chosen = 4 + 512 + 256 + 8 * 64
    scores = 64 * (50_000 // 64) * 8 * 16 * 8
    assert selected == 256 * 8 * 16 * 10 + 64 * chosen * (4 * 32 + 8 * 4) + scores


def test_a_machine_that_was_not_measured_is_refused():
    with pytest.raises(UsageError, match="here was not measured; run longspan plan --calibrate"):
        resident(SMALL, plan(), dataclasses.replace(HERE, costs=None))


@given(
    st.integers(1, 40_000),
    st.integers(0, 9000),
    st.sampled_from([{}, {"evict": "h2o:budget=700"}, {"select": "landmark"}]),
)
def test_more_context_never_holds_less(context, more, way):
    short, long = (resident(SMALL, plan(tokens, new=0, **way), HERE).total for tokens in (context, context + more))
    assert long >= short
