"""What was measured of this machine, as a file in the user's cache folder."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from longspan.errors import UsageError
from longspan.plan import costs
from longspan.plan.here import identity
from longspan.plan.machine import Machine

SCHEMA = 5
AGAIN = "run longspan plan --calibrate"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """identity: of the machine (`here.identity`). taken: when, as ISO 8601. seconds: that it took. memory: bytes of the
    machine. bandwidth: bytes per second of reading memory. flops: operations per second of a product of bfloat16
    matrices."""

    identity: dict[str, str]
    taken: str
    seconds: float
    memory: int
    bandwidth: float
    flops: float
    costs: costs.Costs

    @property
    def machine(self) -> Machine:
        """As plans take it."""
        return Machine(
            name=f"this machine ({self.identity['processor']}, {self.identity['threads']} threads)",
            memory=self.memory,
            bandwidth=self.bandwidth,
            flops=self.flops,
            source=f"measured on {self.taken[:10]}",
            measured=True,
            kind="cpu",
            costs=self.costs,
        )

    def save(self, path: Path | None = None) -> Path:
        """Write it down, whole or not at all. Raises UsageError where that cannot be."""
        path = path or place()
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1))
            partial.replace(path)
        except OSError as error:
            raise UsageError(f"calibration: {path} cannot be written ({error.strerror})") from None
        return path


def place() -> Path:
    """Where it is kept: in $XDG_CACHE_HOME, or ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(folder) if folder.startswith("/") else Path.home() / ".cache") / "longspan" / "calibration.json"


def _check(found: Calibration) -> None:
    """Raises ValueError for what was read and is no such thing."""
    known = found.identity
    if not isinstance(known, dict) or not all(isinstance(known.get(name), str) for name in ("processor", "threads")):
        raise ValueError("identity")
    if not isinstance(found.taken, str):
        raise ValueError("taken")
    for name, value, whole, least in (
        ("memory", found.memory, True, 1),
        ("costs.base", found.costs.base, True, 0),
        ("bandwidth", found.bandwidth, False, 1),
        ("flops", found.flops, False, 1),
        ("seconds", found.seconds, False, 0),
        ("costs.spread", found.costs.spread, False, 0),
    ):
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < 1e18:
            raise ValueError(f"{name} is {value!r:.40}")


def read(path: Path | None = None) -> Calibration:
    """What was measured of this machine. Raises UsageError where nothing was, where the file is damaged or of another
    version, and where the machine, the threads or what runs on it are others than then."""
    path = path or place()
    try:
        given: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"calibration: this machine was not measured yet; {AGAIN}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"calibration: {path} cannot be read ({error}); {AGAIN}") from None
    schema = given.pop("schema", None) if isinstance(given, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"calibration: {path} has schema {schema}, this longspan reads {SCHEMA}; {AGAIN}")
    try:
        some = given.pop("costs")
        made = costs.Costs(**{**some, "rates": costs.check(some["rates"])})
        found = Calibration(**given, costs=made)
        _check(found)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UsageError(f"calibration: {path} is damaged ({error}); {AGAIN}") from None
    here = identity()
    for name in here.keys() | found.identity.keys():
        then, now = found.identity.get(name), here.get(name)
        if then != now:
            raise UsageError(f"calibration: it was taken with {name} {then}, and here is {now}; {AGAIN}")
    return found
