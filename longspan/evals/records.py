"""Evaluations that were done, as the JSON that `longspan eval … --json` prints: read, checked, and in one form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longspan.errors import UsageError

COMPARISON = "comparison.json"
"""In the folder of a comparison, the file that lists its evaluations in their order."""
USUAL = {"format": "dense", "evict": "none", "select": "all", "place": "text", "prefill": "dense", "offload": "none"}
FULL = "full"
"""The name of the plan that leaves everything as it is."""
REGIMES = {"agnostic": "query-agnostic", "aware": "query-aware"}
DECILES = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer (value: its score, weight: 1) or a window (value: its nats, weight: tokens that they are of).

    group: the task. case: the text; questions about the same text are no independent samples. key: equal where two
    plans were given the same. length: tokens that were asked for. depth: 0 … 1, or None. deciles: of a window, tokens
    and nats of each tenth of its positions.
    """

    group: str
    case: str
    key: str
    length: int
    value: float
    weight: float
    depth: float | None = None
    deciles: tuple[tuple[float, float], ...] = ()

    def times(self, factor: float) -> Sample:
        """It, counting so many times."""
        return replace(self, value=factor * self.value, weight=factor * self.weight)


@dataclass(frozen=True)
class Record:
    """One evaluation of one plan. told: all that its JSON says. windows: whether its samples are those of a text that
    was foreseen (perplexity) and not answers. facts: whether they are about facts of one text, each drawn by itself.
    regime: None for windows."""

    plan: str
    suite: str
    regime: str | None
    windows: bool
    facts: bool
    settings: Mapping[str, Any]
    samples: tuple[Sample, ...]
    told: Mapping[str, Any] = field(repr=False)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(sorted({one.length for one in self.samples}))

    @property
    def setup(self) -> str:
        """Equal for evaluations that may stand in one table: all that is not the plan."""
        return _key(self._of, self.settings)

    @property
    def study(self) -> str:
        """Equal for evaluations that may stand in one figure: the same but for the length."""
        left = ("length", "lengths")
        return _key(self._of, {name: value for name, value in self.settings.items() if name not in left})

    @property
    def _of(self) -> list[Any]:
        told = (self.told.get(name) for name in ("model", "dtype", "weights", "device"))
        return [self.suite, self.regime, *told, self.told.get("contents") or None]

    def number(self, name: str) -> float | None:
        """A figure of the JSON; None where it is not there."""
        value = self.told.get(name)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Loaded:
    """records, in order. failures: of plans that came to no result, the plan, the suite and why. baseline: the plan
    that a comparison was made against."""

    records: tuple[Record, ...]
    failures: tuple[tuple[str, str, str], ...] = ()
    baseline: str | None = None


def load(paths: Seq[Path]) -> Loaded:
    """The evaluations in files, in the folders of comparisons, or in folders that hold nothing else as JSON.

    Raises UsageError for what cannot be read, is no evaluation, or is there twice.
    """
    records: list[Record] = []
    failures: list[tuple[str, str, str]] = []
    baseline = None
    for path in paths:
        for file, told in _opened(path):
            if file.name == COMPARISON:
                failures += [(one["plan"], one["suite"], one["error"]) for one in told["failures"]]
                baseline = baseline or told.get("baseline")
            else:
                records.append(read(told, str(file)))
    seen = set()
    for record in records:
        if (record.setup, record.plan) in seen:
            raise UsageError(
                f"two evaluations of plan {record.plan!r} on {record.suite} with the same settings; leave one out"
            )
        seen.add((record.setup, record.plan))
    return Loaded(tuple(records), tuple(failures), baseline)


