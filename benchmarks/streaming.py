"""Does streaming without end drift? Perplexity by tenths of a long text, beside recomputing windows of the same text.

    python benchmarks/streaming.py --tokens 1000000

A text is read once with `streaming` (sinks and a window, placement slot). At sampled places the window is recomputed
from nothing, as plain attention over its tokens alone, and both give their nats for the same next token. With a cache
that does not drift, the ratio of the two perplexities is the same in all tenths. Memory is that of the process.
"""

from __future__ import annotations

import argparse
import math
import random
import time

import torch

from longspan import LLM
from longspan.engine.memory import give_back
from longspan.evals.haystack import everything

PARTS = 10
BATCH = 16


def resident() -> int:
    """Bytes of memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--sinks", type=int, nargs="+", default=[4, 0])
    parser.add_argument("--samples", type=int, default=300, help="recomputed windows in each tenth")
    given = parser.parse_args()
    ids = LLM(memory="8MB").encode(everything(0, 6 * given.tokens), special=False)[: given.tokens]
    assert len(ids) == given.tokens, "there is not so much text on this machine"
    rng = random.Random(0)
    part = len(ids) // PARTS
    places = [
        sorted(rng.sample(range(n * part + 2 * given.window, (n + 1) * part), given.samples)) for n in range(PARTS)
    ]
    fresh = [recomputed(ids, found, given.window) for found in places]
    for sinks in given.sinks:
        policy = (
            f"streaming:budget={given.window + sinks},sinks={sinks}"
            if sinks
            else f"sliding_window:budget={given.window}"
        )
        give_back()
        began = time.perf_counter()
        nats, memory = streamed(ids, policy, part)
        seconds = time.perf_counter() - began
        print(f"\n{policy}, {len(ids):,} tokens at {len(ids) / seconds:,.0f} tokens/s")
        print("| tenth | perplexity | at the samples | recomputed | ratio | memory, MB |\n|---|---|---|---|---|---|")
        for n, found in enumerate(places):
            whole = nats[n * part : (n + 1) * part].mean().item()
            here = nats[torch.tensor(found) - 1].mean().item()  # nats[i] are those of token i + 1
            again = fresh[n].mean().item()
            ratio = math.exp(here - again)
            print(
                f"| {n + 1} | {math.exp(whole):.3f} | {math.exp(here):.3f} | {math.exp(again):.3f} | {ratio:.4f} "
                f"| {memory[n] / 1e6:.0f} |"
            )


def streamed(ids: list[int], policy: str, part: int) -> tuple[torch.Tensor, list[int]]:
    """Nats of every token but the first, and the memory at the end of each tenth."""
    llm = LLM(evict=policy, place="slot", memory="64MB")
    memory: list[int] = []

    def tell(done: int, total: int) -> None:
        while len(memory) < PARTS and done >= (len(memory) + 1) * part:
            memory.append(resident())

    return llm.losses(ids, progress=tell), memory


def recomputed(ids: list[int], places: list[int], window: int) -> torch.Tensor:
    """Nats of the tokens at `places`, each given the `window` tokens before it and nothing else."""
    llm = LLM(memory="1GB", rope="checkpoint", chunk=BATCH * window)
    nats = []
    for first in range(0, len(places), BATCH):
        some = places[first : first + BATCH]
        outputs = llm.generate([ids[at - window : at] for at in some], max_new_tokens=1, logprobs=llm.shape.vocab)
        for at, output in zip(some, outputs, strict=True):
            nats.append(-dict(output.logprobs[0].top)[ids[at]])
    return torch.tensor(nats)


if __name__ == "__main__":
    main()
