"""Which plan meets a memory and a quality, and what would fit where the one that was asked for does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from longspan import spec
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.errors import UsageError
from longspan.plan import losses
from longspan.plan.hardware import resized
from longspan.plan.losses import Loss
from longspan.plan.machine import Machine
from longspan.plan.shape import Shape
from longspan.plan.work import Work

WEIGHTS: dict[str, tuple[int, int]] = {"stored": (0, 0), "fp8": (8, 0), "int8": (8, 64), "int4": (4, 64)}
"""Bits of a weight and weights with one scale; 0 bits: as published. `int8` and `int4` are those of the engine."""

_CODES = "docs/measurements.md, 2026-11-25, Weights as codes: quality"
_OF_WEIGHTS = {
    "int8": Loss(+0.0, -1.1, +1.1, f"{losses.MODEL}, 400 questions, perplexity 8.933 for 8.932", _CODES),
    "int4": Loss(+0.2, -1.0, +1.6, f"{losses.MODEL}, 400 questions, perplexity 9.254 for 8.932", _CODES),
}
SMALLER = {"dense": ("int8", "int4"), "int8": ("int4",), "fp8": ("int4",)}
"""Formats that take less than the one that is asked for."""
DEVICES = 2, 4, 8, 16, 32, 64

Size = Callable[[Shape, Work, "Machine | None"], int]
"""Bytes on the fullest device."""


def expected(work: Work, weights: str = "stored") -> dict[str, Loss | None]:
    """What each part of a plan is known to lose; None: it loses something, but that was not measured."""
    found: dict[str, Loss | None] = {}
    if work.format is not None:
        name = spec.render(work.format, FORMATS)
        if not name.startswith("dense"):
            found[name] = losses.of_format(name.partition(":")[0], work.context)
    if work.evict is not None:
        name = spec.render(work.evict, POLICIES)
        share = work.evict.budgets(1)[0] / work.context
        if share < 1:
            kind = name.partition(":")[0]
            found[name] = losses.of_eviction(kind, share, work.context, work.evict.wait)
    if work.select is not None:
        name = spec.render(work.select, SELECTIONS)
        found[name] = losses.of_selection(name.partition(":")[0], work.context)
    if weights != "stored":
        found[f"weights {weights}"] = _OF_WEIGHTS.get(weights)
    return found


def elsewhere(work: Work) -> dict[str, str]:
    """What others measured of the eviction that is asked for, beside our own figure."""
    if work.evict is None or work.evict.wait:
        return {}
    name = spec.render(work.evict, POLICIES)
    told = losses.elsewhere(name.partition(":")[0], work.evict.budgets(1)[0] / work.context)
    return {name: told} if told else {}


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """A plan. words: as options of the command line. points: that all its parts together are expected to lose or win;
    None: a part was not measured. bytes: on a device. fits, good: whether within the memory, and the quality."""

    words: str
    work: Work
    weights: str
    points: float | None
    bytes: int
    fits: bool
    good: bool


def options(
    shape: Shape, work: Work, machine: Machine | None, limit: int, size: Size, worst: float, weights: str = "stored"
) -> list[Option]:
    """Plans that keep the length, those that lose least first; of equal ones the one nearest to what was asked.

    limit: bytes of a device. worst: points of a hundred that may be lost. Only plans that change the size are listed.
    """
    made: list[Option] = []
    seen: set[int] = set()
    for words, tried, form in _plans(shape, work, weights):
        need = size(shape, tried, machine)
        if made and need in seen:
            continue  # nothing that this part acts on
        seen.add(need)
        known = expected(tried, form).values()
        points = None if None in known else sum(min(loss.points, 0.0) for loss in known if loss is not None)
        good = points is not None and points >= -worst
        made.append(Option(words, tried, form, points, need, need <= limit, good))
    return sorted(made, key=lambda option: (option.points is None, -(option.points or 0.0)))


def _plans(shape: Shape, work: Work, weights: str) -> Iterator[tuple[str, Work, str]]:
    yield "", work, weights
    stored = "dense" if work.format is None else type(work.format).__name__.lower()
    formats = [_grouped(name, shape) for name in SMALLER.get(stored, ())]
    forms = [weights, *(form for form in ("int8", "int4") if WEIGHTS[form][0] < (WEIGHTS[weights][0] or 16))]
    kept = () if work.evict is not None or work.offloaded else (work.context // 2, work.context // 4)
    for form in forms:
        heavy = replace_weights(shape, work, form)
        extra = "" if form == weights else f" --weights {form}"
        for format in ("", *formats):
            begun = _with(heavy, shape, format=format)
            if begun is None:
                continue
            words = (f"--format {format}" if format else "") + extra
            if words:
                yield words.strip(), begun, form
            near = min(max(shape.trained // 2 // 64, 1) * 64, 4096)
            select = f"sketch:pages={near // 64},near={near}"
            free = work.evict is None and work.select is None and near * 2 < work.context
            filed = _with(begun, shape, select=select, offloaded=True) if free else None
            if filed is not None:
                yield f"{words} --select {select} --offload".strip(), filed, form
            for budget in kept:
                evict = f"keydiff:budget={max(budget // 64, 1) * 64}"
                evicted = _with(begun, shape, evict=evict)
                if evicted is not None:
                    yield f"{words} --evict {evict}".strip(), evicted, form


def _grouped(name: str, shape: Shape) -> str:
    """The format, with the largest group of up to its own 32 channels that divides every layer's values."""
    dims = {-(-(layer.latent or layer.qk_dim + layer.v_dim) // 2) for layer in shape.layers if layer.token_numbers}
    group = max(size for size in range(1, 33) if not any(dim % min(size, dim) for dim in dims))
    return name if group == 32 else f"{name}:group={group}"


def replace_weights(shape: Shape, work: Work, form: str) -> Work:
    """Raises UsageError for a form that is not known."""
    if form not in WEIGHTS:
        raise UsageError(f"weights {form!r} is not known; known: {', '.join(WEIGHTS)}")
    bits, group = WEIGHTS[form]
    return dataclasses.replace(work, weights=bits or 8 * shape.element, group=group)


def _with(
    work: Work, shape: Shape, format: str = "", select: str = "", evict: str = "", offloaded: bool = False
) -> Work | None:
    """The work with parts in place of its own; None: where a head cannot be stored so."""
    changed = dataclasses.replace(work, offloaded=work.offloaded or offloaded)
    if format:
        changed = dataclasses.replace(changed, format=spec.parse(format, FORMATS, "format"))
    if select:
        changed = dataclasses.replace(changed, select=spec.parse(select, SELECTIONS, "select"))
        if not all(layer.qk_dim % 4 == 0 for layer in shape.layers if layer.kv_heads):
            return None
    if evict:
        changed = dataclasses.replace(changed, evict=spec.parse(evict, POLICIES, "evict"))
    return changed


@dataclasses.dataclass(frozen=True, slots=True)
class Near:
    """A change after which it fits. kind: plan, weights, hardware, context or batch. words: what to ask for. note: what
    that costs. bytes, limit: of a device."""

    kind: str
    words: str
    note: str
    bytes: int
    limit: int


def nearest(
    shape: Shape,
    work: Work,
    machine: Machine | None,
    limit: int,
    size: Size,
    longest: int,
    cards: Mapping[str, Machine],
    weights: str = "stored",
) -> list[Near]:
    """What fits, nearest first: the plan that loses least, more devices, another card, fewer texts, a shorter one.

    longest: tokens that fit as asked, 0: none. cards: machines of one device by name, the smallest first. [] where it
    fits as asked.
    """
    if size(shape, work, machine) <= limit:
        return []
    found: list[Near] = []
    plans = [option for option in options(shape, work, machine, limit, size, 100.0, weights) if option.fits]
    if plans:
        best = plans[0]
        found.append(Near("plan", best.words, _lost(best), best.bytes, limit))
        parts = len(best.words.split())
        simple = next((option for option in plans if len(option.words.split()) < parts), None)
        if simple is not None:
            found.append(Near("plan", simple.words, _lost(simple), simple.bytes, limit))
    found += _hardware(shape, work, machine, limit, size, cards)
    if work.batch > 1:
        fewer = _most(lambda batch: size(shape, dataclasses.replace(work, batch=batch), machine) <= limit, work.batch)
        if fewer:
            need = size(shape, dataclasses.replace(work, batch=fewer), machine)
            found.append(Near("batch", f"--batch {fewer}", "fewer texts at once", need, limit))
    if work.new < longest < work.context:
        need = size(shape, dataclasses.replace(work, context=longest), machine)
        found.append(Near("context", f"--context {longest}", "a shorter text", need, limit))
    return found


def _hardware(
    shape: Shape, work: Work, machine: Machine | None, limit: int, size: Size, cards: Mapping[str, Machine]
) -> Iterator[Near]:
    """Fewest more devices of the same kind, and the smallest other card that holds it alone: with all of its memory,
    whatever was said of that of the others."""
    name = next((name for name, card in cards.items() if machine is not None and _alike(card, machine)), None)
    if name is not None and machine is not None:
        for count in (count for count in DEVICES if count > machine.devices):
            more = resized(dataclasses.replace(machine, devices=count), limit)
            need = _split(shape, dataclasses.replace(work, ranks=count), more, size)
            if need is not None and need <= limit:
                yield Near("hardware", f"--hardware {name}x{count}", "the same plan, shared", need, limit)
                break
    note = "the smallest single card that holds it"
    if machine is None or limit != machine.memory:
        note += ", without --memory"
    for name, card in cards.items():
        need = size(shape, dataclasses.replace(work, ranks=1), card)
        if need <= card.memory and card.kind == "gpu" and not (machine is not None and _alike(card, machine)):
            yield Near("hardware", f"--hardware {name}", note, need, card.memory)
            break


def _alike(card: Machine, machine: Machine) -> bool:
    return (card.memory, card.bandwidth, card.flops) == (machine.memory, machine.bandwidth, machine.flops)


def _split(shape: Shape, work: Work, machine: Machine, size: Size) -> int | None:
    """None: heads cannot be split over so many devices."""
    try:
        return size(shape, work, machine)
    except UsageError:
        return None


def _lost(option: Option) -> str:
    slow = "; how long pages in a file take was not measured" if option.work.offloaded else ""
    if option.points is None:
        return f"what it loses was not measured{slow}"
    return (f"{option.points:+.1f} points expected" if option.points else "no loss measured") + slow


def _most(holds: Callable[[int], bool], below: int) -> int:
    """The greatest number under `below` for which `holds`, which fails from some number on; 0: none."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
