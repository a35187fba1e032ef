"""What reading a text computes, and what a generated token reads: counted from a model's shape and a plan.

A query of a layer sees a triangle of keys, or less: a window, a chunk, what eviction left, what was selected.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from longspan.cache.bytes import INTERVAL, Layout, evicting
from longspan.plan import caches
from longspan.plan.shape import Layer, Shape
from longspan.plan.work import Work

STATE = 6
"""Operations for each number of a linear layer's state and each token: read, decay, update, and read again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """How far queries of one layer see. reading, answering: the most keys, on average between evictions; None: all.
    scans: pages that are always read, beyond which summaries are looked through; None: nothing is selected."""

    layer: Layer
    reading: int | None
    answering: int | None
    scans: int | None = None


def reaches(shape: Shape, work: Work) -> Counter[Reach]:
    """The layers of a model under the plan, equal ones counted. Eviction and selection act on layers without a
    window."""
    return Counter(_reaches(shape, work))


def _reaches(shape: Shape, work: Work) -> Iterator[Reach]:
    kept = iter(_kept(shape, work))
    for layer in shape.layers:
        if layer.kind in ("sliding", "chunked"):
            yield Reach(layer, layer.window, layer.window)
        elif layer.kind == "linear":
            yield Reach(layer, 0, 0)
        else:
            yield _whole(layer, work, next(kept))


def _whole(layer: Layer, work: Work, held: int | None) -> Reach:
    """A layer without a window; held: tokens that eviction leaves, on average."""
    reading = None if work.evict is not None and (work.evict.wait or work.evict.once) else held
    answering, scans = held, None
    select = work.select
    if select is not None and select.pages is not None:
        scans = -(-select.near // work.page) + 1 + -(-select.sinks // work.page)
        chosen = (scans + select.pages) * work.page
        seen = select.near + select.sinks + (select.pages * work.page if select.reading == "token" else 0)
        answering = chosen if held is None else min(held, chosen)
        reading = seen if reading is None else min(reading, seen)
    return Reach(layer, reading, answering, scans)


def interval(work: Work) -> int | None:
    """Tokens between the text positions where a cache is tidied, which end a step; None: it never is."""
    if work.evict is not None:
        return evicting(Layout((None,), 1, 1, work.element, work.page, heads=1), work.evict).interval
    return None if work.format is None and work.select is None else INTERVAL


def step(work: Work) -> int:
    """Tokens of one text that a step reads at most."""
    return min(work.chunk, interval(work) or work.chunk)


def _kept(shape: Shape, work: Work) -> list[int | None]:
    """Of each layer without a window: tokens that a lane holds, on average between two evictions; None: all."""
    whole = sum(layer.kind in ("full", "latent") for layer in shape.layers)
    if work.evict is None:
        return [None] * whole
    return [budget + (interval(work) or 0) // 2 for budget in work.evict.budgets(whole)]


def triangle(tokens: int, most: int | None = None) -> int:
    """Keys that all queries of a text see together, where none sees more than the newest `most`."""
    inside = tokens if most is None else min(tokens, most)
    return inside * (inside + 1) // 2 + (tokens - inside) * (most or 0)


def chunks(tokens: int, size: int) -> int:
    """The same where a query sees its own chunk of `size` tokens."""
    return tokens // size * triangle(size) + triangle(tokens % size)


def seen(reach: Reach, tokens: int) -> int:
    """Keys that all queries of a text see together in one layer while it is read."""
    if reach.layer.kind == "chunked":
        return chunks(tokens, reach.layer.window or tokens)
    return triangle(tokens, reach.reading)


def linear_parameters(shape: Shape) -> int:
    """Parameters that one token is multiplied with, but for the output head: of mixtures, its experts."""
    return sum(layer.attention + layer.active for layer in shape.layers)


def head_parameters(shape: Shape) -> int:
    """Of the output head, also where it is the embedding, which may have more numbers than that."""
    return min(shape.embedding, shape.vocab * shape.hidden) if shape.tied else shape.head


def linear_flops(shape: Shape, work: Work, tokens: int, heads: int = 1) -> int:
    """Of the linear layers for so many tokens of each text, `heads` of which ask for logits."""
    once = 2 * linear_parameters(shape) * tokens + 2 * head_parameters(shape) * heads
    return work.batch * once


def pair_flops(layer: Layer) -> int:
    """Of one query and one key in all heads of a layer: the score, and the value that it weighs."""
    return 2 * layer.heads * (layer.qk_dim + layer.v_dim)


def attention_flops(shape: Shape, work: Work, tokens: int) -> int:
    """Of attention while so many tokens of each text are read; a linear layer's state is counted here too."""
    total = 0
    for reach, count in reaches(shape, work).items():
        layer = reach.layer
        total += count * (pair_flops(layer) * seen(reach, tokens) + STATE * layer.state * tokens)
    return work.batch * total


