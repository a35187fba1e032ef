"""Runs of like neighbours that merge, against plain loops."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from test_eviction import D, G, view

from longspan.cache.eviction.cluster import Cluster
from longspan.cache.eviction.merging import merged
from longspan.cache.eviction.view import Keep, View
from longspan.errors import UsageError
from longspan.kernels.slots import Slots, attend

N = 200
LOOSE = Cluster(budget=80, recent=20, sinks=2, similarity=-1.0)


def runs_of(view: View, keep: Keep, lane: int) -> list[list[int]]:
    """The slots that each kept slot stands for."""
    assert keep.merge_into is not None
    into = keep.merge_into[lane].tolist()
    return [[i for i in range(N) if i == at or into[i] == at] for at in keep.indices[lane].tolist() if at >= 0]


def smooth(seed: int = 0) -> View:
    """Keys that change slowly, so that neighbours are alike."""
    steps = torch.randn(G, N, D, generator=torch.Generator().manual_seed(seed))
    keys = torch.randn(G, 1, D, generator=torch.Generator().manual_seed(seed + 1)) * 3 + 0.3 * steps.cumsum(1)
    return dataclasses.replace(view(seed=seed), positions=torch.arange(N).expand(G, -1), length=N, keys=keys)


def test_sizes_sum_to_all_tokens_and_runs_are_runs():
    v = smooth()
    keep = LOOSE.decide(v)
    _, _, weight = merged(v.keys, v.values, v.weight, keep)
    assert weight.sum(1).tolist() == [N] * G
    assert (keep.indices >= 0).sum(1).tolist() == [80] * G
    for lane in range(G):
        runs = runs_of(v, keep, lane)
        assert sorted(itertools.chain.from_iterable(runs)) == list(range(N))
        assert all(run == list(range(run[0], run[-1] + 1)) for run in runs)
        assert all(len(run) == 1 for run in runs if run[0] < 2 or run[-1] >= N - 20)


def test_the_most_alike_merge_first_into_the_most_attended():
    v = smooth()
    keep = LOOSE.decide(v)
    assert v.keys is not None
    assert v.mass is not None
    keys = torch.nn.functional.normalize(v.keys, dim=-1)
    for lane in range(G):
        alike = [float(keys[lane, i] @ keys[lane, i + 1]) for i in range(N - 1)]
        best = sorted((i for i in range(2, N - 21)), key=lambda i, alike=alike: -alike[i])[: N - 80]
        runs = runs_of(v, keep, lane)
        assert {(i, i + 1) for run in runs for i in run[:-1]} == {(i, i + 1) for i in best}
        for run, pivot in zip(runs, keep.indices[lane].tolist(), strict=True):
            assert v.mass[lane, pivot] == v.mass[lane, run].max()


def test_means_are_weighted_by_a_gaussian_around_the_pivot():
    v = dataclasses.replace(smooth(), weight=torch.rand(G, N) + 1)
    keep = LOOSE.decide(v)
    keys, values, weight = merged(v.keys, v.values, v.weight, keep)
    assert v.keys is not None
    for lane in range(G):
        for n, (run, pivot) in enumerate(zip(runs_of(v, keep, lane), keep.indices[lane].tolist(), strict=True)):
            square = (v.keys[lane, run] - v.keys[lane, pivot]).square().sum(-1)
            width = square.sum() / max(len(run) - 1, 1)
            share = v.weight[lane, run] * (torch.exp(-square / (2 * width)) if len(run) > 1 else 1.0)
            for x, got in ((v.keys, keys), (v.values, values)):
                assert torch.allclose(got[lane, n], (x[lane, run] * share[:, None]).sum(0) / share.sum(), atol=1e-5)
            assert float(weight[lane, n]) == pytest.approx(float(v.weight[lane, run].sum()))


def test_a_run_of_equal_keys_is_exact():
    """n tokens with one key: attention to what they merged into, with log n, is attention to all of them."""
    r = torch.Generator().manual_seed(3)
    v = smooth()
    assert v.keys is not None
    keys = torch.randn(G, N, D, generator=r)
    keys[:, 60:90] = keys[:, 60:61]
    v = dataclasses.replace(v, keys=keys)
    keep = Cluster(budget=N - 29, recent=20, sinks=2, similarity=0.9999).decide(v)
    few, means, weight = merged(v.keys, v.values, v.weight, keep)
    assert weight.amax(1).tolist() == [30] * G
    queries, rows = torch.randn(2, 2 * G, D, generator=r), torch.tensor([N, N + 1])
    whole = attend(Slots(queries, rows, keys, v.values, v.positions))
    less = attend(Slots(queries, rows, few, means, v.positions.gather(1, keep.indices), weight))
    assert torch.allclose(less, whole, atol=1e-5)


def test_a_threshold_above_one_is_plain_eviction_bit_for_bit():
    v = smooth()
    never, plain = (Cluster(budget=80, **options).decide(v) for options in ({"similarity": 1.01}, {"merge": False}))
    assert torch.equal(never.indices, plain.indices)
    for one, other in zip(*(merged(v.keys, v.values, v.weight, keep) for keep in (never, plain)), strict=True):
        assert torch.equal(one, other)


def test_runs_with_least_attention_go_where_too_few_are_alike():
    v = view()  # random keys: few neighbours are alike
    keep = Cluster(budget=80, recent=20, sinks=2, similarity=0.6).decide(v)
    assert v.mass is not None
    assert keep.merge_into is not None
    for lane in range(G):
        runs = runs_of(v, keep, lane)
        assert len(runs) == 80
        assert any(len(run) > 1 for run in runs)
        positions = v.positions[lane].tolist()
        sums = [float(v.mass[lane, run].sum()) for run in runs if 2 <= positions[run[0]] < v.length - 20]
        gone = set(range(N)) - set(itertools.chain.from_iterable(runs))
        assert gone
        assert max(float(v.mass[lane, i]) for i in gone) <= min(sums) + 1e-5


def test_within_the_budget_nothing_merges():
    v = smooth()
    keep = Cluster(budget=N, similarity=-1.0).decide(v)
    assert keep.indices.tolist() == [list(range(N))] * G
    assert keep.merge_into is not None
    assert (keep.merge_into == -1).all()


def test_parts_must_fit_the_budget():
    with pytest.raises(UsageError, match="budget 64 < sinks 4 \\+ recent 64"):
        Cluster(budget=64)
