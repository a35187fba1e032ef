"""Eviction policies on small random views, against plain loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.cache.eviction import POLICIES
from longspan.cache.eviction.adakv import AdaKV
from longspan.cache.eviction.budgeted import best
from longspan.cache.eviction.expected_attention import EPSILON, HORIZON, ExpectedAttention
from longspan.cache.eviction.h2o import H2O
from longspan.cache.eviction.keydiff import KeyDiff
from longspan.cache.eviction.lru import Lru
from longspan.cache.eviction.pyramidkv import PyramidKV
from longspan.cache.eviction.snapkv import SnapKV
from longspan.cache.eviction.tova import Tova
from longspan.cache.eviction.view import View

G, g, D, PAGE = 3, 2, 8, 16


def turn(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """RoPE with four frequencies."""
    angle = by[..., None] / 100.0 ** (torch.arange(D // 2) / (D // 2))
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def view(n: int = 200, seed: int = 0, ragged: bool = False, layer: int = 0, layers: int = 3) -> View:
    """Slots whose positions have gaps; lanes 1 and 2 hold fewer where `ragged`."""
    r = torch.Generator().manual_seed(seed)
    positions = torch.stack([(torch.randperm(2 * n, generator=r)[:n]).sort().values for _ in range(G)])
    if ragged:
        for lane in (1, 2):
            positions[lane, n - 7 * lane :] = -1
    held = positions >= 0

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=r)

    recent = draw(G, g, n).exp().masked_fill(~held[:, None], 0)
    return View(
        layer=layer, layers=layers, keys=draw(G, n, D), values=draw(G, n, D), positions=positions,
        length=2 * n, weight=torch.ones(G, n), page=PAGE, turn=turn, mass=draw(G, n).exp(),
        seen=(2 * n - positions) * g, recent=recent,
        used=torch.randint(0, 2 * n, (G, n), generator=r),
        query_mean=draw(G, g, D) / 4, query_cov=torch.eye(D).expand(G, g, D, D) * 0.1,
    )  # fmt: skip


def kept(indices: torch.Tensor) -> list[set[int]]:
    return [{int(i) for i in lane if i >= 0} for lane in indices]


def newest(v: View, count: int) -> list[set[int]]:
    return [{i for i, p in enumerate(lane.tolist()) if p >= v.length - count} for lane in v.positions]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("ragged", [False, True])
def test_all_stays_within_the_budget(name: str, ragged: bool):
    v = view(ragged=ragged)
    indices = POLICIES[name](budget=20 * 200).decide(v).indices  # type: ignore[call-arg]
    for lane, positions in zip(kept(indices), v.positions, strict=True):
        # the window is measured in the text, not in slots
        assert lane == {i for i, p in enumerate(positions.tolist()) if p >= 0}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(POLICIES)), budget=st.integers(70, 220), ragged=st.booleans(), seed=st.integers(0, 50))
def test_what_stays_is_in_order_and_within_the_budget(name: str, budget: int, ragged: bool, seed: int):
    v = view(seed=seed, ragged=ragged)
    indices = POLICIES[name](budget=budget).decide(v).indices  # type: ignore[call-arg]
    total = 0
    for lane, positions in zip(indices.tolist(), v.positions.tolist(), strict=True):
        real = [i for i in lane if i >= 0]
        assert real == sorted(set(real))
        assert lane == real + [-1] * (len(lane) - len(real))
        assert all(positions[i] >= 0 for i in real)
        total += len(real)
        if name not in ("adakv", "pyramidkv"):
            assert len(real) <= budget
    if name == "adakv":
        assert total == min(G * budget, int((v.positions >= 0).sum()))
    assert POLICIES[name](budget=budget).decide(v).indices.tolist() == indices.tolist()  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["attention_score", "h2o", "keydiff", "lru", "snapkv", "adakv", "pyramidkv"])
def test_the_newest_stay(name: str):
    v = view()
    indices = kept(POLICIES[name](budget=90).decide(v).indices)  # type: ignore[call-arg]
    assert all(lane >= new for lane, new in zip(indices, newest(v, 64), strict=True))


@pytest.mark.parametrize("name", ["streaming", "expected_attention"])
def test_sinks_stay(name: str):
    v = dataclasses.replace(view(), positions=torch.arange(200).expand(G, -1))
    for lane in kept(POLICIES[name](budget=90, sinks=5).decide(v).indices):  # type: ignore[call-arg]
        assert lane >= set(range(5))


def test_equal_scores_keep_the_newer():
    assert best(torch.zeros(1, 6), 2).tolist() == [[4, 5]]
    assert best(torch.tensor([[1.0, 0, 1, -torch.inf]]), 4).tolist() == [[0, 1, 2, -1]]


def test_h2o_by_hand():
    v = view()
    assert v.mass is not None
    for lane, positions, mass, got in zip(
        range(G), v.positions.tolist(), v.mass.tolist(), kept(H2O(budget=50, recent=10).decide(v).indices), strict=True
    ):
        sure = {i for i, p in enumerate(positions) if p >= v.length - 10}
        heavy = sorted((i for i in range(200) if i not in sure), key=lambda i, mass=mass: -mass[i])
        assert got == sure | set(heavy[: 50 - len(sure)]), lane


def test_tova_keeps_one_set_for_all_heads():
    same = dataclasses.replace(view(), positions=torch.arange(200).expand(G, -1))
    lanes = kept(Tova(budget=40).decide(same).indices)
    assert lanes[0] == lanes[1] == lanes[2]
    assert same.recent is not None
    mean = same.recent.mean((0, 1)).tolist()
    # 199 is not the newest token of the text, whose length is 400
    assert lanes[0] == set(sorted(range(200), key=lambda i: -mean[i])[:40])


def test_snapkv_by_hand():
    v = view()
    assert v.recent is not None
    for positions, recent, got in zip(
        v.positions.tolist(), v.recent.mean(1).tolist(), kept(SnapKV(budget=100).decide(v).indices), strict=True
    ):
        near = [recent[max(i - 2, 0) : i + 3] for i in range(200)]
        pooled = [sum(part) / len(part) for part in near]
        sure = {i for i, p in enumerate(positions) if p >= v.length - 64}
        rest = sorted((i for i in range(200) if i not in sure), key=lambda i, pooled=pooled: -pooled[i])
        assert got == sure | set(rest[: 100 - len(sure)])


@pytest.mark.parametrize("layers", [1, 2, 3, 6, 32])
@pytest.mark.parametrize("budget", [65, 100, 1024, 4097])
def test_pyramid_budgets_add_up_and_shrink(layers: int, budget: int):
    budgets = PyramidKV(budget=budget).budgets(layers)
    assert sum(budgets) == layers * budget
    assert list(budgets) == sorted(budgets, reverse=True)
    assert min(budgets) >= 64
    if layers > 1 and budget > 100:
        assert budgets[-1] - 64 == pytest.approx((budget - 64) / 20, abs=2)


def test_heads_of_adakv_compete_but_for_a_safeguard():
    v = view()
    assert v.recent is not None
    loud = v.recent.clone()
    loud[0] *= 100
    one, two, three = map(
        len, kept(AdaKV(budget=100, safeguard=20).decide(dataclasses.replace(v, recent=loud)).indices)
    )
    assert one + two + three == 300
    assert one > 150
    # the newest tokens' slots, or a fifth of the budget, whichever is more
    assert min(two, three) >= 20
    assert two == pytest.approx(three, abs=12)
    even = AdaKV(budget=100, safeguard=100).decide(dataclasses.replace(v, recent=loud)).indices
    assert [len(lane) for lane in kept(even)] == [100] * 3


def test_lru_lets_whole_pages_go_oldest_use_first():
    v = view()
    assert v.used is not None
    got = kept(Lru(budget=100, recent=8).decide(v).indices)
    for lane, used, positions in zip(got, v.used.tolist(), v.positions.tolist(), strict=True):
        pages = {i // PAGE for i in lane}
        sure = {i for i, p in enumerate(positions) if p >= v.length - 8}
        whole = {p for p in pages if set(range(p * PAGE, min(p * PAGE + PAGE, 200))) <= lane}
        assert lane - {i for p in whole for i in range(p * PAGE, p * PAGE + PAGE)} <= sure
        last = {p: max(used[p * PAGE : p * PAGE + PAGE]) for p in range(-(-200 // PAGE))}
        gone = {p for p in last if p not in pages}
        assert gone
        assert 100 - PAGE < len(lane) <= 100
        assert min((last[p] for p in whole if not {i for i in sure if i // PAGE == p}), default=0) >= max(
            last[p] for p in gone
        )


def test_expected_attention_is_the_mean_over_queries_to_come():
    """Against queries drawn from the distribution and turned to each of the coming positions: the order of scores."""
    v = view(60)
    assert v.query_mean is not None
    assert v.keys is not None
    policy = ExpectedAttention(budget=30, sinks=0)
    r = torch.Generator().manual_seed(1)
    ahead = torch.arange(v.length, v.length + HORIZON)
    draws = v.query_mean[..., None, :] + torch.randn(G, g, 40 * HORIZON, D, generator=r) * 0.1**0.5
    # the paper turns the distribution by the mean rotation, and so does the reference here
    mean_turn = turn(torch.eye(D).expand(HORIZON, D, D), ahead[:, None].expand(HORIZON, D)).mean(0)
    queries = draws @ mean_turn
    weights = torch.einsum("ghqd,gnd->ghqn", queries, v.keys).exp().mean(2)
    share = (weights / weights.sum(-1, keepdim=True)).mean(1)
    expected = (share + EPSILON) * v.values.norm(dim=-1)
    assert torch.allclose(policy.score(v), expected, rtol=0.02)


def test_keydiff_keeps_the_odd_one():
    v = view()
    assert v.keys is not None
    keys = torch.ones(G, 200, D) + 0.01 * v.keys
    keys[:, 17] = -1.0
    lanes = kept(KeyDiff(budget=40, recent=8).decide(dataclasses.replace(v, keys=keys)).indices)
    assert all(17 in lane for lane in lanes)


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "lru"])  # whose pages are those of the slots
@pytest.mark.parametrize("ragged", [False, True])
def test_holes_change_nothing(name: str, ragged: bool):
    """The same tokens stay where the slots between them hold nothing, whatever lies there."""
    v, n, wide = view(ragged=ragged), 200, 300
    r = torch.Generator().manual_seed(7)
    at = torch.stack([torch.randperm(wide, generator=r)[:n].sort().values for _ in range(G)])
    at = at[:1].expand(G, -1) if name == "tova" else at  # its lanes keep the same tokens in the same slots

    def spread(x: torch.Tensor | None, fill: float, dim: int = 1) -> torch.Tensor:
        assert x is not None
        out = torch.full((*x.shape[:dim], wide, *x.shape[dim + 1 :]), fill, dtype=x.dtype)
        shape = [G, *(n if axis == dim else 1 for axis in range(1, x.ndim))]
        return out.scatter(dim, at.view(shape).expand(x.shape), x)

    holed = dataclasses.replace(
        v, keys=spread(v.keys, 3.0), values=spread(v.values, 3.0), positions=spread(v.positions, -1),
        weight=spread(v.weight, 1), mass=spread(v.mass, 9), seen=spread(v.seen, 1), recent=spread(v.recent, 9, 2),
        used=spread(v.used, 999),
    )  # fmt: skip
    policy = POLICIES[name](budget=90)  # type: ignore[call-arg]
    for one, other, slots in zip(policy.decide(v).indices, policy.decide(holed).indices, at, strict=True):
        assert [int(slots[i]) for i in one if i >= 0] == [int(i) for i in other if i >= 0]