def answer_flops(shape: Shape, work: Work, tokens: int) -> int:
    """Of attention of one step that answers, with so many tokens of each text cached. Latent layers multiply queries
    with the latent numbers themselves (https://arxiv.org/abs/2405.04434)."""
    total = 0
    for reach, count in reaches(shape, work).items():
        layer, keys = reach.layer, limited(tokens, reach.answering)
        pair = 4 * layer.heads * layer.latent if layer.kind == "latent" else pair_flops(layer)
        total += count * (pair * keys + STATE * layer.state)
    return work.batch * total


def weight_bytes(parameters: int, work: Work) -> float:
    """Of weights at `work.weights` bits, with a 16-bit scale for each group."""
    return parameters * (work.weights / 8 + (2 / work.group if work.group and work.weights < 16 else 0))


def coded_head(work: Work) -> bool:
    """Whether the output head is made of codes too: only those of 8 bits with scales (int8)."""
    return work.weights == 8 and work.group > 0


def plain_bytes(shape: Shape, work: Work) -> int:
    """Of a number that is no code, as the embedding, norms and most heads are: as published, where others are codes."""
    return shape.element if work.weights < 16 else 2 if work.weights == 16 else 4


def head_bytes(shape: Shape, work: Work) -> float:
    """Of the output head, as a step reads it."""
    head = head_parameters(shape)
    return weight_bytes(head, work) if coded_head(work) else head * plain_bytes(shape, work)


def read_weights(shape: Shape, work: Work, rows: int) -> float:
    """Bytes of weights that a step of `rows` tokens reads: in mixtures the experts that any token chooses, taken as
    chosen at random."""
    held = 0.0
    for layer, count in Counter(shape.layers).items():
        share = layer.active / layer.mlp if layer.mlp else 1.0
        held += count * (layer.attention + layer.mlp * (1 - (1 - share) ** rows))
    return weight_bytes(int(held), work) + head_bytes(shape, work)


def limited(tokens: int, most: int | None) -> int:
    return tokens if most is None else min(tokens, most)


def token_bytes(layer: Layer, work: Work) -> tuple[float, float]:
    """Bytes of a token of all lanes of a layer: as it is written, and once its page is sealed."""
    written = layer.token_numbers * work.element
    if work.format is None or layer.kind == "latent" or not layer.kv_heads:
        return written, written
    dtype = caches.dtype_of(work.element)
    page = (work.format.bytes(work.page, layer.qk_dim, dtype) + work.format.bytes(work.page, layer.v_dim, dtype)) / 2
    return written, layer.kv_heads * page / work.page


def cached_bytes(layer: Layer, work: Work, tokens: int) -> float:
    """Of so many tokens of a layer, the newest of them not sealed yet: on average half of an interval and a page."""
    written, sealed = token_bytes(layer, work)
    fresh = tokens if work.format is None else min(tokens, (interval(work) or 0) // 2 + work.page)
    return fresh * written + (tokens - fresh) * sealed


def lanes_share(layer: Layer, work: Work) -> float:
    """The part of a layer's lanes that each device holds: those of KV heads that cannot be split are held by all that
    need them."""
    lanes = 1 if layer.kind == "latent" else layer.kv_heads
    return -(-lanes // work.ranks) / lanes if lanes else 1 / work.ranks


def read_cache(shape: Shape, work: Work, tokens: int) -> float:
    """Bytes of keys and values, and of states, that one step that answers reads on each device, with so many tokens of
    each text cached."""
    total = 0.0
    for reach, count in reaches(shape, work).items():
        layer = reach.layer
        keys = cached_bytes(layer, work, limited(tokens, reach.answering)) * lanes_share(layer, work)
        total += count * (keys + 2 * caches.STATE * layer.state / work.ranks)
    return work.batch * total


def scanned(shape: Shape, work: Work, tokens: int) -> float:
    """Bytes of summaries that one such step looks through: the mean of those that choose and those that go on."""
    select = work.select
    if select is None or select.pages is None:
        return 0.0
    hold = 1 if work.evict is not None else select.hold
    total = 0.0
    for reach, count in reaches(shape, work).items():
        if reach.scans is not None and reach.layer.kv_heads:
            held = tokens if work.evict is None else limited(tokens, reach.answering)
            pages = max(-(-held // work.page) - reach.scans, 0)
            size = select.bytes(work.page, reach.layer.qk_dim) * reach.layer.kv_heads
            total += count * pages * size * lanes_share(reach.layer, work)
    return work.batch * total / hold


def reread(shape: Shape, work: Work, tokens: int) -> float:
    """Bytes of the cache that all steps read together, on each device, while so many tokens of each text are read."""
    size = step(work)
    steps = -(-tokens // size)
    total = 0.0
    for reach, count in reaches(shape, work).items():
        layer, most = reach.layer, tokens if reach.reading is None else reach.reading + size
        whole = min(steps - 1, most // size)  # steps whose queries see all that is cached
        keys = size * whole * (whole + 1) // 2 + (steps - 1 - whole) * most + min(tokens, most)
        _, sealed = token_bytes(layer, work)
        held = keys * sealed * lanes_share(layer, work)
        total += count * (held + 2 * caches.STATE * layer.state * steps / work.ranks)
    return work.batch * total
