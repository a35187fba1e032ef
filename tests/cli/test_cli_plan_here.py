"""`longspan plan` for this machine, before and after it was calibrated."""

from __future__ import annotations

import dataclasses

import pytest

from longspan.plan.calibration import Calibration
from longspan.plan.costs import Costs
from longspan.plan.here import identity

PLAN = ("plan", "llama-3.1-8b")


@pytest.fixture(autouse=True)
def uncalibrated(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_this_machine_is_known_by_its_memory_alone(cli):
    result = cli("plan", "smollm2-135m", "--context", "2K")
    assert result.code == 0
    assert "Fits" in result.out
    assert "--calibrate" in result.out


RATES = {
    "body.few": {"step": 1e-3, "layer": 1e-5, "byte.plain": 2.5e-11},
    "body.many": {"layer": 1e-4, "flop.plain": 2e-12},
    "token": {"call": 1e-4, "logit": 1e-9},
    "pages.few.dense": {"layer": 1e-5, "read": 2.5e-11},
    "pages.many.dense": {"layer": 1e-5, "pair": 2e-12},
}


def calibrated(**changed):
    made = Calibration(identity(), "2026-11-25T03:00:00+00:00", 41.5, 1 << 34, 4e10, 9e11, Costs(RATES, 0.05, 1 << 28))
    return dataclasses.replace(made, **changed)


def test_this_machine_once_it_was_calibrated(cli):
    calibrated().save()
    found = cli("plan", "smollm2-135m", "--context", "2K", "--json")
    assert found.code == 0
    assert found.json["machine"]["measured"]
    assert found.json["limit"] == 1 << 34
    assert found.json["latency"]["decode_last"]["binds"].endswith("(measured)")
    assert found.json["resident"]["total"] > 1 << 28
    assert "peaks at" in cli("plan", "smollm2-135m", "--context", "2K", "--hardware", "this").out


def test_what_a_calibration_does_not_know_is_said(cli):
    calibrated().save()
    result = cli("plan", "smollm2-135m", "--context", "2K", "--format", "fp8")
    assert result.code == 0
    assert "no times are told: calibration: it has no costs of" in " ".join(result.out.split())
    priced = cli("plan", "smollm2-135m", "--context", "2K", "--format", "fp8", "--price", "1")
    assert priced.code == 2
    assert "times and costs cannot be told" in priced.err


def test_a_calibration_of_another_machine(cli):
    calibrated(identity=identity() | {"threads": "99"}).save()
    asked = cli("plan", "smollm2-135m", "--context", "2K", "--hardware", "this")
    assert (asked.code, asked.out) == (2, "")
    assert "taken with threads 99" in asked.err
    unasked = cli("plan", "smollm2-135m", "--context", "2K")
    assert unasked.code == 0
    assert "its memory alone counts" in unasked.err
    assert "of this machine are not known" in " ".join(unasked.out.split())


def test_calibrating(cli, monkeypatch):
    monkeypatch.setattr("longspan.bench.calibrate.calibrate", lambda told: calibrated())
    alone = cli("plan", "--calibrate", "--json")
    assert alone.code == 0
    assert alone.json["bytes_per_second"] == 4e10
    before = cli("plan", "smollm2-135m", "--context", "2K", "--calibrate", "--json")
    assert before.json["machine"]["measured"]
