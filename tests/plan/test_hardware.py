"""The table of machines, by the names that people write."""

from __future__ import annotations

import pytest

from longspan.errors import UsageError
from longspan.plan.hardware import DEVICES, machine, resized

# GB, GB/s, dense bf16 and fp8 TFLOP/s
TABLE = {
    "rtx-4090": (24, 1008, 165.2, 330),
    "a100-40": (40, 1555, 312, 0),
    "a100-80": (80, 2039, 312, 0),
    "a100-80-pcie": (80, 1935, 312, 0),
    "h100": (80, 3350, 989, 1979),
    "h100-pcie": (80, 2000, 756, 1513),
    "h200": (141, 4800, 989, 1979),
    "l40s": (48, 864, 362, 733),
    "mi300x": (192, 5300, 1307, 2615),
}


@pytest.mark.parametrize("name", TABLE)
def test_datasheets(name: str):
    found = machine(name)
    memory, bandwidth, bf16, fp8 = TABLE[name]
    assert (found.memory, found.bandwidth) == (memory * 10**9, bandwidth * 10**9)
    assert (found.flops / 1e12, found.flops8 / 1e12) == pytest.approx((bf16, fp8))
    assert found.source
    assert not found.measured


def test_measured_beside_the_datasheet():
    assert "measured: 4,300 GB/s and 788 TFLOP/s" in machine("h200").source
    assert "measured" not in machine("h100").source


@pytest.mark.parametrize(
    ("text", "title", "devices"),
    [
        ("H100", "H100 SXM", 1),
        ("h100x8", "8 × H100 SXM", 8),
        ("8xh100", "8 × H100 SXM", 8),
        ("4 × A100-80", "4 × A100 80 GB SXM", 4),
        ("RTX 4090", "GeForce RTX 4090", 1),
        ("rtx4090x2", "2 × GeForce RTX 4090", 2),
        ("mi300x", "Instinct MI300X", 1),
        ("mi300xx8", "8 × Instinct MI300X", 8),
    ],
)
def test_names(text: str, title: str, devices: int):
    found = machine(text)
    assert (found.name, found.devices) == (title, devices)
    assert (
        found.memory
        == DEVICES[next(k for k, one in DEVICES.items() if one.title == title.split(" × ")[-1])].memory * 1e9
    )


def test_what_is_not_known():
    with pytest.raises(UsageError, match="'h1000' is not known; did you mean h100"):
        machine("h1000")
    with pytest.raises(UsageError, match="known: rtx-3090"):
        machine("")
    for count in ("h100x0", "h100x9999"):
        with pytest.raises(UsageError, match="give from 1 to 1,024"):
            machine(count)
    assert resized(machine("h100"), 10**9).memory == 10**9
    with pytest.raises(UsageError, match="give 1 or more"):
        resized(machine("h100"), 0)


def test_every_entry_is_told_where_it_is_from():
    for name, one in DEVICES.items():
        assert machine(name).name == one.title
        assert one.source
        assert one.dense or "half of its sparse" in one.source
        assert machine(name).kind == ("cpu" if name.startswith("cpu") else "gpu")
