"""What queries to come will attend to, by their distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from longspan.cache.eviction.budgeted import Budgeted, forced
from longspan.cache.eviction.view import View

HORIZON = 512
EPSILON = 0.02


@dataclasses.dataclass(frozen=True)
class ExpectedAttention(Budgeted):
    """Queries so far have a mean μ and a covariance Σ; those of the next 512 tokens will be turned by their positions,
    on average by R. A key is then expected to get softmax(R μ · k + ½ kᵀ R Σ Rᵀ k), and counts as that times the size
    of its value (https://arxiv.org/abs/2510.00636). The first `sinks` tokens stay."""

    sinks: int = 4  # type: ignore[misc]
    needs: ClassVar[tuple[str, ...]] = ("keys", "queries")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts(sinks=self.sinks)

    def score(self, view: View) -> Tensor:
        assert view.keys is not None
        assert view.query_mean is not None
        assert view.query_cov is not None
        dim = view.keys.shape[-1]
        ahead = torch.arange(view.length, view.length + HORIZON, device=view.keys.device)
        eye = torch.eye(dim, device=view.keys.device).expand(HORIZON, dim, dim)
        mean_turn = view.turn(eye, ahead[:, None].expand(HORIZON, dim)).mean(0)  # row i: where channel i goes
        mean = view.query_mean @ mean_turn  # [G, g, D]
        cov = mean_turn.T @ view.query_cov @ mean_turn
        score = torch.einsum("ghd,gnd->ghn", mean, view.keys)
        score = score + torch.einsum("gnd,ghde,gne->ghn", view.keys, cov, view.keys) / 2
        held = (view.positions >= 0)[:, None]
        share = torch.softmax(score.masked_fill(~held, -torch.inf), -1).mean(1)
        return forced((share + EPSILON) * view.values.norm(dim=-1), view, self.sinks, 0)
