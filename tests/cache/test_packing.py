"""Codes two to a byte, and float16 bounds that are rounded to the outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.cache.formats.packing import half_above, half_below, pack, unpack


def test_two_codes_share_a_byte_half_a_row_apart():
    codes = torch.tensor([1, 2, 3, 14, 15], dtype=torch.uint8)
    assert pack(codes).tolist() == [1 | 14 << 4, 2 | 15 << 4, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 63, 64, 65, 80])
def test_packing_is_the_identity_for_all_codes(size: int):
    """All pairs of codes in all columns, odd tails too."""
    first, second = torch.arange(256, dtype=torch.uint8) % 16, torch.arange(256, dtype=torch.uint8) // 16
    codes = torch.stack([(first if i < (size + 1) // 2 else second) for i in range(size)], dim=-1).reshape(2, 128, size)
    packed = pack(codes)
    assert packed.shape == (2, 128, (size + 1) // 2)
    assert torch.equal(unpack(packed, size), codes)


@given(st.floats(-65504, 65504, width=32))
@settings(max_examples=300, deadline=None)
def test_float16_bounds_are_the_nearest_on_their_side(x: float):
    below = half_below(torch.tensor([x])).numpy()[0]
    above = half_above(torch.tensor([x])).numpy()[0]
    assert float(below) <= x <= float(above)
    assert float(np.nextafter(below, np.float16(np.inf))) > x
    assert float(np.nextafter(above, np.float16(-np.inf))) < x


@pytest.mark.parametrize("x", [0.0, -0.0, 1e-8, -1e-8, 2**-24, -(2**-24), 65504.0, -65504.0, 65503.0, -65503.0, 2049.0])
def test_float16_bounds_at_the_seams(x: float):
    test_float16_bounds_are_the_nearest_on_their_side.hypothesis.inner_test(x)  # type: ignore[attr-defined]
