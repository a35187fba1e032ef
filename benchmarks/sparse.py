"""What does reading sparsely leave out, what does that cost in answers, and what does it gain in time?

    python benchmarks/sparse.py --mass 0.95 0.9 0.8 --length 8192 --questions 60
    python benchmarks/sparse.py --seconds --model DIR --density 0.7 0.3 --length 16384

The first asks the same questions of the embedded model with every setting: pages read of those seen, the attention mass
on them (exact, over all rows and heads, for the first texts), right answers, and points won or lost against dense, with
a paired 95 % interval. The second times the reading of random ids by any model, at densities that are given, as random
weights need nearly every page; the estimate is part of the time. Settings take turns, `--times` times.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import torch

from longspan import LLM
from longspan.engine.schedule import Text
from longspan.evals.fact_lookup import FactLookup
from longspan.evals.intervals import paired
from longspan.evals.suite import evaluate
from longspan.kernels import Work, page_shares
from longspan.kernels.work import Subset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mass", type=float, nargs="*", default=[])
    parser.add_argument("--density", type=float, nargs="*", default=[])
    parser.add_argument("--options", default="", help="more of the method's, as in stride=8,least=2048")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--questions", type=int, default=60, help="for each ability")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", action="store_true", help="time the reading of random ids")
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--times", type=int, default=2)
    given = parser.parse_args()
    more = f",{given.options}" if given.options else ""
    settings = [f"sparse:mass={x}{more}" for x in given.mass] + [f"sparse:density={x}{more}" for x in given.density]
    if given.seconds:
        seconds(given.model, ["dense", *settings], given.length, given.times)
    else:
        answers(settings, FactLookup(length=given.length, samples=given.questions, seed=given.seed))


def answers(settings: list[str], suite: FactLookup) -> None:
    dense, _, taken = asked(suite, "dense")
    print(f"{len(dense)} questions, {suite.length:,} tokens; dense: {sum(dense)} right, {taken:.0f} s\n")
    print("| prefill | pages read | mass kept | right | points | 95 % interval |")
    print("|---|---|---|---|---|---|", flush=True)
    for setting in settings:
        right, density, _ = asked(suite, setting)
        won = sum(new and not old for new, old in zip(right, dense, strict=True))
        lost = sum(old and not new for new, old in zip(right, dense, strict=True))
        low, high = paired(sum(dense), won, lost, len(dense))
        points = f"{100 * (won - lost) / len(dense):+.1f} | {100 * low:+.1f} to {100 * high:+.1f}"
        kept = mass(dataclasses.replace(suite, samples=1), setting)
        print(f"| `{setting}` | {density:.3f} | {kept:.4f} | {sum(right)} | {points} |", flush=True)


def asked(suite: FactLookup, setting: str) -> tuple[list[bool], float, float]:
    """Whether each question was answered right, the share of pages that was read, and seconds."""
    llm = LLM(memory="512MB", prefill=setting)
    began = time.perf_counter()
    right = [one.score == 1 for one in evaluate(suite, llm).samples]
    pages = llm.pages
    return right, pages.read / max(pages.seen, 1), time.perf_counter() - began


def mass(suite: FactLookup, setting: str) -> float:
    """The attention mass on the pages that are read, the mean over rows and heads that leave pages out."""
    llm = LLM(memory="512MB", prefill=setting)
    kernel, kept = llm.scheduler.forward.backend, []

    def look(work: Work) -> torch.Tensor:
        if work.subset is not None:
            reads = work.reads()
            assert reads is not None
            share = (page_shares(work, 1, 1) * reads).sum(-1)  # [G, R]
            kept.append(share[:, ~whole(work.subset, share.shape[1])].flatten())
        return kernel(work)

    llm.scheduler.forward.backend = look
    evaluate(suite, llm)
    return float(torch.cat(kept).mean())


def whole(subset: Subset, rows: int) -> torch.Tensor:
    """[R] rows of blocks that read all."""
    return subset.pages.all(2).all(0).repeat_interleave(subset.rows)[:rows]


def seconds(model: str | None, settings: list[str], length: int, times: int) -> None:
    print("| prefill | pages read | seconds | of dense |\n|---|---|---|---|", flush=True)
    llms = {setting: LLM(model, memory="2GB", prefill=setting) for setting in settings}
    r = torch.Generator().manual_seed(0)
    ids = torch.randint(3, llms[settings[0]].shape.vocab, (length,), generator=r).tolist()
    taken: dict[str, list[float]] = {setting: [] for setting in settings}
    for _ in range(times):
        for setting, llm in llms.items():
            taken[setting].append(read(llm, ids))
    for setting, llm in llms.items():
        pages, middle = llm.pages, statistics.median(taken[setting])
        density = f"{pages.read / pages.seen:.3f}" if pages.seen else "all"
        share = middle / statistics.median(taken[settings[0]])
        print(f"| `{setting}` | {density} | {middle:.2f} ({min(taken[setting]):.2f} at best) | {share:.2f} |")


def read(llm: LLM, ids: list[int]) -> float:
    text: Text = llm.text(ids)
    llm.scheduler.submit(text, asks=False)
    began = time.perf_counter()
    while text.pending:
        llm.scheduler.step()
    taken = time.perf_counter() - began
    llm.scheduler.drop(text)
    return taken


if __name__ == "__main__":
    main()
