"""How do RoPE's scalings, and far pages, hold beyond the trained length? Perplexity and facts, as in YaRN's tables.

    python benchmarks/ropes.py --raw ropes.jsonl --plot docs/ropes.svg

The embedded model at 1 to 16 times the 1,024 tokens that it was trained on, without fine-tuning. Perplexity: of the
same tokens at every length, the last 512 before each of some places in held-out text, with as much text before them as
the length has. Facts: in texts of held-out documents, questions about facts at even depths, whole answers right; the
same facts at every length. `none` is plain RoPE. Scalings get the factor that the length asks for; `dynamic` finds it
by the tokens present. `far` is `--select sketch:pages=8,near=512 --place far:near=512`: distances stay inside the
trained length. Text is read there with its first tokens and the newest 512 alone, so its perplexity is that of a
window, and only questions choose pages.

A cell that stands in --raw is not measured again, so a run that was stopped goes on; --seconds stops one in time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import time
from pathlib import Path
from typing import Any

from longspan import LLM
from longspan.engine import prompts
from longspan.engine.session import Session, together
from longspan.evals import haystack, lookup
from longspan.evals.intervals import around_mean, wilson

TIMES = (1, 2, 4, 8, 16)
TAIL = 512
"""Tokens that are predicted at each place."""
ROOM = 12
FAR = {"select": "sketch:pages=8,near=512", "place": "far:near=512"}
BATCH = 8


@dataclasses.dataclass(frozen=True)
class Cell:
    """nats: the mean of each place. right, asked: of the questions."""

    rope: str
    tokens: int
    nats: tuple[float, ...]
    right: int
    asked: int
    seconds: float


def ropes(times: int) -> dict[str, dict[str, Any]]:
    """Names and options at so many times the trained length."""
    scaled = {name: {"rope": f"{name}:factor={times}"} for name in ("linear", "ntk", "ntk_by_parts", "yarn")}
    plain = {"none": {"rope": "default"}, "dynamic": {"rope": "dynamic"}, "far": {"rope": "default", **FAR}}
    found = {**plain, **scaled}
    return {name: found[name] for name in ("none", "linear", "ntk", "ntk_by_parts", "dynamic", "yarn", "far")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--times", type=int, nargs="+", default=list(TIMES), help="the trained length")
    parser.add_argument("--places", type=int, default=6, help="where text is predicted")
    parser.add_argument("--texts", type=int, default=3)
    parser.add_argument("--facts", type=int, default=20, help="in each text, each asked about once")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other cell after so many")
    given = parser.parse_args()
    cells = read(given.raw)
    began = time.perf_counter()
    for times in given.times:
        for name, options in ropes(times).items():
            if any(cell.rope == name and cell.tokens == times * 1024 for cell in cells):
                continue
            if time.perf_counter() - began > given.seconds:
                print("stopped in time; the same command goes on")
                return
            cells.append(measure(name, times * 1024, options, given))
            with given.raw.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(cells[-1])) + "\n")
    show(cells)
    if given.plot:
        draw(cells, given.plot)


def measure(name: str, tokens: int, options: dict[str, Any], given: argparse.Namespace) -> Cell:
    began = time.perf_counter()
    llm = LLM(memory="400MB", **options)
    ids = llm.encode(haystack.held_out(), special=False)
    longest = 1024 * max(TIMES)
    nats = []
    for place in range(given.places):
        end = longest + place * (len(ids) - longest) // max(given.places - 1, 1)
        nats.append(float(llm.losses(ids[end - tokens : end])[-TAIL:].double().mean()))
    right = asked = 0
    for number in range(given.texts):
        found = facts(llm, number, tokens, given.facts)
        right, asked = right + sum(found), asked + len(found)
    return Cell(name, tokens, tuple(nats), right, asked, time.perf_counter() - began)


def facts(llm: LLM, number: int, tokens: int, count: int) -> list[bool]:
    """Whether each question about one text was answered right."""
    rng = random.Random(f"ropes/{number}")
    made = lookup.make_facts(rng, count, "held_out", phrasing="held_out", people=False)
    questions = [lookup.ask(rng, fact, "held_out") for fact in made]
    depths = [(i + 0.5) / count for i in range(count)]
    hay = haystack.Haystack(haystack.everything(number, 6 * tokens))

    def split(characters: int) -> prompts.Split:
        text = lookup.plant(hay.piece(0.0, characters), [fact.sentence for fact in made], random.Random(0), depths)
        return prompts.questions(llm, text, [question.text for question in questions])

    def need(characters: int) -> int:
        found = split(characters)
        return len(found.common) + max(map(len, found.rests)) + ROOM

    found = split(haystack.fit(need, tokens))
    said: list[str] = []
    with llm.session() as session:
        session.feed(found.common, ahead=max(map(len, found.rests)) + ROOM)
        for first in range(0, count, BATCH):
            said += ask(llm, session, found.rests[first : first + BATCH])
    return [lookup.score(answer, question.answer) for answer, question in zip(said, questions, strict=True)]


def ask(llm: LLM, session: Session, rests: list[list[int]]) -> list[str]:
    twins = [session.fork() for _ in rests]
    try:
        outputs = together(twins, rests, llm.sampling(None, {"max_new_tokens": ROOM}))
    finally:
        for twin in twins:
            twin.close()
    return [output.text.strip() for output in outputs]


def read(path: Path) -> list[Cell]:
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.open())
    return [Cell(**{**row, "nats": tuple(row["nats"])}) for row in rows]


def show(cells: list[Cell]) -> None:
    lengths = sorted({cell.tokens for cell in cells})
    head = "| rope | " + " | ".join(f"{tokens:,} ({tokens // 1024} ×)" for tokens in lengths) + " |"
    for title, spelled in (("Perplexity (95 %)", perplexity), ("Facts, percent right (95 %)", share)):
        print(f"\n{title}\n\n{head}\n|---|" + "---|" * len(lengths))
        for name in dict.fromkeys(cell.rope for cell in cells):
            row = {cell.tokens: spelled(cell) for cell in cells if cell.rope == name}
            print(f"| {name} | " + " | ".join(row.get(tokens, "") for tokens in lengths) + " |")
    print(f"\n{sum(cell.seconds for cell in cells):.0f} s")


def perplexity(cell: Cell) -> str:
    ends = around_mean(cell.nats)
    middle = math.exp(sum(cell.nats) / len(cell.nats))
    return f"{middle:.2f}" if ends is None else f"{middle:.2f} ({math.exp(ends[0]):.1f}–{math.exp(ends[1]):.1f})"


def share(cell: Cell) -> str:
    low, high = wilson(cell.right, cell.asked)
    return f"{100 * cell.right / cell.asked:.0f} ({100 * low:.0f}–{100 * high:.0f})"


def draw(cells: list[Cell], path: Path) -> None:
    """Perplexity and facts against the length, one line for each rope."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "ropes"  # the same figures give the same file
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for name in dict.fromkeys(cell.rope for cell in cells):
        row = sorted((cell for cell in cells if cell.rope == name), key=lambda cell: cell.tokens)
        lengths = [cell.tokens for cell in row]
        middles = [math.exp(sum(cell.nats) / len(cell.nats)) for cell in row]
        panels[0].plot(lengths, middles, marker="o", markersize=4, label=name)
        panels[1].plot(lengths, [100 * cell.right / cell.asked for cell in row], marker="o", markersize=4, label=name)
    for panel, label in zip(panels, ("perplexity of the last 512 tokens", "facts, percent right"), strict=True):
        panel.set_xscale("log", base=2)
        ticks = sorted({cell.tokens for cell in cells})
        panel.set_xticks(ticks, [f"{tick // 1024} ×" for tick in ticks])
        panel.minorticks_off()
        panel.set_xlabel("length, times the trained 1,024 tokens")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[1].set_ylim(-3, 103)
    panels[1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
