"""What do formats and evictions cost in answers? The same questions with every method, beside the dense, whole cache.

    python benchmarks/quality.py --length 1024
    python benchmarks/quality.py --length 4096

Each text is read once, before any question is known, and then asked about its facts one by one. An eviction keeps a
half, or a quarter, of the text's tokens. Bytes are those that the cache holds of a text that was read, the mean over
the texts; the points are those that a method loses or wins against the whole cache in the same questions.
"""

from __future__ import annotations

import argparse

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.engine import prompts
from longspan.evals.intervals import paired
from longspan.evals.needles import Needles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024, help="tokens of a text with a question")
    parser.add_argument("--texts", type=int, default=25)
    parser.add_argument("--facts", type=int, default=20, help="facts in a text, each asked about once")
    parser.add_argument("--kept", type=float, nargs="+", default=[0.5, 0.25], help="shares of the text that stay")
    parser.add_argument("--only", nargs="*", help="methods to try")
    given = parser.parse_args()
    texts = [
        Needles(length=given.length, questions=given.facts, depths=given.facts, inside=0, seed=seed)
        for seed in range(given.texts)
    ]
    whole, full = answers(LLM(memory="256MB"), texts)
    asked = len(whole)
    print(f"{asked} questions, {given.length:,} tokens; the whole cache: {sum(whole)} right, {full:,} bytes\n")
    print("| method | right | points | 95 % interval | bytes | of the whole |\n|---|---|---|---|---|---|", flush=True)
    methods = [{"format": name} for name in FORMATS if name != "dense"] + [{"format": "int4:hadamard=true"}]
    for share in given.kept:
        methods += [{"evict": f"{name}:budget={int(share * given.length)}"} for name in POLICIES]
    for method in methods:
        name = next(iter(method.values()))
        if given.only and name.partition(":")[0] not in given.only:
            continue
        right, size = answers(LLM(memory="256MB", **method), texts)
        won = sum(new and not old for new, old in zip(right, whole, strict=True))
        lost = sum(old and not new for new, old in zip(right, whole, strict=True))
        low, high = paired(sum(whole), won, lost, asked)
        print(
            f"| `{name}` | {sum(right)} | {100 * (won - lost) / asked:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} "
            f"| {size:,} | {100 * size / full:.0f} % |",
            flush=True,
        )


def answers(llm: LLM, texts: list[Needles]) -> tuple[list[bool], int]:
    """Of every question whether it was answered right; and the mean bytes of a text that was read."""
    right: list[bool] = []
    held = 0
    for needles in texts:
        text = needles.text(llm)
        with llm.session() as session:
            session.feed(prompts.questions(llm, text, ["?"]).common)
            held += llm.pool.owned_bytes
        found, _ = needles.long(llm, text)
        right += [one.right for one in found]
    return right, held // len(texts)


if __name__ == "__main__":
    main()
