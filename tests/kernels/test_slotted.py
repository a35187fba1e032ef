"""Many rows over gathered slots: compiled kernels beside torch, whose contract it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.kernels import cpu, slots
from longspan.kernels.cpu import slotted

needs_compiled = pytest.mark.skipif(cpu.NATIVE is None, reason=cpu.why_none())
START = 10_000_000
"""Text position of the first slot: float32 does not tell such numbers apart."""


def work(
    rows: int,
    size: int,
    *,
    lanes: int = 2,
    g: int = 3,
    dim: int = 64,
    dtype: torch.dtype = torch.float32,
    weights: bool = False,
    learned: bool = False,
    seed: int = 0,
    **more,
) -> slots.Slots:
    """Slots in no order, of which some hold nothing but NaN; the last `rows` of the text are asked."""
    r = torch.Generator().manual_seed(seed)
    positions = torch.stack([torch.randperm(2 * size, generator=r)[:size] for _ in range(lanes)]) + START
    keys, values = (torch.randn(lanes, size, dim, generator=r).to(dtype) for _ in range(2))
    empty = torch.rand(lanes, size, generator=r) < 0.15
    keys[empty] = values[empty] = torch.nan
    return slots.Slots(
        queries=torch.randn(rows, g * lanes, dim, generator=r) / dim**0.5,
        rows=START + 2 * size - rows + torch.arange(rows),
        keys=keys,
        values=values,
        positions=positions.masked_fill(empty, -1),
        weights=1 + 9 * torch.rand(lanes, size, generator=r) if weights else None,
        learned=torch.randn(g * lanes, generator=r) if learned else None,
        **more,
    )


def told() -> slots.Seen:
    return slots.Seen(since=START + 150, page=16, share=0.02, wants_mass=True)


def check(w: slots.Slots, instructions: str | None = None) -> None:
    mine, right = told(), told()
    assert slotted.serves(w)
    got, expected = slotted.attend(w, mine, instructions), slots.attend(w, right)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.mass, right.mass, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.recent, right.recent, rtol=1e-4, atol=1e-5)
    assert torch.equal(mine.used, right.used)


@needs_compiled
@pytest.mark.parametrize("instructions", cpu.levels() or [None])
@pytest.mark.parametrize(
    ("rows", "size", "case"),
    [
        (40, 100, {}),
        (17, 64, {"g": 1, "lanes": 1}),
        (130, 700, {"dim": 80, "g": 8, "window": 90, "sinks": START + 7}),
        (33, 301, {"dim": 128, "weights": True, "softcap": 3.0}),
        (50, 33, {"dim": 96, "g": 2, "learned": True, "window": 5}),
        (9, 2000, {"dtype": torch.bfloat16, "window": 300, "weights": True, "learned": True}),
        (64, 200, {"dtype": torch.float16, "dim": 256, "g": 4}),
    ],
)
def test_equals_torch(rows: int, size: int, case: dict, instructions: str):
    check(work(rows, size, **case), instructions)


@needs_compiled
@settings(max_examples=40, deadline=None, derandomize=True)  # a sum next to `share` may round either way
@given(
    rows=st.integers(1, 150), size=st.integers(1, 400), lanes=st.integers(1, 3), g=st.integers(1, 8),
    dim=st.sampled_from([16, 64, 80, 112]), window=st.none() | st.integers(1, 300), weights=st.booleans(),
    learned=st.booleans(), softcap=st.none() | st.just(2.0), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape_equals_torch(rows: int, size: int, **case):
    check(work(min(rows, 2 * size), size, **case))


@needs_compiled
def test_rows_that_see_nothing_give_zeros():
    w = work(20, 50, window=1)
    w.positions.fill_(-1)
    assert torch.equal(slotted.attend(w), torch.zeros(20, 6, 64))


@needs_compiled
def test_threads_change_nothing():
    w, seen = work(200, 900), told()
    alone = slotted.attend(w, seen)
    try:
        torch.set_num_threads(3)
        for _ in range(10):
            again = told()
            assert torch.equal(slotted.attend(w, again), alone)
            assert torch.equal(again.mass, seen.mass)
            assert torch.equal(again.recent, seen.recent)
    finally:
        torch.set_num_threads(1)


def test_what_is_not_served_goes_to_torch():
    for w in (work(20, 50, dim=24), work(20, 50, dtype=torch.float64)):
        assert not slotted.serves(w)
        assert torch.equal(slotted.attend(w), slots.attend(w))
    w = work(20, 50)
    assert not slotted.serves(slots.Slots(w.queries, w.rows.flip(0), w.keys, w.values, w.positions))
