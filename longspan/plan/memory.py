"""What a model, its cache and a step take of a device's memory: part by part, each with its formula."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from longspan.cache.bytes import INTERVAL
from longspan.errors import DoesNotFit, UsageError
from longspan.plan import caches, counts
from longspan.plan.machine import Machine
from longspan.plan.shape import Shape
from longspan.plan.work import Work

RUNTIME = {"gpu": 1 << 30, "cpu": 450 << 20}
"""Bytes that a process takes before it holds a model: on a GPU the CUDA context and the libraries' workspaces, on a CPU
Python with torch and transformers."""
CEILING = 1 << 40
"""Tokens beyond which no more are looked for: a cache that does not grow takes a text without end."""


@dataclass(frozen=True, slots=True)
class Part:
    """name; bytes of one device; formula: how they come about, in words and numbers. spread: the part of `bytes` by
    which the truth may be off, 0 where they are counted and not estimated. cache: whether it is part of the cache."""

    name: str
    bytes: int
    formula: str
    spread: float = 0.0
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """parts: of one device. token: bytes of the cache that one more token of one text takes there, at this context.
    constant: bytes of a text's cache there that do not grow any more. minimum: bytes of all texts over all devices that
    the architecture asks for, without pages, in 16-bit numbers. limit: bytes of a device; None: no machine was named.
    notes: what is worth saying besides."""

    parts: tuple[Part, ...]
    token: float
    constant: int
    minimum: int
    limit: int | None
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def low(self) -> int:
        return sum(int(part.bytes * (1 - part.spread)) for part in self.parts)

    @property
    def high(self) -> int:
        return sum(int(part.bytes * (1 + part.spread)) for part in self.parts)

    @property
    def cache(self) -> int:
        """Bytes of the cache of all texts, on one device."""
        return sum(part.bytes for part in self.parts if part.cache)

    @property
    def fits(self) -> bool:
        """Whether one device holds its part; true where no machine was named."""
        return self.limit is None or self.total <= self.limit

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)


def memory(shape: Shape, work: Work, machine: Machine | None = None) -> Memory:
    """The memory of each device. Raises UsageError where heads cannot be split over the devices as asked."""
    if machine is not None and machine.devices < work.ranks:
        raise UsageError(
            f"ranks: {work.ranks} devices are asked for, {machine.name} has {machine.devices}; give fewer ranks "
            "or more devices"
        )
    notes: list[str] = list(shape.notes)
    made = caches.layouts(shape, work)
    parts = [weights(shape, work), *_cache(shape, work, notes), _activations(shape, work)]
    runtime = RUNTIME["gpu" if machine is None else machine.kind]
    parts.append(Part("runtime", runtime, "a process before it holds a model (estimate)", spread=0.5))
    _notes(shape, work, notes)
    span = math.lcm(INTERVAL, work.page)
    whole = -(-work.context // span) * span
    one, two = (caches.held(made, work, tokens) for tokens in (whole, whole + span))
    token = (two - one) / span
    return Memory(
        tuple(part for part in parts if part.bytes),
        token,
        max(int(one - token * whole), 0) + caches.states(shape, work),
        work.batch * caches.minimum(shape, work.context),
        None if machine is None else machine.memory,
        tuple(notes),
    )


def weights(shape: Shape, work: Work) -> Part:
    """Of one device: split evenly, but for keys' and values' matrices that are copied."""
    wide = 8 * counts.plain_bytes(shape, work)
    bits = work.weights + (16 / work.group if work.group and work.weights < 16 else 0)
    layers = sum(layer.attention + layer.mlp for layer in shape.layers)
    ends = shape.embedding + shape.head + shape.rest
    whole = int(layers * bits / 8) + ends * wide // 8
    text = f"{layers:,} numbers in layers at {bits:g} bits, {ends:,} others at {wide}"
    if counts.coded_head(work):  # beside an embedding that it may share
        head = counts.head_parameters(shape)
        whole += int(counts.head_bytes(shape, work)) - (0 if shape.tied else head * wide // 8)
        text += f", the output head's {head:,} at {bits:g}"
    copied = 0
    for layer in shape.layers:
        if layer.kind == "latent":
            copied += shape.hidden * layer.latent * (work.ranks - 1)
        elif layer.kv_heads:
            mine = caches.share(layer, work.ranks)
            copied += shape.hidden * layer.kv_heads * (layer.qk_dim + layer.v_dim) * (mine.copies - 1)
    size = -(-(whole + int(copied * bits / 8)) // work.ranks)
    if work.ranks > 1:
        text += f"; / {work.ranks} devices" + (f", {copied:,} of them copied" if copied else "")
    return Part("weights", size, text, spread=0.02)


def _cache(shape: Shape, work: Work, notes: list[str]) -> list[Part]:
    """Keys and values, summaries, what is known of slots, and states, of all texts on one device."""
    made = caches.layouts(shape, work)
    whole = caches.held(made, work)
    bare = caches.held([caches.without_sums(one) for one in made], work)
    plain = caches.held([caches.without_notes(caches.without_sums(one)) for one in made], work)
    texts = f"{work.batch:,} × " if work.batch > 1 else ""
    lanes = " + ".join(_written(shape, work))
    stored = "" if work.format is None else f", full pages in {type(work.format).__name__.lower()}"
    evicted = "" if work.evict is None else f", of which {type(work.evict).__name__.lower()} keeps a budget"
    parts = [
        Part("cache", plain, f"{texts}{lanes}{stored}{evicted}", cache=True),
        Part("summaries", whole - bare, f"{texts}one for each full page and lane", cache=True),
        Part("notes", bare - plain, f"{texts}what eviction knows of each slot", cache=True),
        Part(
            "states",
            work.batch * caches.states(shape, work),
            f"{texts}states of linear layers in float32",
            cache=True,
        ),
    ]
    if work.offloaded:
        notes.append("full pages lie in a file; the memory that its newest pages take is for `resident` to say")
    return parts


def _written(shape: Shape, work: Work) -> list[str]:
    """The cache of each kind of layer, as a product."""
    kinds: dict[tuple[object, ...], int] = {}
    for layer in shape.layers:
        if layer.token_numbers:
            mine = caches.share(layer, work.ranks)
            key = layer.kind, layer.window, mine.kv_heads, layer.qk_dim, layer.v_dim, layer.latent
            kinds[key] = kinds.get(key, 0) + 1
    made = []
    for (kind, window, kv_heads, qk_dim, v_dim, latent), count in kinds.items():
        numbers = f"{latent} numbers" if kind == "latent" else f"{kv_heads} KV heads × ({qk_dim} + {v_dim})"
        seen = f"{work.context:,} tokens"
        if isinstance(window, int) and window < work.context:
            seen = f"{window:,} of {work.context:,} tokens and a step"
        made.append(f"{count} {kind} layers × {numbers} × {work.element} bytes × {seen}")
    return made


def _activations(shape: Shape, work: Work) -> Part:
    """The widest moment of a step: residual stream, and what attention or an MLP makes of it; each text's logits."""
    rows = min(work.chunk, work.context) if work.batch == 1 else max(min(work.chunk, work.context), work.batch)
    widest = 0
    for layer in set(shape.layers):
        heads = layer.heads / work.ranks
        stored = -(-layer.kv_heads // work.ranks)
        attention = heads * (2 * layer.qk_dim + layer.v_dim) + stored * (layer.qk_dim + layer.v_dim)
        used = layer.active / max(shape.hidden, 1) / work.ranks  # inner widths of all matrices, gate and all
        widest = max(widest, int(attention), int(used))
    numbers = 3 * shape.hidden + widest
    logits = work.batch * shape.vocab * 4 // work.ranks
    text = f"{rows:,} rows × (3 × {shape.hidden:,} + {widest:,}) × {work.element} bytes + logits {logits:,} (estimate)"
    return Part("activations", rows * numbers * work.element + logits, text, spread=0.5)


def _notes(shape: Shape, work: Work, notes: list[str]) -> None:
    ranks = work.ranks
    copied = sorted({(layer.kv_heads, caches.share(layer, ranks).copies) for layer in shape.layers if layer.kv_heads})
    for stored, copies in copied:
        if copies > 1:
            notes.append(
                f"{stored} KV heads cannot be split over {ranks} devices: {copies} of them hold the same head, so the "
                f"cache takes {copies} times as much in all"
            )
    kinds = {layer.kind for layer in shape.layers}
    if "latent" in kinds and ranks > 1:
        notes.append(f"the latent vectors of MLA belong to all heads: each of {ranks} devices holds them whole")
    if kinds & {"linear"} and any(layer.state and layer.heads % ranks for layer in shape.layers):
        notes.append(f"the states of linear layers cannot be split over {ranks} devices: each holds them whole")
    if work.context > shape.trained:
        notes.append(
            f"{work.context:,} tokens are more than the {shape.trained:,} that the model claims to reach: positions "
            "have to be scaled, or pages chosen"
        )
    if kinds & {"latent", "linear", "chunked"} and (work.format or work.evict or work.select):
        notes.append(
            "longspan's engine does not run this architecture; its formats and policies are counted all the same"
        )


def max_context(shape: Shape, work: Work, limit: int, machine: Machine | None = None) -> int:
    """The longest text, in whole pages, with which no device takes more than `limit` bytes; `CEILING` where the cache
    does not grow. The tokens to generate are part of it. Raises DoesNotFit where not even one page fits."""

    def fits(pages: int) -> bool:
        context = pages * work.page
        return memory(shape, _of(work, context), machine).total <= limit

    if not fits(1):
        need = memory(shape, _of(work, work.page), machine).total
        raise DoesNotFit(
            f"memory: {shape.name} with {work.page} tokens takes {need:,} bytes of each device, {limit:,} are there; "
            "give more memory or devices, fewer bits of a weight, or a smaller model"
        )
    most = CEILING // work.page
    if fits(most):
        return most * work.page
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * work.page


def _of(work: Work, context: int) -> Work:
    return dataclasses.replace(work, context=context, new=min(work.new, context))
