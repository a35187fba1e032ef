"""Times that a plan foretells, against hand-reckoned ones, and what must never happen."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.plan import counts
from longspan.plan.latency import COMPUTE, MEMORY, decode_at, latency, prefill
from longspan.plan.machine import Machine
from longspan.plan.shape import Layer, Shape
from longspan.plan.work import Work
from longspan.spec import parse

H100 = Machine("H100 SXM", 80 * 10**9, 3.35e12, 989e12, link=450e9)


def model(layers, hidden=4096, vocab=128_256, tied=False):
    head = 0 if tied else vocab * hidden
    return Shape(
        "made",
        "llama",
        tuple(layers),
        hidden,
        14_336,
        vocab,
        vocab * hidden,
        head,
        hidden,
        tied,
        131_072,
        8192,
        5e5,
        {},
    )


def full(kind="full", window=None, **changed):
    attention, mlp = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 4096, 3 * 4096 * 14_336 + 4096
    return dataclasses.replace(Layer(kind, window, 32, 8, 128, 128, attention, mlp, mlp), **changed)


LLAMA = model([full()] * 32)
"""Llama-3.1-8B."""


def plan(context=131_072, **given):
    tables = {"format": FORMATS, "evict": POLICIES, "select": SELECTIONS}
    made = {name: parse(text, tables[name], name) for name, text in given.items() if name in tables}
    given.setdefault("new", min(128, context))
    return Work(context=context, **(given | made))


def test_llama_8b_reads_a_million_tokens_as_reckoned_by_hand():
    assert LLAMA.parameters == 8_030_261_248
    found = latency(LLAMA, plan(1_048_576, new=0), H100)
    linear = 2 * (LLAMA.parameters - 2 * 128_256 * 4096 - 4096) * 1_048_576 + 2 * 128_256 * 4096
    attention = 32 * 32 * 2 * (128 + 128) * 1_048_576 * 1_048_577 // 2
    assert (found.linear_flops, found.attention_flops) == (linear, attention)
    assert found.linear_flops + found.attention_flops == pytest.approx(3.03e17, rel=0.005)
    assert found.attention_share == pytest.approx(0.95, abs=0.005)
    assert found.prefill.seconds.mid == pytest.approx(510, abs=1)
    assert found.prefill.binds == "attention (compute)"
    assert found.last.binds == "cache (bandwidth)"


def test_a_decoded_token_reads_the_weights_and_the_cache():
    found = decode_at(LLAMA, plan(), H100, 8192)
    weights = 2 * (LLAMA.parameters - 128_256 * 4096 - 4096)  # not the embedding
    cache = 8192 * 32 * 2 * 8 * 128 * 2
    seconds = {term.name: term.seconds.mid for term in found.terms}
    assert seconds["weights"] == pytest.approx(weights / (3.35e12 * MEMORY[1]))
    assert seconds["cache"] == pytest.approx(cache / (3.35e12 * MEMORY[1]))
    assert found.seconds.low < found.seconds.mid < found.seconds.high
    assert found.seconds.low / found.seconds.mid == pytest.approx(MEMORY[1] / MEMORY[2])


def test_a_batch_shares_the_weights_but_not_the_cache():
    one, many = (decode_at(LLAMA, plan(batch=batch), H100, 8192) for batch in (1, 16))
    first, second = ({term.name: term.seconds.mid for term in found.terms} for found in (one, many))
    assert second["weights"] == first["weights"]
    assert second["cache"] == pytest.approx(16 * first["cache"])
    assert prefill(LLAMA, plan(batch=4), H100).seconds.mid == pytest.approx(
        4 * prefill(LLAMA, plan(), H100).seconds.mid, rel=1e-6
    )


def test_a_large_batch_is_bound_by_its_products():
    found = decode_at(LLAMA, plan(batch=1024), H100, 64)
    weights = next(term for term in found.terms if term.name == "weights")
    assert weights.bound == "compute"
    assert weights.seconds.mid == pytest.approx(
        2 * 1024 * (LLAMA.parameters - 128_256 * 4096 - 4096) / (0.6 * 989e12), rel=1e-4
    )


def test_windows_and_chunks_leave_the_square_out():
    sliding, chunked = model([full("sliding", 4096)]), model([full("chunked", 8192)])
    tokens = 100_000
    pair = 32 * 2 * 256
    assert counts.attention_flops(sliding, plan(), tokens) == pair * sum(min(t, 4096) for t in range(1, tokens + 1))
    assert counts.attention_flops(chunked, plan(), tokens) == pair * sum(t % 8192 + 1 for t in range(tokens))
    assert counts.read_cache(sliding, plan(), tokens) == 4096 * 2 * 8 * 128 * 2


def test_what_a_plan_leaves_out_is_not_counted():
    tokens = 65_536
    dense = counts.attention_flops(LLAMA, plan(), tokens)
    evicted, selected = plan(evict="h2o:budget=2048"), plan(select="sketch:pages=8,near=512,sinks=4")
    pair = 32 * counts.pair_flops(full())
    assert counts.attention_flops(LLAMA, evicted, tokens) == pair * counts.triangle(tokens, 2048 + 128)
    assert counts.attention_flops(LLAMA, selected, tokens) == pair * counts.triangle(tokens, 516)
    assert counts.attention_flops(LLAMA, plan(evict="h2o:budget=2048,wait=true"), tokens) == dense
    assert counts.read_cache(LLAMA, evicted, tokens) == (2048 + 128) * 131_072
    assert counts.read_cache(LLAMA, selected, tokens) == (8 + 1 + 1 + 8) * 64 * 131_072
    assert counts.scanned(LLAMA, plan(), tokens) == 0
    size = parse("sketch", SELECTIONS, "select").bytes(64, 128)
    assert counts.scanned(LLAMA, selected, tokens) == 32 * 8 * (1024 - 10) * size / 64


@pytest.mark.parametrize(("format", "bits"), [("int8", 8), ("int4", 4)])
def test_sealed_pages_are_read_as_they_are_stored(format, bits):
    dense, coded = (counts.read_cache(LLAMA, work, 1 << 20) for work in (plan(), plan(format=format)))
    assert bits / 16 < coded / dense < bits / 16 * 1.2  # scales besides


def test_a_mixture_reads_the_experts_that_its_tokens_choose():
    mixture = model([full(mlp=8000, active=2000)] * 2)
    alone, all_of_them = (counts.read_weights(mixture, plan(), rows) for rows in (1, 1000))
    attention, head = 2 * full().attention, 128_256 * 4096
    assert alone == pytest.approx(2 * (attention + 2 * 2000 + head))
    assert all_of_them == pytest.approx(2 * (attention + 2 * 8000 + head))
    assert counts.linear_flops(mixture, plan(), 10, 0) == 2 * 10 * (attention + 2 * 2000)


def test_devices_share_the_work_and_talk_twice_a_layer():
    alone, shared = plan(), plan(ranks=8)
    one, eight = prefill(LLAMA, alone, H100), prefill(LLAMA, shared, H100)
    tokens = 131_072 - 128
    talk = next(term for term in eight.terms if term.name == "communication")
    assert talk.seconds.mid == pytest.approx(2 * 32 * tokens * 2 * 7 / 8 * 4096 * 2 / (450e9 * MEMORY[1]))
    assert eight.seconds.mid - talk.seconds.mid == pytest.approx(one.seconds.mid / 8)
    assert "PCIe" in prefill(LLAMA, shared, dataclasses.replace(H100, link=0.0)).terms[2].formula


def test_heads_that_cannot_be_split_are_read_by_all():
    cache = counts.read_cache(LLAMA, plan(), 8192)
    assert counts.read_cache(LLAMA, plan(ranks=8), 8192) == cache / 8
    assert counts.read_cache(LLAMA, plan(ranks=16), 8192) == cache / 8


def test_latent_and_linear_layers():
    latent = model([full("latent", heads=128, kv_heads=0, qk_dim=192, v_dim=128, latent=576)])
    assert counts.read_cache(latent, plan(format="int4"), 1000) == 1000 * 576 * 2
    assert counts.attention_flops(latent, plan(), 1000) == 2 * 128 * 320 * 500_500
    linear = model([full("linear", heads=0, kv_heads=0, state=1 << 19)])
    assert counts.read_cache(linear, plan(), 10) == counts.read_cache(linear, plan(), 1 << 20) == 2 * 4 * (1 << 19)
    assert counts.attention_flops(linear, plan(), 1000) == 1000 * counts.STATE * (1 << 19)


def test_every_term_says_how_it_is_reckoned():
    found = latency(LLAMA, plan(1 << 20, ranks=2, select="landmark", evict="streaming:budget=65536"), H100)
    for term in (*found.prefill.terms, *found.first.terms, *found.last.terms):
        assert f"{term.seconds.mid:.4g} s" in term.formula
        assert term.seconds.low <= term.seconds.mid <= term.seconds.high
    assert f"{COMPUTE[1]:.0%}" in prefill(LLAMA, plan(), H100).terms[0].formula
    assert found.whole.mid == pytest.approx(
        found.prefill.seconds.mid + 64 * (found.first.seconds.mid + found.last.seconds.mid)
    )
    assert found.tokens_per_second == 1 / found.last.seconds.mid


WAYS = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from(["int8", "int4", "fp8"]),
        "evict": st.sampled_from(["h2o:budget=4096", "streaming:budget=1000", "snapkv:budget=2048,wait=true"]),
        "select": st.sampled_from(["landmark", "sketch:pages=4,near=128", "quest:reading=token,hold=1"]),
        "batch": st.sampled_from([1, 3, 16]),
        "ranks": st.sampled_from([1, 2, 8]),
        "chunk": st.sampled_from([100, 2048]),
        "weights": st.sampled_from([4, 16]),
    },
)
KINDS = [full(), full("sliding", 1024), full("chunked", 2048), full("linear", heads=16, kv_heads=0, state=65_536)]
MIXED = model([*KINDS, full("latent", heads=16, kv_heads=0, latent=576), full(mlp=8000, active=1000)], tied=True)


@settings(max_examples=150)
@given(st.integers(1, 300_000), st.integers(0, 70_000), WAYS)
def test_more_context_never_takes_less_time(context, more, ways):
    short, long = (plan(tokens, new=0, **ways) for tokens in (context, context + more))
    before, after = (latency(MIXED, work, dataclasses.replace(H100, step=1e-4, layer=1e-6)) for work in (short, long))
    for phase in ("prefill", "first", "last"):
        for end in ("low", "mid", "high"):
            least = getattr(getattr(before, phase).seconds, end)
            assert getattr(getattr(after, phase).seconds, end) >= least * (1 - 1e-12)


@settings(max_examples=60)
@given(st.integers(1, 300_000), WAYS)
def test_more_texts_and_more_numbers_never_take_less_time(context, ways):
    work = plan(context, new=0, **ways)
    now = latency(MIXED, work, H100)
    twice = latency(MIXED, dataclasses.replace(work, batch=2 * work.batch), H100)
    wide = latency(MIXED, dataclasses.replace(work, format=None), H100)
    assert twice.prefill.seconds.mid >= now.prefill.seconds.mid
    assert twice.last.seconds.mid >= now.last.seconds.mid
    assert wide.last.seconds.mid >= now.last.seconds.mid * (1 - 1e-12)