def read(told: Mapping[str, Any], where: str) -> Record:
    """An evaluation from its JSON. Raises UsageError naming `where` it came from and what is wrong."""
    try:
        suite, settings = str(told["suite"]), dict(told["settings"])
        windows = any("nats" in one for one in told["samples"])
        facts = any("right" in one for one in told["samples"])
        samples = tuple(_sample(suite, one, settings) for one in told["samples"])
        plan = str(told.get("plan") or label(told))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{where}: not the JSON of an evaluation ({what}); give what longspan eval … --json prints"
        ) from None
    if not samples:
        raise UsageError(f"{where}: the evaluation has no samples")
    if len({one.key for one in samples}) < len(samples):
        raise UsageError(f"{where}: a sample is there twice")
    regime = None if windows else told.get("regime")
    if not windows and regime not in REGIMES:
        raise UsageError(f"{where}: regime {regime!r}; known: {', '.join(REGIMES)}")
    return Record(plan, suite, regime, windows, facts, settings, samples, told)


def label(told: Mapping[str, Any]) -> str:
    """A name for a plan: what in it is not as usual."""
    return " ".join(str(told[name]) for name, usual in USUAL.items() if told.get(name, usual) != usual) or FULL


def _opened(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Files with their JSON. Of a comparison its list first, then its evaluations."""
    if not path.is_dir():
        told = _json(path)
        if path.name != COMPARISON:
            return [(path, told)]
        return [(path, told), *((path.parent / name, _json(path.parent / name)) for name in _listed(path, told))]
    if (path / COMPARISON).is_file():
        return _opened(path / COMPARISON)
    found = sorted(path.glob("*.json"))
    if not found:
        raise UsageError(f"{path}: no .json files in this folder; give one with evaluations or a comparison in it")
    return [(file, _json(file)) for file in found]


def _listed(path: Path, told: Mapping[str, Any]) -> list[str]:
    """The files that the list of a comparison names."""
    try:
        complete = all({"plan", "suite", "error"} <= one.keys() for one in told["failures"])
        names = [str(one["file"]) for one in told["evaluations"]]
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UsageError(f"{path}: not the list of a comparison; give a folder that longspan eval compare --out made")
    return names


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise UsageError(f"{path}: not JSON ({error})") from None
    if not isinstance(told, dict):
        raise UsageError(f"{path}: not a JSON object; give what longspan eval … --json prints")
    return told


def _sample(suite: str, one: Mapping[str, Any], settings: Mapping[str, Any]) -> Sample:
    return _window(suite, one) if "nats" in one else _answer(_scored(suite, one, settings))


def _scored(suite: str, one: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A fact that was looked up in the one text of all facts, as `longspan.evals.cases.Scored` has it: what chance
    drew is the fact, so each counts as a case."""
    if "right" not in one:
        return one
    added = {"group": suite, "length": settings["length"], "turn": 0, "references": [one["expected"]]}
    return {**one, **added, "score": float(one["right"])}


def _answer(one: Mapping[str, Any]) -> Sample:
    depth = one.get("depth")
    return Sample(
        group=str(one["group"]),
        case=_key(one["group"], one["length"], one["index"]),
        key=_key(*(one[name] for name in ("group", "length", "index", "turn", "question", "references"))),
        length=int(one["length"]),
        value=_share(one["score"], "score"),
        weight=1.0,
        depth=None if depth is None else _share(depth, "depth"),
    )


def _window(suite: str, one: Mapping[str, Any]) -> Sample:
    parts = list(zip(one["part_tokens"], one["part_nats"], strict=True))
    if len(parts) != DECILES:
        raise ValueError(f"a window in {len(parts)} parts, not {DECILES}")
    return Sample(
        group=suite,
        case=_key(one["length"], one["index"]),
        key=_key(*(one[name] for name in ("length", "index", "start", "tokens"))),
        length=int(one["length"]),
        value=_finite(one["nats"], "nats"),
        weight=_finite(one["tokens"], "tokens"),
        deciles=tuple((_finite(tokens, "part_tokens"), _finite(nats, "part_nats")) for tokens, nats in parts),
    )


def _share(value: Any, what: str) -> float:
    if not 0 <= _finite(value, what) <= 1:
        raise ValueError(f"{what} {value!r} is not from 0 to 1")
    return float(value)


def _finite(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} {value!r} is no number")
    return float(value)


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, ensure_ascii=False)
