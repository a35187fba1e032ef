"""Merging: a slot that stands for n tokens weighs as n, and nothing is lost of equal keys."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_eviction import D, G, view

from longspan.cache.eviction import POLICIES
from longspan.cache.eviction.merging import merged
from longspan.kernels.slots import Slots, attend


def test_equal_keys_merge_exactly_and_only_with_their_number():
    """n tokens with one key: attention to the merged slot, with log n, is attention to all; without it, it is not."""
    r = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 40, D, generator=r), torch.randn(2, 40, D, generator=r)
    keys[:, 10:20] = keys[:, 9:10]
    queries = torch.randn(3, 4, D, generator=r)
    positions = torch.arange(40).expand(2, -1)
    rows = torch.tensor([50, 51, 52])
    whole = attend(Slots(queries, rows, keys, values, positions))
    indices = torch.tensor([i for i in range(40) if not 10 <= i < 20]).expand(2, -1)
    into = torch.full((2, 40), -1)
    into[:, 10:20] = 9
    from longspan.cache.eviction.view import Keep

    k, v, weight = merged(keys, values, torch.ones(2, 40), Keep(indices, into))
    assert weight[0, 9] == 11
    assert weight.sum() == 2 * 40
    few = Slots(queries, rows, k, v, positions.gather(1, indices), weight)
    assert torch.allclose(attend(few), whole, atol=1e-6)
    assert not torch.allclose(attend(dataclasses.replace(few, weights=None)), whole, atol=1e-3)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("ragged", [False, True])
def test_every_token_is_counted_where_all_may_join(name: str, ragged: bool):
    v = view(ragged=ragged)
    keep = POLICIES[name](budget=80, merge=True, similarity=-1.0).decide(v)  # type: ignore[call-arg]
    keys, values, weight = merged(v.keys, v.values, v.weight, keep)
    held = keep.indices >= 0
    assert (weight * held).sum(1).tolist() == (v.positions >= 0).sum(1).tolist()
    assert torch.isfinite(keys).all()
    assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", POLICIES)
def test_a_similarity_beyond_reach_is_plain_eviction_bit_for_bit(name: str):
    v = view()
    plain = POLICIES[name](budget=80, merge=False).decide(v)  # type: ignore[call-arg]
    never = POLICIES[name](budget=80, merge=True, similarity=1.01).decide(v)  # type: ignore[call-arg]
    assert torch.equal(plain.indices, never.indices)
    for one, other in zip(
        merged(v.keys, v.values, v.weight, plain), merged(v.keys, v.values, v.weight, never), strict=True
    ):
        assert torch.equal(one, other)


def test_a_token_joins_the_most_similar_kept_one():
    v = view()
    assert v.keys is not None
    keys = v.keys.clone()
    keep = POLICIES["h2o"](budget=80).decide(v)  # type: ignore[call-arg]
    gone = sorted(set(range(200)) - set(keep.indices[0].tolist()))[3]
    target = int(keep.indices[0, 5])
    keys[0, gone] = 3 * keys[0, target]
    v = dataclasses.replace(v, keys=keys)
    into = POLICIES["h2o"](budget=80, merge=True, similarity=0.99).decide(v).merge_into  # type: ignore[call-arg]
    assert into is not None
    assert into[0, gone] == target
    cosine = torch.nn.functional.normalize(keys, dim=-1)
    for lane in range(G):
        for slot in range(200):
            if (at := int(into[lane, slot])) >= 0:
                assert at in keep.indices[lane].tolist()
                assert slot not in keep.indices[lane].tolist()
                assert float(cosine[lane, slot] @ cosine[lane, at]) >= 0.99
