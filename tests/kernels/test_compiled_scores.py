"""Scores of 2-bit copies, by the compiled kernels and by torch."""

from __future__ import annotations

import pytest
import torch

from longspan.cache.summaries.sketch import Sketch
from longspan.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.NATIVE is None, reason=cpu.why_none())
SHAPES = [(1, 1, 1, 64, 64), (3, 2, 5, 64, 64), (2, 9, 70, 16, 16), (1, 64, 3, 80, 32), (2, 3, 130, 128, 128)]
SHAPES += [(2, rows, 4, 32, 16) for rows in (4, 5, 6, 7, 8)] + [(0, 1, 3, 64, 64), (2, 1, 0, 64, 64)]


def stored(lanes: int, pages: int, dim: int, slots: int) -> dict[str, torch.Tensor]:
    keys = torch.randn(lanes * pages, dim, slots) * torch.rand(dim, 1).exp()
    made = Sketch().summarise(keys) if lanes * pages else Sketch().layout(slots, dim)
    if not lanes * pages:
        return {name: torch.empty((lanes, pages, *shape), dtype=dtype) for name, (shape, dtype) in made.items()}
    return {name: x.unflatten(0, (lanes, pages)) for name, x in made.items()}


def scored(shape: tuple[int, int, int, int, int]) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Queries, their scores by torch, and the summaries in two layouts. Also where a page has no valid slot, a channel
    is constant, or pages lie far apart."""
    lanes, rows, pages, dim, slots = shape
    torch.manual_seed(0)
    summaries = stored(lanes, pages, dim, slots)
    if lanes and pages > 2:
        summaries["min"][0, 1] = torch.nan
        summaries["step"][0, 1] = torch.nan
        summaries["step"][0, 2, 3] = 0
    queries = torch.randn(lanes, rows, dim)
    apart = {}
    for name, x in summaries.items():
        room = torch.zeros((x.shape[1], 3, *x.shape[:1], *x.shape[2:]), dtype=x.dtype)
        apart[name] = room[:, 1].transpose(0, 1).copy_(x)
    return queries, Sketch().opened(queries, summaries), [summaries, apart]


@pytest.mark.parametrize("instructions", cpu.levels())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_are_those_of_torch(shape: tuple[int, int, int, int, int], instructions: str):
    queries, plain, layouts = scored(shape)
    for held in layouts:
        got = cpu.score_sketch(queries, held["codes"], held["min"], held["step"], instructions)
        assert got is not None
        assert torch.equal(got.isinf(), plain.isinf())
        assert torch.allclose(got, plain, rtol=1e-5, atol=2e-5)


def test_a_selection_uses_them(monkeypatch: pytest.MonkeyPatch):
    summaries, queries = stored(1, 9, 64, 64), torch.randn(1, 2, 64)
    plain = Sketch().opened(queries, summaries)
    monkeypatch.setattr(Sketch, "opened", None)
    assert torch.allclose(Sketch().score(queries, summaries), plain, rtol=1e-5, atol=2e-5)


def test_odd_shapes_are_left_to_torch():
    summaries = stored(1, 3, 20, 64)
    assert cpu.score_sketch(torch.randn(1, 1, 20), summaries["codes"], summaries["min"], summaries["step"]) is None
    assert Sketch().score(torch.randn(1, 1, 20), summaries).shape == (1, 1, 3)
