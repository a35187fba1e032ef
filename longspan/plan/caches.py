"""The cache of a text, layer kind by layer kind, counted by the formulas that the cache itself obeys."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longspan.cache.bytes import Layout, storing
from longspan.errors import UsageError
from longspan.plan.rooms import Counted
from longspan.plan.shape import Layer, Shape
from longspan.plan.work import Work

if TYPE_CHECKING:
    import torch

STATE = 4
"""Bytes of a number of a linear layer's state: kept in float32, as rounding would add up over a text."""


@dataclass(frozen=True)
class Share:
    """What one device holds of a layer's heads. heads, kv_heads: how many. copies: devices with the same KV head."""

    heads: int
    kv_heads: int
    copies: int


def share(layer: Layer, ranks: int) -> Share:
    """Of a layer whose heads are split over `ranks` devices; KV heads are copied where there are too few of them.

    Raises UsageError where heads cannot be split evenly.
    """
    if layer.heads % ranks:
        raise UsageError(f"ranks: {layer.heads} heads cannot be split over {ranks} devices; give {_fitting(layer)}")
    heads, stored = layer.heads // ranks, layer.kv_heads
    if stored == 0 or stored % ranks == 0:
        return Share(heads, stored // ranks, 1)
    if ranks % stored == 0:
        return Share(heads, 1, ranks // stored)
    raise UsageError(
        f"ranks: {stored} KV heads can be neither split nor copied evenly over {ranks} devices; give {_fitting(layer)}"
    )


def _fitting(layer: Layer) -> str:
    """Numbers of devices that this layer can be split over, in words."""
    stored = layer.kv_heads or layer.heads
    legal = [n for n in range(1, layer.heads + 1) if layer.heads % n == 0 and (stored % n == 0 or n % stored == 0)]
    return ", ".join(map(str, legal))


def layouts(shape: Shape, work: Work) -> list[Layout]:
    """What one device must hold of a text: one layout for all layers that keep equally many numbers of a token.

    An MLA layer counts as one lane that holds its latent vector, half of it in place of keys, half of values. Linear
    layers keep no tokens; see `states`. The layers of a model that the engine runs are alike, and make one layout.
    """
    members: dict[tuple[int, int, int], list[int | None]] = {}
    for layer in shape.layers:
        if not layer.token_numbers:
            continue
        if layer.kind == "latent":
            key = 1, -(-layer.latent // 2), layer.heads // share(layer, work.ranks).heads
        else:
            mine = share(layer, work.ranks)
            key = mine.kv_heads, -(-(layer.qk_dim + layer.v_dim) // 2), mine.heads
        members.setdefault(key, []).append(layer.window)
    dtype = dtype_of(work.element)
    return [
        storing(
            Counted(tuple(windows), kv_heads, dim, work.element, work.page, heads=heads),
            dtype,
            work.format,
            work.evict,
            work.select,
            work.offloaded,
        )
        for (kv_heads, dim, heads), windows in members.items()
    ]


def states(shape: Shape, work: Work) -> int:
    """Bytes of a text's states of linear layers on one device: each device has its heads' part, or all of it where
    these cannot be split."""
    size = 0
    for layer, count in Counter(shape.layers).items():
        parts = work.ranks if layer.state and layer.heads % work.ranks == 0 else 1
        size += count * -(-layer.state // parts) * STATE
    return size


def dtype_of(element: int) -> torch.dtype:
    import torch

    return {2: torch.bfloat16, 4: torch.float32}[element]


def held(made: list[Layout], work: Work, tokens: int | None = None) -> int:
    """Bytes of all texts, or of one that is read up to `tokens` tokens. One text is being read, `chunk` tokens in a
    step; the others are answered. The last token that is generated is not cached."""
    if tokens is not None:
        return sum(layout.peak(tokens, (tokens,), work.chunk) for layout in made)
    prompt, others = work.context - work.new, work.batch - 1
    cached = work.context - (1 if work.new else 0)
    size = 0
    for layout in made:
        one = layout.peak(cached, (prompt,), work.chunk)
        size += one + others * min(one, layout.bytes(cached, chunk=1))
    return size


def without_sums(layout: Layout) -> Layout:
    """The same, where no page has a summary."""
    return dataclasses.replace(layout, summary_bytes=0)


def without_notes(layout: Layout) -> Layout:
    """The same, where nothing is known of slots."""
    return dataclasses.replace(layout, note_bytes=0)


def minimum(shape: Shape, tokens: int, element: int = 2) -> int:
    """Bytes that the architecture itself asks for, over all devices: of each layer the tokens that a coming query can
    see, to the token, without pages; and states."""
    size = 0
    for layer, count in Counter(shape.layers).items():
        seen = tokens if layer.window is None else min(tokens, layer.window)
        size += count * (seen * layer.token_numbers * element + layer.state * STATE)
    return size


def per_token(shape: Shape, element: int = 2) -> int:
    """Bytes that each token takes up to the trained length: of layers that see all of it."""
    return element * sum(layer.token_numbers for layer in shape.layers if _window(shape, layer) is None)


def constant(shape: Shape, element: int = 2) -> int:
    """Bytes that a long text takes whatever its length: full windows, and states."""
    windows = sum((_window(shape, layer) or 0) * layer.token_numbers for layer in shape.layers)
    return element * windows + STATE * sum(layer.state for layer in shape.layers)


def _window(shape: Shape, layer: Layer) -> int | None:
    """The layer's window where it is narrower than the trained length."""
    return None if layer.window is None or layer.window >= shape.trained else layer.window
