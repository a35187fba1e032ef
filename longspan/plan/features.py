"""What the time of our own engine on a CPU is made of: amounts of work, each with a cost that calibration measures.

A step of R rows is the model's body (all but attention), the attention of each layer, and what is tidied afterwards. An
amount is a number of calls, of numbers read or of products, counted alike here and where costs are fitted. Groups:

    body.few, body.many       all but attention, for up to 16 rows and for more
    pages.few, pages.many     attention over all pages, by compiled kernels, for up to 8 rows and for more
    lanes.few, lanes.many     attention over what eviction left: of tokens that answer, where the pages lie; while a
                              text is read, gathered
    select.few, select.many   attention over few pages: of a token that answers, of rows that are only read
    asked                     rows that choose their pages
    evict, seal, summarise    what happens at multiples of the interval
    token                     drawing a token from its logits

Most groups are told apart by how pages are stored. Where keys and values become numbers before they are multiplied
(lanes.many, select.many, asked), only how they are gathered is.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from longspan.kernels.cpu.linear import FEW as ROWS
from longspan.kernels.paged import FEW
from longspan.plan import counts
from longspan.plan.counts import Reach
from longspan.plan.shape import Shape
from longspan.plan.work import Work

ASKED = 128
"""Last tokens of a prompt that are taken for its question (`engine.schedule.ASKED`)."""
SCORED = 64
"""Of these, how many are scored at a time (`attention.select.SCORED`)."""

NEAR, FAR = 128 << 20, 384 << 20
"""Bytes that every step reads again. As many as NEAR stay in the last cache of many processors, of FAR next to nothing
does; between the two each byte more drives others out."""

FORMS = "dense", "int8", "int4"
"""Forms of pages that costs are known of."""

Amounts = dict[tuple[str, str], float]
"""(group, what is counted) → how much."""
Rates = Mapping[str, Mapping[str, float]]
"""group → what is counted → seconds of one."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one text: text positions of their first rows, and how many rows each has; [n] both."""

    first: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, tokens: int, size: int) -> Steps:
        first = np.arange(0, tokens, size)
        return cls(first, np.minimum(tokens - first, size))

    @classmethod
    def at(cls, first: int, rows: int) -> Steps:
        """One step."""
        return cls(np.array([first]), np.array([rows]))


def stored(work: Work) -> str:
    """The name of the costs of pages as they are stored; formats that kernels do not read are taken as int8."""
    if work.format is None:
        return "dense"
    return work.format.coded or "int8"


def bits(work: Work) -> str:
    return {8: "int8", 4: "int4"}.get(work.weights, "plain")


def reading(shape: Shape, work: Work, steps: Steps, question: int = ASKED) -> Amounts:
    """The amounts of reading one text in these steps, the last `question` tokens of which ask."""
    found = body(shape, work, steps.rows)
    for reach, count in counts.reaches(shape, work).items():
        for group, amounts in _layer(reach, work, steps, question):
            for name, much in amounts.items():
                found[group, name] = found.get((group, name), 0.0) + count * float(np.sum(much))
    return found


def answering(shape: Shape, work: Work, tokens: int, since: int) -> Amounts:
    """The amounts of a step that generates a token of each text, with so many tokens cached, `since` of them
    generated: the mean of steps that look for pages and that do not, and of those after which something is tidied."""
    cached = counts.read_cache(shape, work, tokens) + counts.scanned(shape, work, tokens)
    found = body(shape, work, np.array([work.batch]), cached)
    found |= {("token", "call"): work.batch, ("token", "logit"): work.batch * shape.vocab}
    form, every = stored(work), counts.interval(work) or 1
    for reach, count in counts.reaches(shape, work).items():
        for key, much in _answer(reach, work, tokens, since).items():
            # what is told once for all layers of a step
            found[key] = much if key[1] == "step" else found.get(key, 0.0) + count * much
    for (group, name), much in list(found.items()):
        if group in (f"evict.{form}", f"seal.{form}", "summarise"):
            found[group, name] = much / every
    return found


def far(size: float, steps: int = 1) -> dict[str, float]:
    """What reading so many bytes in each step takes more than if the last cache held them: middle, the bytes from NEAR
    to FAR; far, those beyond."""
    return {"middle": steps * min(max(size - NEAR, 0.0), FAR - NEAR), "far": steps * max(size - FAR, 0.0)}


