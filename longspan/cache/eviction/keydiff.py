"""Keys that are unlike the others."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View


@dataclasses.dataclass(frozen=True)
class KeyDiff(Budgeted):
    """The tokens whose keys differ most, by their cosine, from the mean of all keys
    (https://arxiv.org/abs/2504.15364). The newest `recent` stay."""

    recent: int = 64
    needs: ClassVar[tuple[str, ...]] = ("keys",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(recent=self.recent)

    def score(self, view: View) -> Tensor:
        assert view.keys is not None
        held = (view.positions >= 0)[..., None]
        keys = torch.nn.functional.normalize(view.keys.masked_fill(~held, 0), dim=-1)
        mean = keys.sum(1, keepdim=True) / held.sum(1, keepdim=True).clamp_min(1)
        return forced(-torch.nn.functional.cosine_similarity(keys, mean, dim=-1), view, 0, self.recent)
