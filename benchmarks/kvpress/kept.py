"""Do our policies keep the tokens that kvpress's presses keep? The same texts, the same number of tokens.

    python benchmarks/kvpress/kept.py samples.jsonl kept.json

kept.json is what kept_theirs.py found. Printed, of all layers, KV heads and texts: the mean share of kvpress's tokens
that ours keeps too, the least of any KV head, and how many KV heads keep the very same. "Once": the budget is applied
once, when the text was read, as a press does. "While reading": every 64 to 256 tokens, as it is without `wait=true`. In
float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from longspan import LLM

PAIRS = (
    ("snapkv", "", "SnapKV"),
    ("tova", "", "TOVA"),
    ("streaming", "", "StreamingLLM"),
    ("keydiff", "", "KeyDiff"),
    ("keydiff", "recent=0", "KeyDiff"),
    ("expected_attention", "", "ExpectedAttention"),
    ("expected_attention", "", "ExpectedAttention, epsilon 0.02"),
    ("h2o", "", "ObservedAttention"),
    ("attention_score", "", "ObservedAttention"),
    ("attention_score", "recent=0", "ObservedAttention"),
)
GONE = (0.25, 0.5, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("kept", type=Path)
    parser.add_argument("--only", nargs="*", help="these policies")
    given = parser.parse_args()
    theirs = json.loads(given.kept.read_text())
    texts = [json.loads(line)["context"] for line in given.samples.read_text().splitlines()[: len(theirs)]]
    print(f"{len(texts)} texts of {min(map(len, texts))} to {max(map(len, texts))} tokens\n")
    print("| ours | kvpress | removed | once: shared | least | the very same | while reading: shared |")
    print("|---|---|---|---|---|---|---|")
    for name, options, press in PAIRS:
        if given.only and name not in given.only:
            continue
        for gone in GONE:
            found: dict[bool, list[tuple[int, int, bool]]] = {True: [], False: []}
            for ids, row in zip(texts, theirs, strict=True):
                wanted = [set(lane) for layer in row[f"{press} {gone}"] for lane in layer]
                for once in found:
                    mine = kept(name, options, len(wanted[0]), ids, once)
                    found[once] += [(len(a & b), len(b), a == b) for a, b in zip(mine, wanted, strict=True)]
            spelled = f"{name}:{options}" if options else name
            once, reading = found[True], found[False]
            print(
                f"| `{spelled}` | {press} | {100 * gone:.0f} % | {share(once):.1f} % | "
                f"{100 * min(a / b for a, b, _ in once):.1f} % | {sum(same for *_, same in once)} of {len(once)} | "
                f"{share(reading):.1f} % |",
                flush=True,
            )


def kept(name: str, options: str, budget: int, ids: list[int], once: bool) -> list[set[int]]:
    """The text positions of the tokens that each layer's KV heads hold when the text was read."""
    waits = "wait=true" if once and name != "streaming" else ""  # a window is what it is at the end
    words = ",".join(filter(None, [f"budget={budget}", options, waits]))
    llm: Any = LLM(memory="128MB", dtype="float32", evict=f"{name}:{words}")
    with llm.session() as session:
        session.ask(ids, max_new_tokens=1)
        lanes = session._text.cache.lanes
        return [{int(p) for p in lane if p >= 0} for layer in lanes.notes.position for lane in layer]


def share(found: list[tuple[int, int, bool]]) -> float:
    return 100 * sum(a for a, *_ in found) / sum(b for _, b, _ in found)


if __name__ == "__main__":
    main()