def body(shape: Shape, work: Work, rows: np.ndarray, cached: float = 0.0) -> Amounts:
    """All but attention. byte: of weights that are read, those of the output head too, which gives logits of one row of
    every step; flop: of products; number: of activations that are read or written; open: weights that are opened.
    cached: bytes that a step of few rows reads besides; see `far`."""
    few, kind = rows <= ROWS, bits(work)
    parameters, many = counts.linear_parameters(shape), rows[~few]
    head = counts.head_parameters(shape) * (1 if counts.coded_head(work) else counts.plain_bytes(shape, work))
    layers, found = len(shape.layers), defaultdict[tuple[str, str], float](float)
    found["body.few", "step"] = int(few.sum())
    found["body.few", "layer"] = int(few.sum()) * layers
    size = counts.weight_bytes(parameters, work)
    found["body.few", f"byte.{kind}"] = float(few.sum()) * size
    for name, much in far(size + head + cached, int(few.sum())).items():
        found["body.few", name] = much
    found["body.few", f"byte.{'int8' if counts.coded_head(work) else 'plain'}"] += len(rows) * head
    found["body.many", "layer"] = len(many) * layers
    found["body.many", "weight"] = len(many) * parameters
    found["body.many", f"flop.{kind}"] = 2.0 * parameters * int(many.sum())
    found["body.many", "number"] = float(many.sum()) * layers * (10 * shape.hidden + 5 * shape.intermediate)
    if kind != "plain":
        found["body.many", f"open.{kind}"] = len(many) * parameters
    return found


