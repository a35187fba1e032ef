"""What others are told of lanes: a policy what there is to decide on, a selection the summaries of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from longspan.cache.eviction.view import View

if TYPE_CHECKING:
    from longspan.cache.lanes import Lanes


def view(lanes: Lanes, index: int, following: int) -> View:
    """What the policy sees of a layer. following: text position of the next token."""
    stored, values, positions = lanes.stored(index)
    nothing, slots = (positions < 0)[..., None], positions.shape[1]
    stored, values = stored.masked_fill(nothing, 0), values.masked_fill(nothing, 0)
    wanted = "keys" in lanes.policy.needs or lanes.policy.merge
    keys = lanes.turns[index](stored.float(), page_of(lanes, positions)) if wanted else None
    observed = following - lanes.observed_from
    notes = lanes.notes
    mass, used, recent = (None if x is None else x[index, ..., :slots] for x in (notes.mass, notes.used, notes.recent))
    mean = covariance = None
    if lanes.query_sum is not None and lanes.query_square is not None:
        dim = lanes.pool.layout.head_dim
        mean = (lanes.query_sum[index] / max(lanes.query_count, 1)).view(-1, lanes.groups, dim)
        square = (lanes.query_square[index] / max(lanes.query_count, 1)).view(-1, lanes.groups, dim, dim)
        covariance = square - mean[..., None] * mean[..., None, :]
    return View(
        layer=index,
        layers=len(lanes.layers),
        keys=keys,
        values=values.float(),
        positions=positions,
        length=following,
        weight=torch.ones(positions.shape, device=positions.device)
        if lanes.notes.weight is None
        else lanes.notes.weight[index, :, :slots],
        mass=mass,
        seen=None if mass is None else (following - positions).clamp_min(1) * lanes.groups,
        recent=None if recent is None else recent / max(observed, 1),
        used=used,
        query_mean=mean,
        query_cov=covariance,
        turn=lanes.turns[index],
        page=lanes.pool.layout.page,
    )


def page_of(lanes: Lanes, positions: torch.Tensor) -> torch.Tensor:
    """By how much stored keys must be turned to stand where they do in the text."""
    return positions.clamp_min(0) // lanes.pool.layout.page * lanes.pool.layout.page


def summarise(lanes: Lanes) -> None:
    """Summaries of all full pages, anew: what is in them has moved."""
    assert lanes.pool.select is not None
    assert lanes.pool.summaries is not None
    page = lanes.pool.layout.page
    lanes.pool.summaries.release(lanes.sums[lanes.sums >= 0])
    full = lanes.counts // page
    columns = int(full.max())
    lanes.sums = np.full((*full.shape, columns), -1, dtype=np.int64)
    lanes.references = lanes.references.new_zeros((*full.shape, columns))
    if columns == 0:
        return
    wanted = np.arange(columns) < full[..., None]
    lanes.sums[wanted] = lanes.pool.summaries.claim(np.full(int(wanted.sum()), -1))
    for index in range(len(lanes.layers)):
        keys, _, positions = lanes.stored(index)
        room = columns * page - positions.shape[1]
        keys = torch.nn.functional.pad(keys, (0, 0, 0, room)) if room > 0 else keys[:, : columns * page]
        positions = torch.nn.functional.pad(positions, (0, room), value=-1)[:, : columns * page]
        by, lanes.references[index] = lanes.align(positions, page)
        held = torch.from_numpy(wanted[index]).to(lanes.pool.device)
        turned = torch.unflatten(lanes.turns[index](keys.float(), by), 1, (-1, page))[held].transpose(1, 2)
        made = lanes.pool.select.summarise(turned, torch.unflatten(positions, 1, (-1, page))[held] >= 0)
        lanes.pool.summaries.put(lanes.sums[index][wanted[index]], made)
