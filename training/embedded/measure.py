"""The model card's tables: ``python training/embedded/measure.py --model longspan/embedded > tables.md``.

Accuracy per ability at three lengths and with many facts, then what each way of scaling RoPE keeps at 2, 4 and 8
times the trained length. All of it is `longspan eval`; `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from longspan import LLM
from longspan.evals import lookup
from longspan.evals.fact_lookup import FactLookup
from longspan.evals.perplexity import Perplexity
from longspan.evals.suite import evaluate

#: tokens, facts, abilities: fewer facts, or only the abilities with the shortest sentences, where no more fit
ALL, FACTS = tuple(lookup.ABILITIES), ("single", "distractor", "several", "updated", "unknown")
TEXTS = ((256, 6, ALL), (512, 16, ALL), (1024, 16, ALL), (1024, 40, FACTS))
SCALINGS = ("default", "linear:factor={}", "ntk:factor={}", "ntk_by_parts:factor={}", "dynamic", "yarn:factor={}")
TIMES = (2, 4, 8)
STUDIED = ("single", "distractor")


def percent(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "–"
    low, high = figures["interval"]
    return f"{100 * figures['accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def table(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def abilities(model: str | None, questions: int) -> dict[str, Any]:
    """Figures of every ability, by "tokens/facts"."""
    llm = LLM(model)
    found = {}
    for length, facts, asked in TEXTS:
        began = time.perf_counter()
        suite = FactLookup(length=length, facts=facts, samples=questions, abilities=asked)
        found[f"{length}/{facts}"] = evaluate(suite, llm).results.values
        print(f"{length} tokens, {facts} facts: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


def scalings(model: str | None, questions: int) -> dict[str, Any]:
    """Figures of every scaling, by its name and "times"."""
    found: dict[str, Any] = {}
    for scaling in SCALINGS:
        for times in TIMES:
            began = time.perf_counter()
            llm = LLM(model, rope=scaling.format(times))
            length = times * llm.shape.trained
            suite = FactLookup(length=length, samples=questions, abilities=STUDIED)
            found.setdefault(scaling.split(":")[0], {})[str(times)] = {
                "lookup": evaluate(suite, llm).results.values["all"],
                "perplexity": evaluate(Perplexity(length=length, samples=8), llm).results.values["second_half"],
            }
            print(f"{scaling.format(times)}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder [default: the embedded model]")
    parser.add_argument("--questions", type=int, default=500, help="for each ability")
    parser.add_argument("--far-questions", type=int, default=50, help="for each ability and scaling; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()

    figures: dict[str, Any] = {"abilities": abilities(args.model, args.questions)}
    columns = [f"{tokens} tokens, {facts} facts" for tokens, facts, _ in TEXTS]
    groups = list(figures["abilities"].values())
    table(
        ["ability", *columns],
        [[name, *(percent(group["abilities"].get(name)) for group in groups)] for name in lookup.ABILITIES],
    )
    for column, group in zip(columns, groups, strict=True):
        said = group["unknown"]["answerable"]
        print(f'{column}: "{lookup.UNKNOWN}" to {said["said_unknown"]:,} of {said["asked"]:,} answerable questions.\n')
    if args.far_questions:
        figures["scalings"] = scalings(args.model, args.far_questions)
        far = figures["scalings"]
        head = [f"{times}×" for times in TIMES]
        right = [[name, *(percent(by[str(times)]["lookup"]) for times in TIMES)] for name, by in far.items()]
        table(["scaling, right", *head], right)
        foreseen = [
            [name, *(f"{by[str(t)]['perplexity']['perplexity']:.2f}" for t in TIMES)] for name, by in far.items()
        ]
        table(["scaling, perplexity", *head], foreseen)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
