"""A calibration of a machine with models so small that it takes seconds; its figures mean nothing, its form does."""

from __future__ import annotations

import dataclasses
import json

import pytest

from longspan import LLM
from longspan.bench import calibrate
from longspan.bench.probes import Bench, Probe
from longspan.cli.main import call
from longspan.engine.foretell import foretell, shape_of, work_of
from longspan.plan import calibration, features
from longspan.plan.latency import latency

TINY = Probe("tiny", 2, 64, 64, 4, 2, 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "ROWS", {TINY: calibrate.WEIGHTS})
        patch.setattr(calibrate, "BLOCKS", {TINY: calibrate.WEIGHTS})
        patch.setattr(calibrate, "ATTENTION", (TINY,))
        patch.setattr(calibrate, "FAR", {"tiny": 8192})
        patch.setattr(calibrate.machine, "BUFFER", 1 << 24)
        patch.setattr(calibrate.machine, "SIDE", 128)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        told = []
        found = calibrate.calibrate(lambda what, done, total: told.append((done, total)))
        found.save()
        assert told == [(n, len(told)) for n in range(len(told))]
        yield found


def test_every_group_of_costs_is_measured(made):
    groups = {"body.few", "body.many", "token", "summarise", "lanes.many", "select.many", "asked"}
    groups |= {"seal.int8", "seal.int4"}
    for form in features.FORMS:
        groups |= {f"{name}.few.{form}" for name in ("pages", "lanes", "select")}
        groups |= {f"pages.many.{form}", f"evict.{form}"}
    assert set(made.costs.rates) == groups
    assert all(any(some.values()) for some in made.costs.rates.values())
    assert made.costs.base > 100e6
    assert min(made.bandwidth, made.flops, made.memory) > 0


def test_it_is_read_again_and_foretells(made):
    machine = calibration.read().machine
    assert machine == made.machine
    for way in ("dense -", "int8 h2o:budget=2048", "int4 landmark"):
        work = calibrate.work_of(way)
        found = latency(TINY.shape(), dataclasses.replace(work, context=3000, new=128), machine)
        assert found.prefill.seconds.mid > found.first.seconds.mid > 0


def test_an_engine_is_foretold(made, tmp_path):
    from longspan.bench import shapes

    shapes.write(tmp_path, TINY.config())
    llm = LLM(tmp_path, format="int8", memory="64MB", chunk=512)
    work = work_of(llm, 600, 10)
    assert (work.format, work.chunk, work.page, work.weights, work.element) == (llm.plan.format, 512, 64, 16, 2)
    assert shape_of(llm).parameters == llm.shape.parameters
    found = foretell(llm, 600, 10)
    assert found["why_none"] is None
    assert found["prefill_seconds"] > 0
    assert found["decode_ms_per_token"] > 0
    assert found["rss_peak_bytes"] > made.costs.base
    sparse = LLM(tmp_path, prefill="sparse", memory="64MB")
    assert "sparse" in foretell(sparse, 600, 10)["why_none"]


def test_run_says_beside_what_it_measured_what_was_foretold(made, capsys):
    arguments = ["run", "--prompt", "one two three", "--max-new-tokens", "2", "--ignore-eos", "--json"]
    assert call(arguments) == 0
    told = json.loads(capsys.readouterr().out)["predicted"]
    assert told["why_none"] is None
    assert told["prefill_seconds"] > 0


def test_run_without_a_calibration_says_why_nothing_is_foretold(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert call(["run", "--prompt", "one two three", "--max-new-tokens", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["predicted"]
    assert told["prefill_seconds"] is None
    assert "not measured yet" in told["why_none"]


def test_steps_are_timed_where_they_begin(tmp_path):
    from longspan.bench import shapes

    shapes.write(tmp_path, TINY.config())
    bench = Bench(tmp_path, evict="h2o:budget=512", memory="64MB")
    text = bench.text()
    took = bench.read(text, 600)
    assert [(step.first, step.rows, step.asked) for step in took] == [
        (0, 256, False),
        (256, 256, False),
        (512, 88, False),
    ]
    assert all(step.forward > 0 and step.tidy > 0 for step in took)
    answered = bench.answer(text, 3)
    assert [(step.first, step.rows) for step in answered] == [(601, 1), (602, 1), (603, 1)]
