"""longspan's side: the samples under every eviction, format, and selection.

    python benchmarks/kvpress/ours.py samples.jsonl ours.jsonl                        # text read before any question
    python benchmarks/kvpress/ours.py samples.jsonl ours-aware.jsonl --aware          # chosen with the question in view

One JSON object for each method and share of the text that goes: every answer, and the bytes that the cache holds of a
text that was read (the mean; with what an eviction notes of its slots), in memory and in a file. A method that stands
in the file already is not run again, so a run that was stopped goes on; --seconds stops one in time.

Where the question is not known, an eviction's budget is the largest whose bytes, pages and notes together, are at most
those that kvpress's method holds that keeps as large a share of tokens: measured, on a text of the samples. With
--answering they are those that it holds when it has read a question too, which comes on top there and is within the
budget here. With the question in view budgets are tokens, since everything is kept until then and notes have room for
it. Pages are of 16 tokens for evictions, so that a budget is not rounded far, and of 64 otherwise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.engine.session import Session, together

GONE = (0.25, 0.5, 0.75, 0.9)
TOKEN = 6 * 2 * 2 * 64 * 2
"""Bytes of a token in the embedded model's whole cache: 6 layers of 2 KV heads, a key and a value of 64 numbers."""
PAGE = 16
SELECTION = "sketch:pages=8,near=64"
VARIANTS = ("keydiff:recent=32", "keydiff:recent=0", "int4 + keydiff:recent=32")
"""Besides the policies as they are: fewer of the newest tokens, which a small budget has no room for (a question and
its answer are about 30), and what the same bytes hold in codes."""
ONCE = ("keydiff:recent=0", "keydiff:recent=32", "int4 + keydiff:recent=0", "int4 + keydiff:recent=32")
"""These cut once, when a text was read, as the policies as they are do too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--aware", action="store_true", help="evictions wait for the question")
    parser.add_argument("--texts", type=int, help="the first so many alone")
    parser.add_argument(
        "--answering", action="store_true", help="a budget's bytes are those while a question is answered"
    )
    parser.add_argument("--only", nargs="*", help="these methods")
    parser.add_argument("--gone", type=float, nargs="+", default=list(GONE))
    parser.add_argument("--select", default=SELECTION)
    parser.add_argument("--place", default="text", help="with a selection")
    parser.add_argument("--resident", default="64KB", help="memory for pages of the file")
    parser.add_argument("--memory", default="128MB")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other method after so many")
    given = parser.parse_args()
    samples = [json.loads(line) for line in given.samples.open()][: given.texts]
    done = set()
    if given.out.exists():
        done = {(row["method"], row["gone"]) for row in map(json.loads, given.out.open())}
    began = time.perf_counter()
    for name, gone in methods(given):
        if (name + ", answering" * given.answering, gone) in done or (given.only and name not in given.only):
            continue
        if time.perf_counter() - began > given.seconds:
            print("stopped in time; the same command goes on")
            return
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            options = plan(name, gone, given, samples, folder)
            if options is None:
                print(f"{name} {gone}: not even a token fits in these bytes")
                continue
            row = run(options, samples, given)
        row = {
            "method": name + ", answering" * given.answering,
            "gone": gone,
            "options": {k: v for k, v in options.items() if k != "offload"},
            **row,
        }
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name} {gone}: {options.get('evict', '')} {time.perf_counter() - start:.0f} s", flush=True)


def methods(given: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Names, and the share of tokens that an eviction removes; 0 for what keeps all."""
    for name in ("whole",) if given.aware else ("whole", "int8", "int4", "int4 + selection", "int4 + selection, file"):
        yield name, 0.0
    for gone in given.gone:
        for name, policy in POLICIES.items():
            if not (given.aware and policy.window is not None):
                yield name, gone
        for name in VARIANTS:
            yield name, gone
        if not given.aware:
            for name, policy in POLICIES.items():
                if policy.window is None:
                    yield f"{name}:once=true", gone
            for name in ONCE:
                yield f"{name},once=true", gone


def plan(
    name: str, gone: float, given: argparse.Namespace, samples: list[dict[str, Any]], folder: str
) -> dict[str, Any] | None:
    """The engine's options; None where no budget is small enough."""
    if name == "whole":
        return {}
    if name in ("int8", "int4") or "selection" in name:
        chosen = {"select": given.select, "place": given.place} if "selection" in name else {}
        filed = {"offload": folder, "resident": given.resident} if "file" in name else {}
        return {"format": name[:4], **chosen, **filed}
    coded = name.startswith("int4 + ")
    policy, _, words = name.removeprefix("int4 + ").partition(":")
    shape = {"format": "int4"} if coded else {"page": PAGE}
    if given.aware:
        tokens = min(len(one["context"]) + len(q["ids"]) for one in samples for q in one["questions"])
        chosen = ",".join(filter(None, [f"budget={int(tokens * (1 - gone))}", words, "wait=true"]))
        return {"evict": f"{policy}:{chosen}", **shape}
    tokens = min(len(sample["context"]) for sample in samples)
    kept = int(tokens * (1 - gone))
    if given.answering:
        sizes = [len(question["ids"]) for sample in samples for question in sample["questions"]]
        kept += round(sum(sizes) / len(sizes))
    most = kept * TOKEN
    sample = next(sample for sample in samples if len(sample["context"]) == tokens)
    budget = kept * (2 if coded else 1)
    while budget > 0:
        options = {"evict": f"{policy}:{','.join(filter(None, [f'budget={budget}', words]))}", **shape}
        llm = LLM(memory="128MB", **options)
        with llm.session() as session:
            session.feed(sample["context"])
            over = llm.pool.owned_bytes - most
        if over <= 0:
            return options
        # no further than to the next whole page: what a last page has room for costs nothing more
        budget -= max(over // (2 * TOKEN), 1) if coded else min(-(-over // TOKEN), budget % PAGE or PAGE)
    return None


def run(options: dict[str, Any], samples: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """Answers to all questions, and the mean bytes in memory and in a file."""
    llm = LLM(memory=given.memory, **options)
    answers, held, file = [], 0, 0
    for sample in samples:
        with llm.session() as session:
            session.feed(sample["context"])
            owned = llm.pool.owned_bytes
            if given.aware and "evict" in options:  # what a twin holds once its question was read
                twin = session.fork()
                twin.ask(sample["questions"][0]["ids"], max_new_tokens=1)
                owned = llm.pool.owned_bytes - owned
                twin.close()
            held += owned + llm.pool.resident_bytes
            if "offload" in options and llm.pool.sealed is not None:
                file += llm.pool.sealed.owned * llm.pool.sealed.page_bytes
            answers += ask(llm, session, sample["questions"])
    return {"answers": answers, "bytes": held / len(samples), "file": file / len(samples)}


def ask(llm: LLM, session: Session, questions: list[dict[str, Any]]) -> list[str]:
    twins = [session.fork() for _ in questions]
    try:
        settings = llm.sampling(None, {"max_new_tokens": max(question["room"] for question in questions)})
        outputs = together(twins, [question["ids"] for question in questions], settings)
    finally:
        for twin in twins:
            twin.close()
    return [output.text.strip() for output in outputs]


if __name__ == "__main__":
    main()
