"""The best pages of each row, whatever the blocks that they are looked for in."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.cache.summaries import scan
from longspan.cache.summaries.choose import among, choose


@settings(max_examples=200, deadline=None)
@given(data=st.data(), count=st.integers(0, 12), block=st.sampled_from([1, 100, 1 << 20]))
def test_choose_against_sorting(data: st.DataObject, count: int, block: int):
    b, r, n = (data.draw(st.integers(low, high)) for low, high in ((1, 3), (1, 3), (0, 10)))
    number = st.sampled_from([-math.inf, -3e38, -1.5, -0.0, 0.0, 1e-40, 1e-9, 2.0, 3e38, math.inf, math.nan])
    scores = torch.tensor(data.draw(st.lists(number, min_size=b * r * n, max_size=b * r * n))).view(b, r, n)
    wide = data.draw(st.sampled_from([0, 1, b]))
    flags = data.draw(st.lists(st.booleans(), min_size=wide * n, max_size=wide * n))
    banned = torch.tensor(flags, dtype=torch.bool).view(wide, n) if wide else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK", block)
        found = choose(scores, count, banned)
        inside = among(scores, min(count, n)) if min(count, n) else None
    assert found.shape == (b, r, count)
    for i in range(b):
        for j in range(r):
            row = scores[i, j].tolist()
            legal = [k for k in range(n) if row[k] > -math.inf]
            free = [k for k in legal if banned is None or not banned[i % wide, k]]
            best = sorted(free, key=lambda k: (row[k], k), reverse=True)[:count]
            assert found[i, j].tolist() == sorted(best) + [-1] * (count - len(best))
            if inside is not None:
                best = sorted(legal, key=lambda k: (row[k], k), reverse=True)[:count]
                assert inside[i, j].nonzero()[:, 0].tolist() == sorted(best)


def test_of_equal_scores_the_newer_page_wins():
    assert choose(torch.zeros(1, 1, 1000), 3).tolist() == [[[997, 998, 999]]]
    scores = torch.tensor([[[0.0, -0.0, 0.0, -1.0]]])
    assert choose(scores, 2).tolist() == [[[1, 2]]]
    assert choose(scores, 6, torch.tensor([[False, True, False, False]])).tolist() == [[[0, 2, 3, -1, -1, -1]]]
