"""Keys, values and queries of a step, turned and placed in one pass, are those of the operations it stands for."""

from __future__ import annotations

import pytest
import torch

from longspan.kernels import cpu
from longspan.rope.rotate import turn

pytestmark = pytest.mark.skipif(cpu.NATIVE is None, reason=f"compiled kernels: {cpu.why_none()}")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def table(rows: int, half: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(rows, 1, half) * 7
    return angles.cos(), angles.sin()


def by_torch(q, k, v, keys, queries, scale, pages, places, page_keys, page_values):
    k = k if keys is None else turn(k, *keys)
    page_keys[pages, :, places] = k.transpose(0, 1).to(page_keys.dtype)
    page_values[pages, places] = v.transpose(0, 1)
    return (q if queries is None else turn(q, *queries)).float() * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "heads", "lanes", "dim", "half", "page"),
    [
        (1, 9, 3, 64, 32, 64),
        (5, 4, 4, 80, 16, 16),
        (130, 8, 1, 96, 0, 32),
        (200, 6, 2, 128, 64, 128),
        (65, 2, 1, 6, 3, 16),
    ],
)
def test_as_torch_does_it(dtype: torch.dtype, rows: int, heads: int, lanes: int, dim: int, half: int, page: int):
    torch.manual_seed(rows)
    # as the model's layers give them: rows of all heads, seen as [T, H, D]; keys are a part of a wider row
    q = torch.randn(rows, heads * dim).to(dtype).view(rows, heads, dim)
    k = torch.randn(rows, 3, lanes, dim).to(dtype)[:, 1]
    v = torch.randn(lanes, rows, dim).to(dtype).transpose(0, 1)
    if dtype != torch.float32:
        k[0, 0, 0], v[0, 0, 0] = torch.nan, torch.inf
        q[0, 0, :3] = torch.tensor([torch.nan, 1e-7, -torch.inf])
    at = torch.arange(rows) + page - 3  # begins inside a page
    count = int(at[-1]) // page + 1
    table_of = torch.randperm(lanes * count + 4)[: lanes * count].view(lanes, count)
    pages, places = table_of[:, at // page].contiguous(), at % page
    turns = (table(rows, half), table(rows, half)) if half else (None, None)
    empty = torch.randn(lanes * count + 4, dim, page).to(dtype), torch.randn(lanes * count + 4, page, dim).to(dtype)
    expected, found = ([x.clone() for x in empty] for _ in range(2))
    wanted = by_torch(q, k, v, *turns, 0.125, pages, places, *expected)
    for two in (places, places.expand(lanes, -1).contiguous()):
        given = cpu.place(q, k, v, *turns, 0.125, pages, two, *found)
        assert given is not None
        torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(found[0], expected[0], rtol=0.01 if half else 0, atol=1e-6, equal_nan=True)
        assert torch.equal(found[1].nan_to_num(), expected[1].nan_to_num())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_rounding(dtype: torch.dtype):
    """A key turned by nothing but a factor meets ties, overflow and denormal numbers; all are torch's."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16).to(dtype)
    rows = bits.view(-1, 1, 64)
    factor = torch.rand(len(rows), 1, 32) * 1.5
    pages = torch.arange(len(rows))[None] // 64
    keys, values = torch.zeros(16, 64, 64, dtype=dtype), torch.zeros(16, 64, 64, dtype=dtype)
    cpu.place(
        rows,
        rows,
        rows,
        (factor, torch.zeros_like(factor)),
        None,
        1.0,
        pages,
        torch.arange(len(rows)) % 64,
        keys,
        values,
    )
    wanted = (rows.float() * torch.cat([factor, factor], -1)).to(dtype)[:, 0]
    placed = keys.transpose(1, 2).reshape(-1, 64)
    same = (placed == wanted) | (placed.isnan() & wanted.isnan()) | (rows[:, 0].isinf())  # ∞·cos − ∞·0
    assert bool(same.all())


def test_threads_change_nothing():
    q = torch.randn(300, 4, 64)
    pages, places = torch.arange(300)[None] // 64, torch.arange(300) % 64
    before, results, turns = torch.get_num_threads(), [], table(300, 32)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            keys, values = torch.zeros(5, 64, 64), torch.zeros(5, 64, 64)
            turned = cpu.place(q, q[:, :1], q[:, :1], turns, turns, 1.0, pages, places, keys, values)
            results.append((turned, keys, values))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for one in results for a, b in zip(one, results[0], strict=True))


def test_what_is_left_to_torch():
    q = torch.randn(2, 2, 64, dtype=torch.float64)
    pages = torch.zeros(2, 2, dtype=torch.long)
    assert cpu.place(q, q, q, None, None, 1.0, pages, torch.arange(2), q[None].clone(), q[None].clone()) is None
