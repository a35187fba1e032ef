"""Tokens that go may join tokens that stay."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.cache.eviction.view import Keep


def merged(keys: Tensor, values: Tensor, weight: Tensor, keep: Keep) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [G, k, D] and weights [G, k] of the kept slots, each the mean of the tokens that it stands for.

    A slot for n tokens is to be attended with log n added to its score (ToMe, https://arxiv.org/abs/2210.09461):
    for n equal keys this is exact. keys, values [G, n, D]; weight [G, n]. `Keep.shares` weighs the means, not n.
    """
    kept = keep.indices.clamp_min(0)
    wide = kept[..., None].expand(-1, -1, keys.shape[2])
    if keep.merge_into is None:
        return keys.gather(1, wide), values.gather(1, wide), weight.gather(1, kept)
    joins = keep.merge_into >= 0
    target = keep.merge_into.clamp_min(0)
    spread = target[..., None].expand(-1, -1, keys.shape[2])
    share = weight if keep.shares is None else weight * keep.shares
    joining = torch.where(joins, share, 0.0)
    total = share.scatter_add(1, target, joining)
    means = []
    for x in (keys, values):
        sums = (x * share[..., None]).scatter_add(1, spread, x * joining[..., None])
        means.append((sums / total[..., None]).gather(1, wide))
    number = weight.scatter_add(1, target, torch.where(joins, weight, 0.0))
    return means[0], means[1], number.gather(1, kept)
