"""One table of both sides' answers, with paired differences from the whole cache.

    python benchmarks/kvpress/table.py samples.jsonl ours.jsonl theirs.jsonl
    python benchmarks/kvpress/table.py samples.jsonl ours.jsonl theirs.jsonl --versus "keydiff 0.5" "KeyDiff 0.5"

Scores are the share of whole answers right, in percent; points are those won or lost against longspan's whole cache in
the same questions. Bytes are percent of the whole cache's keys and values. "Held": that the cache owns; for a press
that masks, all of it. "Left": without what is only masked. Intervals of 95 % come from 2,000 bootstrap samples of
texts, since questions share one. --versus: the paired difference of the first from the second.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longspan.evals import lookup

TOKEN = 6 * 2 * 2 * 64 * 2
DRAWS = 2000


@dataclass
class Way:
    """A method at a share. right: of each text, whether each question was answered right."""

    side: str
    name: str
    gone: float
    held: float = 0.0
    left: float = 0.0
    file: float = 0.0
    options: str = ""
    right: list[list[bool]] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--versus", nargs=2, action="append", default=[], metavar=("OURS", "THEIRS"))
    parser.add_argument("--aware", action="store_true", help="the rows are of that regime")
    given = parser.parse_args()
    samples = [json.loads(line) for line in given.samples.open()]
    theirs = [json.loads(line) for line in given.theirs.open()]
    if given.aware:
        theirs = joined(samples, theirs)
    samples = samples[: len(theirs)]
    whole = sum(len(sample["context"]) for sample in samples) * TOKEN / len(samples)
    if given.aware:
        whole = sum(len(s["context"]) + len(s["questions"][0]["ids"]) for s in samples) * TOKEN / len(samples)
    ways = {
        f"{way.name} {way.gone:g}": way for way in (*mine(samples, given.ours, whole), *other(samples, theirs, whole))
    }
    base = ways["whole 0"]
    asked = sum(map(len, base.right))
    abilities = list(dict.fromkeys(sample["ability"] for sample in samples))
    print(f"{len(samples)} texts, {asked} questions; whole cache {whole / 1e6:.2f} MB\n")
    print(f"| removed | method | score | points (95 %) | held | left | {' | '.join(abilities)} |")
    print("|---|---|---|---|---|---|" + "---|" * len(abilities))
    for way in sorted(ways.values(), key=lambda way: (way.gone, way.side == "kvpress", -score(way))):
        points = "" if way is base else spelled(way, base)
        held = f"{way.held:.0f} %" + (f" + {way.file:.0f} % in a file" if way.file else "")
        by = " | ".join(f"{share(way, samples, ability):.0f}" for ability in abilities)
        name = f"`{way.options}`" if way.options else way.name
        name += ", answering" * (way.name.endswith(", answering") and bool(way.options))
        removed = f"{100 * way.gone:.0f} %" if way.gone else "–"
        print(f"| {removed} | {way.side} {name} | {score(way):.1f} | {points} | {held} | {way.left:.0f} % | {by} |")
    for one, two in given.versus:
        print(f"\n{one} (ours) against {two} (kvpress): {spelled(ways[one], ways[two])} points")


def mine(samples: list[dict[str, Any]], path: Path, whole: float) -> list[Way]:
    found = []
    for row in map(json.loads, path.open()):
        held = 100 * row["bytes"] / whole
        way = Way("longspan", row["method"], row["gone"], held, held, 100 * row["file"] / whole)
        way.options = " ".join(f"--{name} {value}" for name, value in row["options"].items() if name != "page")
        answers = iter(row["answers"])
        for sample in samples:
            way.right.append([lookup.score(next(answers), q["reference"]) for q in sample["questions"]])
        found.append(way)
    return found


def other(samples: list[dict[str, Any]], rows: list[dict[str, Any]], whole: float) -> list[Way]:
    found = []
    for key in rows[0]:
        name, _, gone = key.rpartition(" ")
        bare = key == "whole" or "quantized" in key
        way = Way(
            "kvpress", f"{key}, transformers" if key == "whole" else key if bare else name, 0 if bare else float(gone)
        )
        way.held = 100 * sum(row[key]["bytes"] for row in rows) / len(rows) / whole
        way.left = 100 * sum(row[key]["left"] for row in rows) / len(rows) / whole
        for sample, row in zip(samples, rows, strict=True):
            asked = zip(row[key]["answers"], sample["questions"], strict=True)
            way.right.append([lookup.score(said, q["reference"]) for said, q in asked])
        found.append(way)
    return found


def joined(samples: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a text again, where each question had a row of its own; texts whose questions are not all there go."""
    made, rest = [], iter(rows)
    for sample in samples:
        some = [row for _, row in zip(sample["questions"], rest, strict=False)]
        if len(some) < len(sample["questions"]):
            break
        made.append(
            {
                key: {
                    "answers": [answer for row in some for answer in row[key]["answers"]],
                    "bytes": sum(row[key]["bytes"] for row in some) / len(some),
                    "left": sum(row[key]["left"] for row in some) / len(some),
                }
                for key in some[0]
            }
        )
    return made


def score(way: Way) -> float:
    return 100 * sum(map(sum, way.right)) / sum(map(len, way.right))


def share(way: Way, samples: list[dict[str, Any]], ability: str) -> float:
    some = [x for right, sample in zip(way.right, samples, strict=True) if sample["ability"] == ability for x in right]
    return 100 * sum(some) / len(some)


def spelled(way: Way, base: Way) -> str:
    """The difference in points and its interval."""
    pairs = [(sum(a) - sum(b), len(a)) for a, b in zip(way.right, base.right, strict=True)]
    rng = random.Random(0)
    drawn = []
    for _ in range(DRAWS):
        some = rng.choices(pairs, k=len(pairs))
        drawn.append(100 * sum(d for d, _ in some) / sum(n for _, n in some))
    drawn.sort()
    low, high = drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]
    points = 100 * sum(d for d, _ in pairs) / sum(n for _, n in pairs)
    return f"{points:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
