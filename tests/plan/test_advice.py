"""Which plan meets a budget, and what would fit: against the memory that plans are counted with."""

from __future__ import annotations

import dataclasses

import by_hand
import pytest

from longspan import spec
from longspan.cache.eviction import POLICIES
from longspan.cache.formats.int4 import Int4
from longspan.cache.formats.int8 import Int8
from longspan.errors import DoesNotFit, UsageError
from longspan.plan import asked
from longspan.plan.advice import expected, nearest, options, replace_weights
from longspan.plan.cost import Use
from longspan.plan.hardware import machine
from longspan.plan.memory import max_context
from longspan.plan.mix import Mix
from longspan.plan.report import Case, lengths, report, size
from longspan.plan.shapes.find import find
from longspan.plan.tasks import task_named
from longspan.plan.work import Work

LLAMA = find("llama-3.1-8b")
H100 = machine("h100")
MILLION = Work(1 << 20, new=256)


def case(shape=LLAMA, work=MILLION, device=H100, **more):
    return Case(shape, work, device, limit=device.memory, **more)


def test_plans_come_by_loss_and_are_what_they_say():
    found = options(LLAMA, MILLION, H100, H100.memory, size, 5.0)
    points = [option.points for option in found]
    assert points == sorted(points, reverse=True)
    assert found[0].words == ""
    for option in found:
        assert option.bytes == size(LLAMA, option.work, H100)
        assert option.fits == (option.bytes <= H100.memory)
        assert option.good == (option.points >= -5.0)
        assert option.work.context == MILLION.context
    best = next(option for option in found if option.fits and option.good)
    assert best.words == "--format int4"
    assert {word for option in found for word in option.words.split() if word.startswith("--")} == {
        "--format",
        "--weights",
        "--select",
        "--offload",
        "--evict",
    }


def test_what_was_asked_for_stays_in_every_plan():
    kept = dataclasses.replace(MILLION, evict=spec.parse("keydiff:budget=65536", POLICIES, "evict"))
    found = options(LLAMA, kept, H100, H100.memory, size, 100.0)
    assert all(option.work.evict == kept.evict and option.work.select is None for option in found)
    coded = options(LLAMA, dataclasses.replace(MILLION, format=Int4()), H100, H100.memory, size, 100.0)
    assert len(coded) > 3
    eight = dataclasses.replace(MILLION, format=Int8())
    assert {type(option.work.format) for option in options(LLAMA, eight, H100, H100.memory, size, 9.0)} == {Int8, Int4}
    assert all(isinstance(option.work.format, Int4) for option in coded)


def test_heads_that_thirty_two_does_not_divide():
    odd = by_hand.dense(head_dim=80)
    words = [option.words for option in options(odd, MILLION, H100, H100.memory, size, 5.0)]
    assert "--format int8:group=20" in words or "--format int8:group=16" in words
    assert asked.nearest_part(case(odd))


def test_what_a_plan_loses():
    assert expected(MILLION) == {}
    tight = dataclasses.replace(MILLION, evict=spec.parse("h2o:budget=4096", POLICIES, "evict"), format=Int4())
    found = expected(tight, "fp8")
    assert found["int4"].points == 0.0
    assert found["h2o"] is None  # so little was not measured
    assert found["weights fp8"] is None
    loose = dataclasses.replace(MILLION, evict=spec.parse("h2o:budget=524288", POLICIES, "evict"))
    assert expected(loose)["h2o:budget=524288"].points == -69.0
    unmeasured = next(o for o in options(LLAMA, tight, H100, H100.memory, size, 100.0) if o.points is None)
    assert not unmeasured.good


