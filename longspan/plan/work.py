"""What is asked of a machine: texts of a length, and the ways in which they are read and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.cache.eviction.view import Policy
    from longspan.cache.formats.format import Format
    from longspan.cache.summaries.selection import Selection

LONGEST = 1 << 28
"""Tokens of a text that may be asked for, or that a model may claim."""


@dataclass(frozen=True, slots=True)
class Work:
    """context: tokens of a text with its answer, of which the last `new` are generated. batch: texts at once.

    format: how full pages are stored; None: as they are written. evict: which tokens stay; None: all. select: which
    pages a query reads; None: all. offloaded: whether full pages lie in a file. element: bytes of a number of
    activations and of unsealed pages. weights: bits of a weight, `group` weights with a scale (0: without scales).
    page: P. chunk: tokens of a step. ranks: devices that share the model by tensor parallelism.
    """

    context: int
    new: int = 128
    batch: int = 1
    format: Format | None = None
    evict: Policy | None = None
    select: Selection | None = None
    offloaded: bool = False
    element: int = 2
    weights: int = 16
    group: int = 0
    page: int = 64
    chunk: int = 2048
    ranks: int = 1

    def __post_init__(self) -> None:
        """Raises UsageError for sizes that make no sense, and for parts that contradict each other."""
        for name in ("context", "batch", "page", "chunk", "ranks"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name):,}; give 1 or more")
        if not 0 <= self.new <= self.context:
            raise UsageError(
                f"new: {self.new:,} tokens to generate, but text and answer are to be {self.context:,} together; give "
                "fewer, or more context"
            )
        if self.element not in (2, 4):
            raise UsageError(f"element: {self.element} bytes of a number; give 2 (16 bits) or 4 (32 bits)")
        if not 1 <= self.weights <= 32 or self.group < 0:
            raise UsageError(f"weights: {self.weights} bits, {self.group} with a scale; give 1 to 32 bits")
        if self.offloaded and self.evict is not None:
            raise UsageError("offload: what eviction leaves stays in memory; leave out the file or the eviction")
