"""What a selection is, and what every selection that reads a few pages does alike."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

from longspan.errors import UsageError

Stored = dict[str, Tensor]
"""Named buffers of the summaries of n pages, or of N pages of B lanes, before what `layout` says of one page."""

Buffers = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of each buffer of one page's summary, without leading dimensions."""

LIMIT = 65504.0  # float16's largest number


class Selection(Protocol):
    """Which pages a query reads, by summaries made when pages are sealed.

    B lanes (times sequences), N pages of each, R query rows of each, D head dim, P slots of a page. A selection
    holds no state and loops over no pages. Keys are rotated by their offset in their page, so queries are to be
    turned by the distance at which the pages stand before they are scored.
    """

    @property
    def pages(self) -> int | None:
        """Pages that a query reads of each lane, besides those it always reads. None: every page; nothing is scored."""

    @property
    def near(self) -> int:
        """The newest tokens, which every query reads."""

    @property
    def sinks(self) -> int:
        """The text's first tokens: every query reads the page that holds them."""

    @property
    def hold(self) -> int:
        """Tokens of an answer that read the pages found by one query; 1: every token chooses for itself."""

    @property
    def reading(self) -> str:
        """Whether text that is only read chooses pages too ("token") or not ("window")."""

    def layout(self, page: int, head_dim: int) -> Buffers:
        """The buffers of one page's summary. Raises UsageError when such pages cannot be summarised."""

    def bytes(self, page: int, head_dim: int) -> int:
        """Bytes of one page's summary."""

    def summarise(self, keys: Tensor, valid: Tensor | None = None, mass: Tensor | None = None) -> Stored:
        """The summaries of n pages. keys [n, D, P], valid [n, P] bool or None for all, mass [n, P] attention received.

        Slots that are not valid never count and may hold anything, NaN too. Keys are clamped to ±65504. Works in
        float32, with room for the n pages several times over.
        """

    def score(self, queries: Tensor, stored: Stored) -> Tensor:
        """Scores float32 [B, R, N]: the larger, the more a query should read the page. −inf: never.

        queries [B, R, D] float32; stored [B, N, …], views of any strides. Each row's scores depend on that row
        alone. A page without valid slots scores −inf. Working buffers do not grow with N.
        """


@dataclasses.dataclass(frozen=True)
class Few(abc.ABC):
    """A selection that reads the `pages` best pages of each lane, the page of the `sinks`, and the `near` tokens.

    reading: "window": text that is only read sees its sinks and near tokens, and questions choose, token by token;
    "token": every token chooses, which takes long for a long text.
    hold: an answer reads the pages that the last token of its prompt looked at most, in whatever layer, and those that
    follow them; after so many tokens one of its own looks anew. 1: each of its tokens chooses for itself. Half an
    answer is no good query: 1,000,000 tokens hold many places that begin alike.
    """

    pages: int = 8
    near: int = 512
    sinks: int = 4
    reading: str = "window"
    hold: int = 64

    def __post_init__(self) -> None:
        if self.pages < 1:
            self._refuse(f"pages={self.pages} reads no page; give 1 or more, or select all")
        if self.near < 1:
            self._refuse(f"near={self.near} would hide a query's own token; give 1 or more")
        if self.reading not in ("window", "token"):
            self._refuse(f"reading={self.reading}; give window or token")
        if self.hold < 1:
            self._refuse(f"hold={self.hold}; it counts tokens of an answer, so give 1 or more")
        if self.sinks < 0:
            self._refuse(f"sinks={self.sinks}; it counts the text's first tokens, so give 0 or more")

    @abc.abstractmethod
    def layout(self, page: int, head_dim: int) -> Buffers:
        """See `Selection`."""

    def bytes(self, page: int, head_dim: int) -> int:
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.layout(page, head_dim).values())

    def _refuse(self, problem: str) -> None:
        raise UsageError(f"select: {type(self).__name__.lower()}: {problem}")


def fill(keys: Tensor, valid: Tensor | None) -> Tensor:
    """float32 keys [n, D, P] without holes: a hole repeats the page's first valid key, so that no least, greatest or
    best one changes. A page without valid slots is all NaN, which `hide` turns into scores of −inf."""
    keys = keys.float().clamp(-LIMIT, LIMIT)
    if valid is None:
        return keys
    first = valid.int().argmax(-1)[:, None, None].expand(-1, keys.shape[1], 1)
    repeated = torch.where(valid.any(-1)[:, None, None], keys.gather(2, first), torch.nan)
    return torch.where(valid[:, None], keys, repeated)


def hide(scores: Tensor) -> Tensor:
    """`scores`, with the NaN of pages that have no valid slot as −inf, in place."""
    return scores.masked_fill_(scores.isnan(), -torch.inf)