@pytest.mark.parametrize(
    ("name", "context", "hardware"),
    [
        ("llama-3.1-8b", 1 << 20, "h100"),
        ("llama-3.1-70b", 131072, "h100"),
        ("gemma-3-27b", 1 << 17, "rtx-4090"),
        ("deepseek-v3", 1 << 17, "h200x8"),
        ("llama-4-scout", 10_485_760, "h100x8"),
        ("gpt-oss-20b", 1 << 17, "rtx-3090"),
        ("qwen3.5-27b", 1 << 18, "l40s"),
    ],
)
def test_what_would_fit_does(name, context, hardware):
    device = machine(hardware)
    shape, work = find(name), Work(context, new=256, batch=4, ranks=device.devices)
    if size(shape, work, device) <= device.memory:
        pytest.fail(f"{name} fits; ask for more")
    found = asked.nearest_part(case(shape, work, device))
    assert found
    for near in found:
        assert near["bytes"] <= near["limit"]
    shorter = next((near for near in found if near["kind"] == "context"), None)
    try:
        longest = max_context(shape, work, device.memory, device)
    except DoesNotFit:
        longest = 0
    assert (shorter is not None) == (256 < longest < context)
    fewer = next((near for near in found if near["kind"] == "batch"), None)
    if fewer is not None:
        batch = int(fewer["words"].split()[1])
        assert size(shape, dataclasses.replace(work, batch=batch), device) <= device.memory
        assert size(shape, dataclasses.replace(work, batch=batch + 1), device) > device.memory


def test_where_it_fits_nothing_else_is_named():
    assert nearest(LLAMA, Work(4096), H100, H100.memory, size, 4096, {}) == []
    assert asked.nearest_part(case(work=Work(4096))) == []
    assert asked.nearest_part(Case(LLAMA, MILLION, None)) == []


def test_weights():
    assert replace_weights(LLAMA, MILLION, "stored").weights == 16
    assert replace_weights(LLAMA, MILLION, "int4").group == 64
    with pytest.raises(UsageError, match="known: stored, fp8"):
        replace_weights(LLAMA, MILLION, "int2")


@pytest.mark.parametrize("context", [2, 3, 64, 100, 4096, 100_000, 1 << 20])
def test_lengths_of_the_plot_lie_around_the_context(context):
    found = lengths(context)
    assert found == sorted(set(found))
    assert min(found) <= context
    assert context <= max(found)


def test_the_shortest_texts_there_are():
    made = report(case(work=Work(2, new=1)))
    assert made["fits"]
    assert [point["context"] for point in made["curve"]][:2] == [1, 2]


def test_texts_at_once_hold_what_fits():
    part = asked.capacity_part(case(work=Work(32768, new=256)), Mix.parse("32K"), None, None)
    many = part["room"]["worst"]
    assert many > 1
    held = Work(32768 + 256, new=256, batch=many)
    assert size(LLAMA, held, H100) <= H100.memory * 1.001  # its activations grow a little with the texts
    assert size(LLAMA, dataclasses.replace(held, batch=many + 1), H100) > H100.memory
    assert part["served"] is None


def test_rates_are_served_and_the_assumptions_told():
    part = asked.capacity_part(case(work=Work(8192, new=256)), Mix.parse("4K:70,8K:30"), 4.0, 2.0)
    assert part["served"]["ttft_p95"] <= 2.0
    assert part["served"]["devices"] >= 1
    assert len(part["assumptions"]) == 5
    with pytest.raises(UsageError, match="together"):
        asked.capacity_part(case(), Mix.parse("4K"), 4.0, None)
    with pytest.raises(UsageError, match="--hardware or --memory"):
        asked.capacity_part(Case(LLAMA, MILLION, None), Mix.parse("4K"), None, None)


def test_costs_follow_the_price_and_the_times():
    part = asked.cost_part(case(work=Work(131072, new=128)), Use(100_000, price=2.0), task_named("document-qa"))
    ways = {way["name"]: way for way in part["ways"]}
    assert ways["cached"]["ttft"] < ways["rag"]["ttft"] < ways["hybrid"]["ttft"] < ways["cold"]["ttft"]
    assert ways["cold"]["dollars"] == pytest.approx(ways["cold"]["seconds"] * 2 / 3600)
    assert part["best"] in ways
    assert any("32,768 tokens well" in reason for reason in part["why"])
    with pytest.raises(UsageError, match="--calibrate"):
        asked.cost_part(Case(LLAMA, MILLION, None), Use(1000), None)


def test_a_task_and_a_context():
    book = task_named("book")
    assert "too few" in asked.task_part(case(work=Work(8192)), book)["verdict"]
    assert asked.task_part(case(work=Work(1 << 19)), book)["enough"]
    assert "more than it needs" in asked.task_part(case(work=Work(131072)), task_named("chat"))["verdict"]
    assert "use 32,768 well" in asked.task_part(case(work=Work(131072)), task_named("multi-document"))["verdict"]
    untold = asked.task_part(case(by_hand.dense(), Work(131072)), task_named("chat"))
    assert untold["effective_tokens"] is None