def _layer(reach: Reach, work: Work, steps: Steps, question: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Groups of one layer while a text is read, with amounts [n] of each step."""
    if reach.layer.kind == "linear" or not len(steps.rows):
        return
    layer, form, (first, rows) = reach.layer, stored(work), (steps.first, steps.rows)
    heads, lanes, dim = layer.heads, layer.kv_heads, (layer.qk_dim + layer.v_dim) / 2
    every = counts.interval(work)
    whole = layer.kind in ("full", "latent")
    if not whole or (work.evict is None and work.select is None):
        few = rows <= FEW
        for group, some in ((f"pages.few.{form}", few), (f"pages.many.{form}", ~few)):
            yield group, pages(first[some], rows[some], layer.window, heads, lanes, dim)
    elif work.evict is not None:
        assert every is not None
        held = first if reach.reading is None else np.minimum(first, reach.reading - every // 2)
        yield "lanes.many", gathered(rows, held + rows, heads, lanes, dim, form)
        filled = (first + rows) // every > first // every
        amounts = tidied(held + rows, _budget(reach, every), lanes, dim)
        yield f"evict.{form}", {name: much * filled for name, much in amounts.items()}
    else:
        yield from _selecting(reach, work, steps, question)
    if every is not None and work.evict is None:
        filled = (first + rows) // every > first // every
        sealed = np.where(filled, every * lanes * dim, 0)
        if work.format is not None:
            yield f"seal.{form}", {"layer": filled, "number": sealed}
        if work.select is not None and whole:
            yield "summarise", {"layer": filled, "number": sealed}


def pages(
    first: np.ndarray, rows: np.ndarray, window: int | None, heads: int, lanes: int, dim: float
) -> dict[str, np.ndarray]:
    """Attention over pages. read: numbers of keys; pair: products of a query and a key; exp: scores; row: numbers of
    queries."""
    past = first if window is None else np.minimum(first, window)
    pairs = rows * past + rows * (rows + 1) // 2
    if window is not None:
        pairs = np.minimum(pairs, rows * window)
    read = (past + rows) * lanes * dim
    return {
        "layer": np.ones_like(rows),
        "read": read,
        "pair": pairs * heads * dim,
        "exp": pairs * heads,
        "row": rows * heads * dim,
    }


def gathered(
    rows: np.ndarray, slots: np.ndarray, heads: int, lanes: int, dim: float, form: str
) -> dict[str, np.ndarray]:
    """Attention over slots of lanes, each opened once."""
    return {
        "layer": np.ones_like(rows),
        f"gather.{form}": slots * lanes * dim,
        "score": rows * heads * slots,
        "product": rows * heads * slots * dim,
    }


def _budget(reach: Reach, every: int | None) -> int | None:
    """Tokens that a lane keeps; None: all."""
    return None if reach.answering is None else reach.answering - (every or 0) // 2


def tidied(slots: np.ndarray, budget: int | None, lanes: int, dim: float) -> dict[str, np.ndarray]:
    """An eviction. slot: numbers of keys that are looked at; moved: the same where any of them go."""
    numbers = slots * lanes * dim
    going = np.zeros_like(slots, dtype=bool) if budget is None else slots > budget
    return {"layer": np.ones_like(slots), "lane": np.full_like(slots, lanes), "slot": numbers, "moved": numbers * going}


def _selecting(reach: Reach, work: Work, steps: Steps, question: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    layer, form, page, select = reach.layer, stored(work), work.page, work.select
    assert select is not None
    heads, lanes, dim = layer.heads, layer.kv_heads, (layer.qk_dim + layer.v_dim) / 2
    end = int(steps.first[-1] + steps.rows[-1])
    plain = np.ones_like(steps.rows, dtype=bool)
    always, pages = reach.scans or 0, select.pages or 0
    begin = max(end - question, 0) if select.reading == "window" else 0
    old = np.maximum((steps.first + steps.rows) // page - always, 0)
    asking = np.minimum(np.maximum(steps.first + steps.rows - begin, 0), steps.rows) * (old > 0)
    read = steps.rows - asking
    plain = read > 0
    held = np.minimum(-(-(steps.first + steps.rows) // page), always) * page
    parts = -(-read // page) * plain
    yield (
        "select.many",
        {
            "part": parts,
            f"gather.{form}": parts * held * lanes * dim,
            "score": read * heads * held,
            "product": read * heads * held * dim,
        },
    )
    yield "asked", asked(asking, old, always + pages, page, heads, lanes, dim, form)


def asked(
    rows: np.ndarray, old: np.ndarray, chosen: int, page: int, heads: int, lanes: int, dim: float, form: str
) -> dict[str, np.ndarray]:
    """Rows that choose among `old` pages and read `chosen`."""
    slots = np.minimum(chosen, old + chosen) * page
    return {
        "part": -(-rows // page),
        f"gather.{form}": rows * slots * lanes * dim,
        "product": rows * slots * heads * dim,
        "open": -(-rows // SCORED) * old * lanes * dim,
        "scan": rows * old * heads * dim,
    }


def _told(amounts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a layer on a tape: where everything stands is worked out once a step, and layers cost what they read."""
    return {name if name != "layer" else "step": much for name, much in amounts.items()}


def _answer(reach: Reach, work: Work, tokens: int, since: int) -> Amounts:
    """Of one layer, for one step; what is tidied as if every step did it."""
    layer, form, batch = reach.layer, stored(work), work.batch
    heads, lanes, dim = layer.heads, layer.kv_heads, (layer.qk_dim + layer.v_dim) / 2
    one, at, found = np.ones(1, dtype=np.int64), np.array([tokens]), defaultdict[tuple[str, str], float](float)
    every = counts.interval(work) or 0

    def add(group: str, amounts: Mapping[str, np.ndarray], times: float = 1.0, once: tuple[str, ...] = ()) -> None:
        for name, much in amounts.items():
            found[group, name] += float(much[0]) * (1.0 if name in once else times)

    if layer.kind in ("sliding", "chunked") or (layer.kind != "linear" and work.evict is None and work.select is None):
        add(f"pages.few.{form}", pages(at, one, layer.window, heads, lanes, dim), batch, ("layer",))
    elif layer.kind == "linear":
        return found
    elif work.evict is not None:
        held = np.minimum(at, (reach.answering or tokens) - every // 2 + min(since, every // 2))
        add(f"lanes.few.{form}", _told(gathered(one, held, heads, lanes, dim, form)), batch)
        add(f"evict.{form}", tidied(held + every, _budget(reach, every), lanes, dim), batch)
    else:
        select = work.select
        assert select is not None
        always = reach.scans or 0
        held = np.minimum(-(-at // work.page), always + (select.pages or 0)) * work.page
        add(f"select.few.{form}", _told(pages(held, one, None, heads, lanes, dim)), batch)
        old = np.maximum(at // work.page - always, 0)
        looks = asked(one * (old > 0), old, always + (select.pages or 0), work.page, heads, lanes, dim, form)
        # an answer looks at its every `hold`-th token; a short one goes on from what its prompt found
        add("asked", looks, batch * (work.new // select.hold / work.new if work.new else 1 / select.hold))
        add("summarise", {"layer": one, "number": one * every * lanes * dim}, batch)
    if work.format is not None and work.evict is None:
        add(f"seal.{form}", {"layer": one, "number": one * every * lanes * dim}, batch)
    return found
