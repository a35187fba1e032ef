"""A calibration is kept, read again, and refused where it says nothing about this machine."""

from __future__ import annotations

import dataclasses
import json

import pytest

from longspan.errors import UsageError
from longspan.plan import calibration
from longspan.plan.calibration import Calibration
from longspan.plan.costs import Costs
from longspan.plan.here import identity

RATES = {"body.few": {"layer": 1e-5, "byte.plain": 2e-11}, "seal.int8": {"number": 0.0}}


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Calibration(identity(), "2026-11-25T03:00:00+00:00", 41.5, 1 << 34, 4e10, 9e11, Costs(RATES, 0.05, 1 << 28))


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_saved_is_read_again(made, tmp_path):
    path = made.save()
    assert path == tmp_path / "longspan" / "calibration.json"
    assert calibration.read() == made
    assert [file.name for file in path.parent.iterdir()] == ["calibration.json"]


def test_it_is_a_machine(made):
    machine = made.machine
    assert (machine.memory, machine.bandwidth, machine.flops, machine.costs) == (1 << 34, 4e10, 9e11, made.costs)
    assert machine.measured
    assert machine.kind == "cpu"


def test_a_relative_cache_folder_is_not_one(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration.place() == tmp_path / ".cache" / "longspan" / "calibration.json"


def test_without_one_the_way_out_is_said(made):
    with pytest.raises(UsageError, match=r"not measured yet; run longspan plan --calibrate"):
        calibration.read()


@pytest.mark.parametrize("name", ["processor", "threads", "kernels", "torch", "longspan"])
def test_of_another_machine_or_version_it_is_refused(made, name):
    path = made.save()
    change(path, identity=identity() | {name: "other"})
    with pytest.raises(UsageError, match=rf"taken with {name} other, and here is .*--calibrate"):
        calibration.read()


def test_fewer_threads_are_another_machine(made):
    import torch

    made.save()
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(UsageError, match="threads"):
            calibration.read()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "values",
    [
        {"schema": 0},
        {"bandwidth": -1.0},
        {"memory": "much"},
        {"costs": {}},
        {"costs": {"rates": {"body.few": {"layer": -1.0}}, "spread": 0.1}},
        {"costs": {"rates": {"body.few": 3}, "spread": 0.1}},
        {"costs": {"rates": {}, "spread": 0.1, "more": 1}},
        {"unknown": 1},
        {"identity": []},
        {"identity": {}},
        {"taken": 5},
        {"memory": float("nan")},
        {"flops": float("inf")},
        {"seconds": "long"},
        {"costs": {"rates": {}, "spread": 0.1, "base": "x"}},
        {"costs": {"rates": {}, "spread": 0.1, "base": -1}},
        {"costs": {"rates": {}, "spread": float("nan")}},
    ],
)
def test_a_damaged_or_older_file_is_refused(made, values):
    change(made.save(), **values)
    with pytest.raises(UsageError, match=r"calibration: .*calibration\.json (is damaged|has schema).*--calibrate"):
        calibration.read()


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_what_is_no_calibration_is_refused(made, text):
    made.save().write_text(text)
    with pytest.raises(UsageError, match="--calibrate"):
        calibration.read()


def test_a_folder_that_cannot_be_written_is_said(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        made.save(tmp_path / "file" / "calibration.json")
    assert dataclasses.replace(made, seconds=1.0).save(tmp_path / "new" / "c.json").exists()
