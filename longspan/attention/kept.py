"""Attention in layers where eviction decides what stays: gather the lane's slots, place them, attend, take notes."""

from __future__ import annotations

import dataclasses
import itertools

import torch

from longspan.attention.placement import Placement
from longspan.attention.rotation import Rotation
from longspan.cache.lanes import Lanes
from longspan.kernels import slots
from longspan.kernels.cpu import kept as native
from longspan.kernels.cpu import slotted
from longspan.kernels.cpu.kept import Turns
from longspan.rope.rotate import turn


@dataclasses.dataclass(frozen=True)
class Asked:
    """One segment's queries in one layer. queries [R, H, D]: unrotated, float32, times the softmax scale. rows [R]:
    their text positions. softcap, learned: as in `slots.Slots`."""

    queries: torch.Tensor
    rows: torch.Tensor
    softcap: float | None
    learned: torch.Tensor | None


def attend(
    lanes: Lanes, index: int, asked: Asked, rotation: Rotation | None, placement: Placement, compiled: bool
) -> torch.Tensor:
    """[R, H, D] in float32. The keys of these queries are in the lanes already. compiled: whether compiled kernels may
    read them."""
    page, policy = lanes.pool.layout.page, lanes.policy
    count = asked.rows.shape[0]
    seen = slots.Seen(
        since=lanes.observed_from if "recent" in policy.needs else None,
        page=page if "used" in policy.needs else None,
        wants_mass="mass" in policy.needs,
    )
    # where the distance depends on the query's page, queries of one page go together
    cuts = [0, count]
    if placement.blockwise:
        first = int(asked.rows[0])
        cuts = [0, *range(-first % page or page, count, page), count]
    read = _where_they_lie if compiled and lanes.readable(count) else _gathered
    some = [
        Asked(asked.queries[a:b], asked.rows[a:b], asked.softcap, asked.learned) for a, b in itertools.pairwise(cuts)
    ]
    own = torch.from_numpy(lanes.targets(count, lanes.counts - count)[index]).to(lanes.pool.device)  # [G, R]
    owns = [own[:, a:b] for a, b in itertools.pairwise(cuts)]
    outputs = read(lanes, index, some, owns, rotation, placement, seen)
    lanes.notes.add(index, seen, int(lanes.counts[index].max()))
    lanes.ask(index, asked.queries)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _gathered(
    lanes: Lanes,
    index: int,
    some: list[Asked],
    owns: list[torch.Tensor],
    rotation: Rotation | None,
    placement: Placement,
    seen: slots.Seen,
) -> list[torch.Tensor]:
    """[R, H, D] of each part: slots are gathered, keys turned, torch attends. owns [G, R]: slots of the parts' keys."""
    policy, outputs = lanes.policy, []
    keys, values, positions = lanes.stored(index)
    weights = None if lanes.notes.weight is None else lanes.notes.weight[index, :, : positions.shape[1]]
    for asked, own in zip(some, owns, strict=True):
        q, k = asked.queries, keys
        if rotation is not None:
            placed = placement.place(positions, own, asked.rows, lanes.pool.layout.page)
            k = turn(k, *rotation.by(placed.keys, placed.unit))
            q = turned(q, placed.queries, rotation, lanes.groups)
        work = slots.Slots(
            q, asked.rows, k, values, positions, weights, policy.window, policy.sinks, asked.softcap, asked.learned
        )
        outputs.append(slotted.attend(work, seen))
    return outputs


def _where_they_lie(
    lanes: Lanes,
    index: int,
    some: list[Asked],
    owns: list[torch.Tensor],
    rotation: Rotation | None,
    placement: Placement,
    seen: slots.Seen,
) -> list[torch.Tensor]:
    """As `_gathered`, by the compiled kernel."""
    policy, outputs = lanes.policy, []
    pages = lanes.pages(index)
    positions = pages.positions[:, : int(lanes.counts[index].max())]
    for asked, own in zip(some, owns, strict=True):
        q, turns = asked.queries, None
        if rotation is not None:
            placed = placement.place(positions, own, asked.rows, lanes.pool.layout.page)
            turns = Turns(placed.keys, *rotation.table(placed.keys, placed.unit))
            q = turned(q, placed.queries, rotation, lanes.groups)
        kept = dataclasses.replace(pages, turns=turns)
        limits = policy.window, policy.sinks, asked.softcap, asked.learned
        outputs.append(native.attend(kept, q, asked.rows, *limits, seen))
    return outputs


def turned(queries: torch.Tensor, by: torch.Tensor, rotation: Rotation, groups: int) -> torch.Tensor:
    """Queries [R, H, D] turned by tokens [R], or [G, R] where lanes differ; with the squared attention factor."""
    cos, sin = towards(by, rotation)
    if by.ndim == 2:  # [G, R, 1, d/2] → [R, H, d/2]
        cos, sin = (x[:, :, 0].transpose(0, 1).repeat_interleave(groups, 1) for x in (cos, sin))
    return turn(queries, cos, sin)


def towards(by: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin [..., 1, d/2] of a turn of queries by tokens [...], with the squared attention factor."""
    cos, sin = rotation.by(by, 1)
    square = rotation.angles.attention_factor**2
    return cos[..., None, :] * square, sin[..., None, :] * square
