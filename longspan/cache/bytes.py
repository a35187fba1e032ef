"""The one place where KV bytes are counted: the cache obeys these formulas, and whoever plans uses them too."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the cache must hold of a model.

    windows: one entry per layer, the sliding window W in tokens or None for full attention.
    kv_heads: G, the heads that are stored (never repeated to the query heads). head_dim: D.
    element: bytes of one stored number. page: P, slots of a page.
    """

    windows: tuple[int | None, ...]
    kv_heads: int
    head_dim: int
    element: int
    page: int

    @property
    def page_bytes(self) -> int:
        """Keys and values of one lane's page: 2·P·D numbers."""
        return 2 * self.page * self.head_dim * self.element

    @property
    def token_bytes(self) -> int:
        """2·layers·G·D numbers: what one token costs while every layer holds it."""
        return 2 * len(self.windows) * self.kv_heads * self.head_dim * self.element

    def page_count(self, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """Pages owned at the peak of reading `tokens` tokens, of which the first stands at position `start`.

        A window layer holds the pages that the next chunk's queries can see, and that chunk itself.
        """
        return sum(self.kv_heads * self.layer_pages(w, tokens, start, chunk) for w in self.windows)

    def layer_pages(self, window: int | None, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """The most pages that one lane of such a layer owns at a time."""
        if tokens <= 0:
            return 0
        whole = (start + tokens - 1) // self.page - start // self.page + 1
        if window is None:
            return whole
        return min(whole, (window + chunk - 3) // self.page + 2)

    def bytes(self, tokens: int, start: int = 0, chunk: int = 1) -> int:
        """`page_count` in bytes."""
        return self.page_count(tokens, start, chunk) * self.page_bytes
