"""At which distance a slot stands from the query: the rule behind `--place`.

Keys are stored turned by their offset in their page of the text. A placement says by how much more a key is turned
before it meets the queries, and by how much the queries are, both counted in tokens from a common reference.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from longspan.errors import UsageError


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

    def reach(self, tokens: int, held: int, page: int) -> int:
        """The largest distance that an angle is formed of, when `tokens` were read and a lane holds `held`."""
        return tokens


@dataclasses.dataclass(frozen=True)
class Slot:
    """The distance in the cache: what was evicted leaves no gap (StreamingLLM, https://arxiv.org/abs/2309.17453)."""

    blockwise: ClassVar[bool] = False

    def place(self, positions: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor, page: int) -> Placed:
        """See `Text.place`."""
        held = torch.arange(positions.shape[1], device=positions.device)
        return Placed(held - positions % page, 1, slots)

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
            pages = positions // page
            before = torch.nn.functional.pad(pages[:, :-1], (1, 0), value=-1)
            far = (back > edge) & (positions >= 0)
            count = (far & (pages != before)).cumsum(1)
            back = torch.where(far, edge + 1 + count[:, -1:] - count, back)
        else:
            back = back.clamp_max(edge + 1)
        return Placed(-back, page, rows - reference * page)

    def reach(self, tokens: int, held: int, page: int) -> int:
        """See `Text.reach`."""
        near = (-(-self.near // page) + 2) * page
        return min(tokens, near + (held if self.order else 0))


Placement = Text | Slot | Far

PLACEMENTS: dict[str, type[Text] | type[Slot] | type[Far]] = {"text": Text, "slot": Slot, "far": Far}
