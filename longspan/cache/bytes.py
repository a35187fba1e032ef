"""The one place where KV bytes are counted: the cache obeys these formulas, and whoever plans uses them too."""

from __future__ import annotations

import dataclasses

INTERVAL = 256
"""Tokens between the text positions where a cache is tidied, where it has anything to tidy. A longer one would keep
more pages unsealed, a shorter one cut the prompt into smaller steps."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the cache must hold of a model.

    windows: one entry per layer, the sliding window W in tokens or None for full attention.
    kv_heads: G, the heads that are stored (never repeated to the query heads). head_dim: D.
    element: bytes of one number as the model makes it. page: P, slots of a page.
    sealed_bytes: of one lane's page in the format that full pages are stored in; None where they stay as they are.
    interval: E, a multiple of P. What happens to the cache of a text happens at text positions that are multiples
        of it, so a step never goes beyond one; None where nothing happens.
    """

    windows: tuple[int | None, ...]
    kv_heads: int
    head_dim: int
    element: int
    page: int
    sealed_bytes: int | None = None
    interval: int | None = None

    @property
    def page_bytes(self) -> int:
        """Keys and values of one lane's page: 2·P·D numbers."""
        return 2 * self.page * self.head_dim * self.element

    @property
    def token_bytes(self) -> int:
        """2·layers·G·D numbers: what one token costs while every layer holds it."""
        return 2 * len(self.windows) * self.kv_heads * self.head_dim * self.element

    @property
    def open_pages(self) -> int | None:
        """The most pages of a lane that are not sealed: the newest, and all since the last multiple of the interval."""
        return None if self.sealed_bytes is None or self.interval is None else self.interval // self.page + 1

    def layer_pages(self, window: int | None, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """The most pages that one lane owns at a time while `tokens` tokens are read from position `start` on.

        A window layer holds the pages that the next chunk's queries can see, and that chunk itself.
        """
        if tokens <= 0:
            return 0
        whole = (start + tokens - 1) // self.page - start // self.page + 1
        if window is None:
            return whole
        return min(whole, (window + chunk - 3) // self.page + 2)

    def lane_bytes(self, window: int | None, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """`layer_pages` in bytes: the oldest sealed, the newest as they are."""
        pages = self.layer_pages(window, tokens, start, chunk)
        if self.sealed_bytes is None or self.open_pages is None:
            return pages * self.page_bytes
        unsealed = min(pages, self.open_pages)
        return unsealed * self.page_bytes + (pages - unsealed) * self.sealed_bytes

    def bytes(self, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """The most bytes that a text's cache takes, over all layers and KV heads."""
        return self.kv_heads * sum(self.lane_bytes(w, tokens, start, chunk) for w in self.windows)
