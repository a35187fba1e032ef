"""Known GPUs and CPUs: what their makers say, and beside it what was measured."""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from typing import Literal

from longspan.errors import UsageError
from longspan.plan.machine import Machine

GB, TB, TERA = 10**9, 10**12, 1e12
_LARGEST = 1024
"""Devices of one machine, at most."""


@dataclass(frozen=True)
class Device:
    """memory: GB (10⁹ bytes) as sold. bandwidth: GB/s of reading it. bf16, fp8: TFLOP/s of dense products of 16-bit and
    8-bit numbers, tensor cores where there are any; never the twice as high figure for sparse ones. fp8 0: it has no
    such units. link: GB/s to another device, in one direction. dense: of the source of bf16, whether it gives the dense
    figure itself (else half of its sparse one). measured: bandwidth GB/s and bf16 TFLOP/s as measured, with how.
    """

    title: str
    memory: float
    bandwidth: float
    bf16: float
    fp8: float
    link: float
    source: str
    dense: bool = True
    kind: Literal["gpu", "cpu"] = "gpu"
    measured: tuple[float, float, str] | None = None
    also: tuple[str, ...] = ()


_NVIDIA = "NVIDIA's datasheet"
_RECALLED = " (from memory)"
_NVLINK3, _NVLINK4, _NVLINK5, _PCIE4, _PCIE5 = 300.0, 450.0, 900.0, 32.0, 64.0
_CPU = "a typical machine, not one product: channels × transfers × 8 bytes, cores × operations × clock"

DEVICES: dict[str, Device] = {
    "rtx-3090": Device("GeForce RTX 3090", 24, 936, 71, 0, _PCIE4, f"NVIDIA GA102 whitepaper{_RECALLED}"),
    "rtx-4090": Device("GeForce RTX 4090", 24, 1008, 165.2, 330, _PCIE4, "NVIDIA Ada whitepaper, dense figures"),
    "rtx-5090": Device("GeForce RTX 5090", 32, 1792, 209.5, 419, _PCIE5, f"NVIDIA Blackwell whitepaper{_RECALLED}"),
    "t4": Device("T4", 16, 320, 65, 0, 16.0, f"{_NVIDIA}; float16 alone{_RECALLED}"),
    "l4": Device("L4", 24, 300, 121, 242, _PCIE4, f"{_NVIDIA}, half of its sparse figures{_RECALLED}", dense=False),
    "a10": Device("A10", 24, 600, 125, 0, _PCIE4, f"{_NVIDIA}{_RECALLED}"),
    "l40s": Device("L40S", 48, 864, 362, 733, _PCIE4, f"{_NVIDIA}, half of its sparse figures", dense=False),
    "rtx-6000-ada": Device(
        "RTX 6000 Ada", 48, 960, 364, 728, _PCIE4, f"{_NVIDIA}, half of its sparse figures{_RECALLED}", dense=False
    ),
    "v100": Device("V100 SXM 32 GB", 32, 900, 125, 0, 150.0, f"{_NVIDIA}; float16 alone{_RECALLED}"),
    "a100-40": Device("A100 40 GB", 40, 1555, 312, 0, _NVLINK3, f"{_NVIDIA}; int8: 624 TOP/s", also=("a100-40gb",)),
    "a100-80": Device("A100 80 GB SXM", 80, 2039, 312, 0, _NVLINK3, _NVIDIA, also=("a100", "a100-80gb", "a100-sxm")),
    "a100-80-pcie": Device("A100 80 GB PCIe", 80, 1935, 312, 0, _PCIE4, _NVIDIA, also=("a100-pcie",)),
    "h100": Device(
        "H100 SXM",
        80,
        3350,
        989,
        1979,
        _NVLINK4,
        f"{_NVIDIA}, half of its sparse figures",
        dense=False,
        also=("h100-sxm", "h100-80"),
    ),
    "h100-pcie": Device(
        "H100 PCIe", 80, 2000, 756, 1513, _PCIE5, f"{_NVIDIA}, half of its sparse figures", dense=False
    ),
    "h200": Device(
        "H200",
        141,
        4800,
        989,
        1979,
        _NVLINK4,
        f"{_NVIDIA}, half of its sparse figures",
        dense=False,
        measured=(4300, 788, "copying memory, and a product of bfloat16 matrices"),
        also=("h200-sxm",),
    ),
    "b200": Device(
        "B200", 180, 8000, 2250, 4500, _NVLINK5, f"{_NVIDIA}, half of its sparse figures{_RECALLED}", dense=False
    ),
    "mi250x": Device("Instinct MI250X", 128, 3277, 383, 0, 50.0, f"AMD's datasheet{_RECALLED}"),
    "mi300x": Device("Instinct MI300X", 192, 5300, 1307, 2615, _PCIE5, f"AMD's datasheet{_RECALLED}"),
    "m2-ultra": Device("Apple M2 Ultra", 192, 800, 27, 0, 0.0, f"Apple's newsroom; float16 of its GPU{_RECALLED}"),
    "m4-max": Device("Apple M4 Max", 128, 546, 34, 0, 0.0, f"Apple's newsroom; float16 of its GPU{_RECALLED}"),
    "cpu-laptop": Device(
        "a laptop: 8 cores, AVX2, 2 channels DDR5-5600", 16, 90, 0.8, 0, 0.0, _CPU, kind="cpu", also=("laptop",)
    ),
    "cpu-desktop": Device(
        "a desktop: 16 cores, AVX2, 2 channels DDR5-6000",
        64,
        96,
        2.0,
        0,
        0.0,
        _CPU,
        kind="cpu",
        also=("desktop", "cpu"),
    ),
    "cpu-server": Device(
        "a server socket: 64 cores, AVX-512 with bfloat16, 12 channels DDR5-4800",
        768,
        460,
        24.0,
        0,
        0.0,
        _CPU,
        kind="cpu",
        also=("server",),
    ),
    "cpu-server-amx": Device(
        "a server socket: 60 cores, AMX, 8 channels DDR5-4800", 512, 307, 100.0, 200.0, 0.0, _CPU, kind="cpu"
    ),
}


