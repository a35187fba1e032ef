"""Which layers attend to everything, to a window, to a chunk, or keep a state: as each family's own code decides."""

from __future__ import annotations

from collections.abc import Callable

from longspan.plan.shape import Kind
from longspan.plan.shapes.fields import Fields

Kinds = list[tuple[Kind, int | None]]
"""Kind and window of every layer."""

_NAMES: dict[str, Kind] = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
}


def full(f: Fields, layers: int) -> Kinds:
    """Everything, unless `layer_types` says otherwise."""
    return named(f, layers) or [("full", None)] * layers


def every(f: Fields, layers: int) -> Kinds:
    """`sliding_window`, where it is set, holds in every layer."""
    window = f.optional("sliding_window")
    return named(f, layers) or [("full", None) if window is None else ("sliding", window)] * layers


def late(f: Fields, layers: int) -> Kinds:
    """`sliding_window` holds from layer `max_window_layers` on, where `use_sliding_window` is true."""
    if not f.flag("use_sliding_window"):
        return [("full", None)] * layers
    made = named(f, layers)
    if made:
        return made
    window, first = f.size("sliding_window"), f.size("max_window_layers", least=0)
    return [("sliding", window) if i >= first else ("full", None) for i in range(layers)]


def pattern(period: int) -> Callable[[Fields, int], Kinds]:
    """Every `period`-th layer sees everything, the others a window; `sliding_window_pattern` gives another period."""

    def kinds(f: Fields, layers: int) -> Kinds:
        made = named(f, layers)
        if made:
            return made
        window = f.optional("sliding_window")
        if window is None:
            return [("full", None)] * layers
        given = f.given("sliding_window_pattern", "_sliding_window_pattern")
        if isinstance(given, str):  # exaone's "LLLG"
            step = len(given)
        elif given is None:
            step = period
            f.note(f"layer_types are not given: every {period}. layer sees everything, as {f.family} has it")
        else:
            step = f.whole(given, "sliding_window_pattern")
        return [("full", None) if (i + 1) % step == 0 else ("sliding", window) for i in range(layers)]

    return kinds


def chunked(f: Fields, layers: int) -> Kinds:
    """Layers that rotate attend to their own chunk, those that do not (NoPE) to everything (llama 4)."""
    made = named(f, layers)
    if made:
        return made
    size = f.optional("attention_chunk_size")
    if size is None:
        return [("full", None)] * layers
    rotates = f.listed("no_rope_layers", layers)
    if not rotates:  # an empty list stands for the interval too
        every = f.size("no_rope_layer_interval")
        rotates = [(i + 1) % every for i in range(layers)]
    return [("chunked", size) if one else ("full", None) for one in rotates]


def states(f: Fields, layers: int) -> Kinds:
    """Every fourth layer attends (`full_attention_interval`), the others keep a state."""
    made = named(f, layers)
    if made:
        return made
    given = f.given("full_attention_interval")
    step = 4 if given is None else f.whole(given, "full_attention_interval")
    return [("full", None) if (i + 1) % step == 0 else ("linear", None) for i in range(layers)]


def named(f: Fields, layers: int) -> Kinds | None:
    """What `layer_types` says; None where it is not given. Raises ModelError for a kind that is not known."""
    types = f.listed("layer_types", layers)
    if types is None:
        return None
    made: Kinds = []
    for i, name in enumerate(types):
        kind = _NAMES.get(str(name))
        if kind is None:
            raise f.wrong(f"layer {i} is of type {str(name)[:40]!r}; known: {', '.join(_NAMES)}")
        keys = {"sliding": ("sliding_window",), "chunked": ("attention_chunk_size",)}.get(kind)
        made.append((kind, None if keys is None else f.size(*keys)))
    return made
