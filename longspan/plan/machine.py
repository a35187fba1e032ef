"""What a plan knows of a machine: its devices' memory and their two speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from longspan.plan.costs import Costs


@dataclass(frozen=True, slots=True)
class Machine:
    """name: as it is known. devices: how many of them. memory: bytes of each. bandwidth: bytes per second of reading
    it. flops: multiplications and additions a second, of dense matrices of 16-bit numbers; flops8: of 8-bit ones. link:
    bytes per second between two devices. step: seconds that a step takes whatever it does (launches, Python); layer:
    seconds of each layer in it. source: where the figures are from; measured: whether on this very machine.
    kind: of the devices. costs: of our own engine there, where it was calibrated; they take the place of all speeds.
    """

    name: str
    memory: int
    bandwidth: float
    flops: float
    flops8: float = 0.0
    devices: int = 1
    link: float = 0.0
    step: float = 0.0
    layer: float = 0.0
    source: str = ""
    measured: bool = False
    kind: Literal["gpu", "cpu"] = "gpu"
    costs: Costs | None = None
