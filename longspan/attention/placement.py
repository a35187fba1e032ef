"""At which distance a slot stands from the query: the rule behind `--place`.

Keys are stored turned by their offset in their page of the text. A placement says by how much more a key is turned
before it meets the queries, and by how much the queries are, both counted in tokens from a common reference.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from longspan.errors import UsageError

NONE = 1 << 40
"""Beyond every position."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """keys [G, S]: by how many `unit`s (1 token, or P) each is turned further. queries [G, R] or [R]: by how many
    tokens each is turned."""

    keys: torch.Tensor
    unit: int
    queries: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Text:
    """The true distance in the text, however far."""

    blockwise: ClassVar[bool] = False

    def place(self, positions: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor, page: int) -> Placed:
        """positions [G, S]: of the slots. slots [G, R]: where each query's own key lies. rows [R]: positions."""
        reference = rows[-1] // page
        return Placed(positions // page - reference, page, rows - reference * page)

    def align(self, positions: torch.Tensor, page: int) -> tuple[torch.Tensor, torch.Tensor]:
        """By how many tokens keys [G, C·P] are turned so that those of a page of slots stand at one reference, and
        these references [G, C], for `toward`. positions [G, C·P]: of the slots."""
        return _aligned(positions // page * page, positions, page)

    def toward(self, references: torch.Tensor, rows: torch.Tensor, own: torch.Tensor, page: int) -> torch.Tensor:
        """By how many tokens queries are turned to meet what `align` made of each page of slots: [G, C, R]. rows [R]:
        their positions. own [G, R]: slots that hold their own keys, holes left out."""
        return rows - references[..., None]

    def reach(self, tokens: int, held: int, page: int) -> int:
        """The largest distance that an angle is formed of, when `tokens` were read and a lane holds `held`."""
        return tokens


@dataclasses.dataclass(frozen=True)
class Slot:
    """The distance in the cache: what was evicted leaves no gap (StreamingLLM, https://arxiv.org/abs/2309.17453)."""

    blockwise: ClassVar[bool] = False

    def place(self, positions: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor, page: int) -> Placed:
        """See `Text.place`."""
        held = ranks(positions)
        return Placed(held - positions % page, 1, held.gather(1, slots))

    def align(self, positions: torch.Tensor, page: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Text.align`."""
        return _aligned(ranks(positions) - positions % page, positions, page)

    def toward(self, references: torch.Tensor, rows: torch.Tensor, own: torch.Tensor, page: int) -> torch.Tensor:
        """See `Text.toward`."""
        return own[:, None] - references[..., None]

    def reach(self, tokens: int, held: int, page: int) -> int:
        """See `Text.reach`."""
        return min(tokens, held)


@dataclasses.dataclass(frozen=True)
class Far:
    """The true distance up to `near` tokens, in whole pages; beyond, one distance for all (InfLLM,
    https://arxiv.org/abs/2402.04617), or, with order=true, consecutive pages in the order of the text (Landmark
    attention, https://arxiv.org/abs/2305.16300)."""

    near: int = 512
    order: bool = False
    blockwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.near < 1:
            raise UsageError(f"far: near={self.near}; give the tokens that keep their distance, at least 1")

    def place(self, positions: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor, page: int) -> Placed:
        """See `Text.place`. The rows lie in one page of the text."""
        reference = rows[-1] // page
        back = reference - positions // page
        edge = -(-self.near // page)
        if self.order:
            # slots are in text order, so each new page number is a further page; the last far one stands nearest
            pages = (positions // page).cummax(1).values  # holes count to the page before
            before = torch.nn.functional.pad(pages[:, :-1], (1, 0), value=-1)
            far = (back > edge) & (positions >= 0)
            count = (far & (pages != before)).cumsum(1)
            back = torch.where(far, edge + 1 + count[:, -1:] - count, back)
        else:
            back = back.clamp_max(edge + 1)
        return Placed(-back, page, rows - reference * page)

    def align(self, positions: torch.Tensor, page: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Text.align`. All pages stand at one distance, as they are stored."""
        return torch.zeros_like(positions), torch.zeros_like(positions[:, ::page])

    def toward(self, references: torch.Tensor, rows: torch.Tensor, own: torch.Tensor, page: int) -> torch.Tensor:
        """See `Text.toward`."""
        away = (-(-self.near // page) + 1) * page
        return (rows % page + away).expand(*references.shape, -1)

    def reach(self, tokens: int, held: int, page: int) -> int:
        """See `Text.reach`."""
        near = (-(-self.near // page) + 2) * page
        return min(tokens, near + (held if self.order else 0))


Placement = Text | Slot | Far


def ranks(positions: torch.Tensor) -> torch.Tensor:
    """[G, S]: how many slots before each one hold a token; holes take no place."""
    return (positions >= 0).cumsum(1) - (positions >= 0).long()


def _aligned(bases: torch.Tensor, positions: torch.Tensor, page: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`align`, where `bases` [G, C·P] are what the offsets of keys count from; the first of a page is its reference."""
    held = positions >= 0
    first = torch.unflatten(torch.where(held, bases, NONE), 1, (-1, page)).amin(2)
    first = first.masked_fill(first == NONE, 0)
    return (bases - first.repeat_interleave(page, 1)).masked_fill(~held, 0), first


PLACEMENTS: dict[str, type[Text] | type[Slot] | type[Far]] = {"text": Text, "slot": Slot, "far": Far}
