"""What do formats, evictions and selections cost in answers? The same questions with every method, beside the whole
cache in dense pages.

    python benchmarks/quality.py --length 1024
    python benchmarks/quality.py --length 4096
    python benchmarks/quality.py --length 1024 --wait

Each text is read once, before any question is known, and then asked about its facts one by one. With --wait evictions
wait for each question (and memory holds the whole text until then); the two are never in one table. An eviction keeps a
half, or a quarter, of the text's tokens; with a selection every query reads as many, and all are kept. Bytes are those
that the cache holds of a text that was read, the mean over the texts: keys and values in memory (with the notes that
an eviction makes), the summaries by which pages are chosen, and pages in a file. The points are those that a method
loses or wins against the whole cache in the same questions.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from typing import Any

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.engine.session import Session
from longspan.evals.intervals import paired
from longspan.evals.needles import Needles

SINKS, NEAR, PAGE = 1, 2, 64
"""Pages that every query reads besides those it chooses."""


@dataclasses.dataclass
class Asked:
    """Whether each question was answered right; and the bytes of the texts when they had been read."""

    right: list[bool] = dataclasses.field(default_factory=list)
    pages: int = 0
    summaries: int = 0
    file: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024, help="tokens of a text with a question")
    parser.add_argument("--texts", type=int, default=25)
    parser.add_argument("--facts", type=int, default=20, help="facts in a text, each asked about once")
    parser.add_argument("--kept", type=float, nargs="+", default=[0.5, 0.25], help="shares of the text that stay")
    parser.add_argument("--wait", action="store_true", help="evict with the question in view")
    parser.add_argument("--only", nargs="*", help="methods to try")
    given = parser.parse_args()
    texts = [
        Needles(length=given.length, samples=given.facts, depths=given.facts, inside=0, seed=seed)
        for seed in range(given.texts)
    ]
    whole = answers(LLM(memory="256MB"), texts)
    asked, size = len(whole.right), given.texts
    print(f"{asked} questions, {given.length:,} tokens; the whole cache: {sum(whole.right)} right\n")
    print("| method | right | points | 95 % interval | KB in memory | summaries | in a file | of the whole |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| dense, all | {sum(whole.right)} | | | {whole.pages / size / 1e3:.0f} | 0 | 0 | 100 % |", flush=True)
    for name, method in (waiting if given.wait else methods)(given.length, given.kept):
        if given.only and not any(name.startswith(one) for one in given.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = answers(
                LLM(memory="256MB", **method, **({"offload": folder} if "in a file" in name else {})), texts
            )
        won = sum(new and not old for new, old in zip(found.right, whole.right, strict=True))
        lost = sum(old and not new for new, old in zip(found.right, whole.right, strict=True))
        low, high = paired(sum(whole.right), won, lost, asked)
        total = found.pages + found.summaries + found.file
        points = f"{100 * (won - lost) / asked:+.1f} | {100 * low:+.1f} to {100 * high:+.1f}"
        held = " | ".join(f"{part / size / 1e3:.0f}" for part in (found.pages, found.summaries, found.file))
        print(f"| {name} | {sum(found.right)} | {points} | {held} | {100 * total / whole.pages:.0f} % |", flush=True)


def methods(length: int, kept: list[float]) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of all methods."""
    found = [(f"`{name}`", {"format": name}) for name in FORMATS if name != "dense"]
    found.append(("`int4:hadamard=true`", {"format": "int4:hadamard=true"}))
    for share in kept:
        budget = int(share * length)
        for name in POLICIES:
            found.append((f"`{name}:budget={budget}`", {"evict": f"{name}:budget={budget}"}))
        for name in ("h2o", "keydiff"):
            found.append((f"`{name}:budget={budget},merge=true`", {"evict": f"{name}:budget={budget},merge=true"}))
        found.append((f"`int4`, `keydiff:budget={budget}`", {"format": "int4", "evict": f"keydiff:budget={budget}"}))
        pages = budget // PAGE - SINKS - NEAR
        for name in SELECTIONS:
            if name != "all":
                few = f"{name}:pages={pages},near={(NEAR - 1) * PAGE}"
                found.append((f"`{few}`", {"select": few}))
        few = f"sketch:pages={pages},near={(NEAR - 1) * PAGE}"
        found.append((f"`int4`, `{few}`", {"format": "int4", "select": few}))
        found.append((f"`int4`, `{few}`, in a file", {"format": "int4", "select": few}))
    return found


def waiting(length: int, kept: list[float]) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of the evictions that can wait for a question."""
    budgets = [int(share * length) for share in kept]
    names = [name for name, policy in POLICIES.items() if policy.window is None]
    spelled = [f"{name}:budget={budget},wait=true" for budget in budgets for name in names]
    return [(f"`{evict}`", {"evict": evict}) for evict in spelled]


def answers(llm: LLM, texts: list[Needles]) -> Asked:
    found = Asked()

    def read(session: Session) -> None:
        pool = llm.pool
        summaries = 0 if pool.summaries is None else pool.summaries.owned * pool.layout.summary_bytes
        found.summaries += summaries
        found.pages += pool.owned_bytes - summaries
        if llm.plan.offload is not None and pool.sealed is not None:
            found.file += pool.sealed.owned * pool.sealed.page_bytes

    for needles in texts:
        told, _ = needles.long(llm, needles.text(llm), read=read)
        found.right += [one.right for one in told]
    return found


if __name__ == "__main__":
    main()
