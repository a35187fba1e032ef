"""Codes that compiled kernels make of numbers, bit for bit beside torch's."""

from __future__ import annotations

import pytest
import torch

from longspan.cache.formats import affine
from longspan.cache.formats.int4 import Int4
from longspan.cache.formats.int8 import Int8
from longspan.cache.summaries.sketch import Sketch
from longspan.errors import NumericalError
from longspan.kernels import cpu

needs_compiled = pytest.mark.skipif(cpu.NATIVE is None, reason=cpu.why_none())
LEVELS = cpu.levels() or [None]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def drawn(dtype: torch.dtype, *size: int, seed: int = 0) -> torch.Tensor:
    """Pages of every kind: rows that are constant, zero, tiny, far from zero, near the end of float16's range."""
    r = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=r)
    kinds = [1.0, 0.0, 1e-7, 1e-3, 50.0, 65504 / 6]
    x = x * torch.tensor(kinds)[torch.arange(size[1]) % len(kinds)][:, None]
    x[:, 1::7] = 3.0
    x[:, 2::7] += 1000.0
    x[:, 3::7] = x[:, 3::7].abs() * -1
    x[:, 4::7] = -0.0
    return x.clamp(-65504, 65504).to(dtype)


def by_torch(x: torch.Tensor, groups: int, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    codes, low, step = affine.quantize("test", "key", torch.unflatten(x.float(), -1, (groups, -1)), bits)
    codes = codes.flatten(-2)
    if bits == 4:
        codes = affine.pack(codes)
    if bits == 2:
        a, b, c, d = codes.chunk(4, 1)
        codes = a | b << 2 | c << 4 | d << 6
    return codes, low, step


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "columns", "groups"),
    [(64, 64, 1), (64, 64, 2), (16, 128, 4), (80, 96, 3), (12, 7, 1), (8, 30, 5), (4, 1, 1), (64, 64, 64)],
)
def test_every_shape_equals_torch(rows: int, columns: int, groups: int, dtype, bits: int, instructions: str):
    x = drawn(dtype, 9, rows, columns, seed=columns)
    made = cpu.seal(x, groups, bits, instructions)
    assert made is not None
    for got, expected in zip(made, by_torch(x, groups, bits), strict=True):
        assert same(got, expected)


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 65600.0, -1e30])
@pytest.mark.parametrize("at", [0, 5, 37, 47])
def test_what_float16_cannot_bound_is_left_to_torch(at: int, bad: float, instructions: str):
    x = drawn(torch.float32, 3, 8, 48)
    x[2, 7, at] = bad
    for groups in (1, 3):
        assert cpu.seal(x, groups, 8, instructions) is None
    with pytest.raises(NumericalError, match="NaN or beyond"):
        Int8().seal(x, x.transpose(1, 2), None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("holes", [False, True])
def test_formats_and_sketches_are_the_same_with_and_without(holes: bool, dtype, monkeypatch):
    keys, values = drawn(dtype, 5, 64, 48), drawn(dtype, 5, 48, 64, seed=1)
    valid = torch.rand(5, 48, generator=torch.Generator().manual_seed(2)) < 0.6 if holes else None
    ways = [Int8().seal, Int4().seal, Int4(hadamard=True).seal, Int8(group=16).seal]
    compiled = [way(keys / 64, values, valid) for way in ways] + [Sketch().summarise(keys, valid)]
    monkeypatch.setattr(cpu, "seal", lambda *_: None)
    torchs = [way(keys / 64, values, valid) for way in ways] + [Sketch().summarise(keys, valid)]
    for one, other in zip(compiled, torchs, strict=True):
        assert one.keys() == other.keys()
        assert all(same(one[name], other[name]) for name in one)
