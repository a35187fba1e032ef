"""What the rest of longspan knows of a model: numbers, no weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from longspan.cache.bytes import Layout
from longspan.rope import Geometry, Rope


@dataclasses.dataclass(frozen=True)
class Layer:
    """One decoder layer.

    window: W of sliding attention, in tokens (a query at p sees the keys k with p − W < k ≤ p); None is full
    attention. rope: the key of this layer's rotation in `Shape.ropes`; None rotates nothing (NoPE).
    """

    window: int | None
    rope: str | None


@dataclasses.dataclass(frozen=True)
class Shape:
    """A checkpoint's geometry.

    family: transformers' `model_type`. heads: H query heads. kv_heads: G KV heads. head_dim: D. ropes: what the
    checkpoint itself declares, under "all", or under the layer type where layer types rotate differently.
    original: tokens trained at before any scaling (of full attention). trained: the tokens that the checkpoint
    as it stands claims to reach. dtype: that of the weights as stored. parameters: counted in the files' headers,
    tied ones once. eos: the ids that end a text.
    """

    family: str
    layers: tuple[Layer, ...]
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    ropes: Mapping[str, tuple[Rope, Geometry]]
    original: int
    dtype: str
    trained: int
    parameters: int
    eos: tuple[int, ...]

    def layout(self, element: int, page: int) -> Layout:
        """What a cache with `element` bytes a number and `page` slots a page must hold of this model."""
        windows = tuple(layer.window for layer in self.layers)
        return Layout(windows, self.kv_heads, self.head_dim, element, page, heads=self.heads)
