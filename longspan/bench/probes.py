"""Small models with random weights, run step by step through the engine, each step timed in its parts."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longspan.attention.step import Segment, Trial
from longspan.bench import shapes
from longspan.bench.clock import NEXT
from longspan.bench.fill import hollow
from longspan.engine.llm import LLM
from longspan.kernels.cpu.linear import FEW
from longspan.plan.shape import Layer, Shape

if TYPE_CHECKING:
    from longspan.engine.schedule import Text

VOCAB = 1024


@dataclasses.dataclass(frozen=True)
class Probe:
    """A geometry: layers, hidden size, MLP, query and KV heads, head dim, and the size of the vocabulary."""

    name: str
    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    dim: int
    vocab: int = VOCAB

    def config(self) -> dict[str, Any]:
        return shapes.llama(
            self.hidden, self.mlp, self.layers, self.heads, self.kv_heads, self.dim, self.vocab, theta=1e5, tied=True
        )

    def shape(self) -> Shape:
        """As plans know it."""
        wide = (self.heads + self.kv_heads) * self.dim
        layer = Layer(
            *("full", None, self.heads, self.kv_heads, self.dim, self.dim),
            *(2 * self.hidden * wide, 3 * self.hidden * self.mlp, 3 * self.hidden * self.mlp),
        )
        embedding = self.vocab * self.hidden
        return Shape(
            *(self.name, "llama", (layer,) * self.layers, self.hidden, self.mlp, self.vocab, embedding, 0, self.hidden),
            *(True, shapes.TRAINED, shapes.TRAINED, 1e5, {}),
        )


@dataclasses.dataclass(frozen=True)
class Took:
    """A step: text position of its first row, rows, whether they were asked; seconds of the model's pass, and of what
    was tidied afterwards."""

    first: int
    rows: int
    asked: bool
    forward: float
    tidy: float


class Bench:
    """One engine with one text. Every time is a step of the engine's own scheduler."""

    def __init__(self, folder: Path, **engine: Any) -> None:
        self.llm = LLM(folder, **engine)
        self._inner = self.llm.scheduler.forward
        self._numbers = np.random.default_rng(0)
        self._forward = 0.0
        self.llm.scheduler.forward = self._watched

    def _watched(self, segments: Seq[Segment], ids: Seq[int], keep: Seq[int]) -> torch.Tensor:
        began = time.perf_counter()
        out = self._inner(segments, ids, keep)
        self._forward = time.perf_counter() - began
        return out

    def text(self) -> Text:
        return self.llm.text([])

    def fill(self, text: Text, tokens: int) -> None:
        """So many tokens more, at random."""
        with hollow(self.llm):
            self._read(text, tokens, asks=False)

    def read(self, text: Text, tokens: int, chunk: int | None = None, asks: bool = False) -> list[Took]:
        """So many tokens more, read by the model in steps of up to `chunk`."""
        before = self.llm.scheduler.chunk
        self.llm.scheduler.chunk = chunk or before
        try:
            return self._read(text, tokens, asks)
        finally:
            self.llm.scheduler.chunk = before

    def _read(self, text: Text, tokens: int, asks: bool) -> list[Took]:
        scheduler = self.llm.scheduler
        text.extend(self._numbers.integers(0, VOCAB, tokens).tolist())
        scheduler.submit(text, asks)
        took = []
        while text.pending:
            took.append(self._step(text, asks))
        scheduler.keep(text)
        return took

    def answer(self, text: Text, steps: int) -> list[Took]:
        """So many tokens generated, after the first, which is told as a question."""
        took = self._read(text, 1, asks=True)
        scheduler = self.llm.scheduler
        scheduler.idle.remove(text)
        scheduler.running.append(text)
        for _ in range(steps):
            text.ids.append(NEXT)
            took.append(self._step(text, False))
        scheduler.keep(text)
        return took[1:]

    def _step(self, text: Text, asked: bool) -> Took:
        first = text.cache.length
        began = time.perf_counter()
        self.llm.scheduler.step()
        whole = time.perf_counter() - began
        return Took(first, text.cache.length - first, asked, self._forward, whole - self._forward)

    def token(self, steps: int) -> float:
        """Seconds by which a token that is generated takes longer than a step: it is drawn from its logits, and torch's
        threads, which do that, keep the processor busy for a while. The median of three, after one that does not
        count."""
        more, ids = [], self._numbers.integers(0, VOCAB, 64).tolist()
        for _ in range(4):
            text = self.text()
            self.read(text, 64)
            alone = statistics.median(step.forward + step.tidy for step in self.answer(text, steps))
            self.drop(text)
            each: float = self.llm.generate(ids, max_new_tokens=steps, ignore_eos=True).decode_ms_per_token
            more.append(each / 1000 - alone)
        return max(statistics.median(more[1:]), 2e-5)

    def one_row(self, times: int) -> float:
        """The median of so many passes over one row, which answers a text of a few tokens."""
        text = self.text()
        self.read(text, 4)
        took = [step.forward for step in self.answer(text, times + 2)[2:]]
        self.drop(text)
        return statistics.median(took)

    def drop(self, text: Text) -> None:
        self.llm.scheduler.drop(text)

    def body(self, rows: int, times: int) -> list[float]:
        """Seconds of the model's pass over so many rows, more than kernels take that do all of it, with next to nothing
        in place of attention."""
        assert rows > FEW, f"{rows} rows"
        row = torch.arange(rows)[None] % VOCAB
        keep = torch.tensor([rows - 1])

        def call() -> object:
            with torch.inference_mode():
                return self._inner._run(row, keep, Trial())  # type: ignore[attr-defined]

        return clocked(call, times)


def clocked(call: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of so many calls, after one that does not count."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken[1:]


def options(plan: str) -> dict[str, Any]:
    """ "int8 h2o:budget=2048" as arguments of `LLM`: the format, and an eviction or a selection, "-" for none."""
    format, way = plan.split()
    made: dict[str, Any] = {"format": format}
    if way.startswith(("landmark", "sketch")):
        made["select"] = way
    elif way != "-":
        made["evict"] = way
    return made