def machine(name: str) -> Machine:
    """The machine that a text names: `h100`, or several of it as `h100x8` or `8xh100`.

    Speeds are those of its maker; `source` says what was measured. Raises UsageError, with the nearest names.
    """
    wanted, count = re.sub(r"[\s_]+", "-", name.strip().lower().replace("×", "x")), 1
    key = _key(wanted)
    for pattern in (r"(?P<count>\d+)-?x-?(?P<name>[a-z].*)", r"(?P<name>.*[^-])-?x-?(?P<count>\d+)"):
        match = re.fullmatch(pattern, wanted)
        if key is None and match is not None:
            wanted, count = match["name"], int(match["count"])
            key = _key(wanted)
    if key is None:
        close = difflib.get_close_matches(
            wanted, [*DEVICES, *(n for one in DEVICES.values() for n in one.also)], 4, 0.4
        )
        also = f"did you mean {', '.join(close)}? " if close else ""
        raise UsageError(
            f"hardware: {name[:60]!r} is not known; {also}known: {', '.join(DEVICES)}; several as in h100x8"
        )
    if not 1 <= count <= _LARGEST:
        raise UsageError(f"hardware: {count:,} devices; give from 1 to {_LARGEST:,}")
    one = DEVICES[key]
    source = one.source
    if one.measured is not None:
        speed, flops, how = one.measured
        source += f"; measured: {speed:,g} GB/s and {flops:,g} TFLOP/s ({how})"
    return Machine(
        name=one.title if count == 1 else f"{count} × {one.title}",
        memory=int(one.memory * GB),
        bandwidth=one.bandwidth * GB,
        flops=one.bf16 * TERA,
        flops8=one.fp8 * TERA,
        devices=count,
        link=one.link * GB,
        source=source,
        kind=one.kind,
    )


def resized(what: Machine, size: int) -> Machine:
    """The same machine with so many bytes of memory in each device. Raises UsageError below 1."""
    if size < 1:
        raise UsageError(f"memory: {size:,} bytes of a device; give 1 or more")
    return dataclasses.replace(what, memory=size)


def _key(name: str) -> str | None:
    """The device of the table that has this name, with hyphens or without."""
    plain = name.replace("-", "")
    return next((key for key, one in DEVICES.items() if plain in (n.replace("-", "") for n in (key, *one.also))), None)
