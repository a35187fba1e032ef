"""Every backend against the specification, over shapes, ragged ends, windows, caps, sinks and poisoned slots."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.errors import UsageError
from longspan.kernels import Raw, ScatteredRun, Subset, Work, WrittenRun, cpu, paged, reference
from longspan.kernels import backend as backend_named

COMPILED = [f"cpu:{name}" for name in cpu.levels()] or ["cpu"]
OTHERS = ["torch", *COMPILED]
ALL = ["reference", *OTHERS]


def backend(name: str):
    """cpu:x86-64-v3: of the compiled kernels the version for that instruction set."""
    kind, _, instructions = name.partition(":")
    if kind == "cpu" and cpu.NATIVE is None:
        pytest.skip(cpu.why_none())
    return functools.partial(cpu.attend, instructions=instructions) if instructions else backend_named(kind)


class Opened(WrittenRun):
    """Pages that are opened two at a time, whatever is asked for."""

    def blocks(self, size: int | None = None):
        return super().blocks(2 if size is None else min(size, 2))

    def raw(self):
        for keys, values in self.blocks():
            raw = Raw.dense(keys.clone(), values.clone(), fleeting=True)
            yield raw
            raw.buffers["keys"].fill_(torch.nan)


def scattered(keys: torch.Tensor, values: torch.Tensor) -> ScatteredRun:
    """The same pages in no order, among others full of NaN."""
    count = keys.shape[0] * keys.shape[1]
    places = torch.randperm(2 * count + 1, generator=torch.Generator().manual_seed(1))[:count]
    among = [torch.full((2 * count + 1, *x.shape[2:]), torch.nan, dtype=x.dtype) for x in (keys, values)]
    for slab, x in zip(among, (keys, values), strict=True):
        slab[places] = x.flatten(0, 1)
    return ScatteredRun(among[0], among[1], places.view(keys.shape[:2]))


def work(
    *, rows=1, pages=3, g=2, kv_heads=2, dim=16, page=16, rotated=None, offset=5, window=None, softcap=None,
    sinks=False, begin=None, split=0, opened=False, dtype=torch.float32, seed=0,
    subset=None,
) -> Work:  # fmt: skip
    """Random queries whose last row stands at `offset` of the last page; slots that hold nothing are NaN keys."""
    r = torch.Generator().manual_seed(seed)
    keys = torch.randn(pages, kv_heads, dim, page, generator=r)
    values = torch.randn(pages, kv_heads, page, dim, generator=r)
    keys[-1, :, :, offset + 1 :] = torch.nan
    values[-1, :, offset + 1 :] = 0.0
    base = -(pages - 1) * page
    low = base if begin is None else begin
    for slot in range(low - base):
        keys[slot // page, :, :, slot % page] = torch.nan
    half = (dim if rotated is None else rotated) // 2
    angle = torch.arange(pages - 1, -1, -1)[:, None] * page / 100.0 ** (torch.arange(half) / half)
    cut = split or pages
    return Work(
        queries=(torch.randn(rows, g * kv_heads, dim, generator=r) * 2 / dim**0.5).to(dtype),
        first=offset + 1 - rows,
        base=base,
        runs=[
            run
            for run in (
                (Opened if opened else WrittenRun)(keys[:cut].to(dtype), values[:cut].to(dtype)),
                (scattered if opened else WrittenRun)(keys[cut:].to(dtype), values[cut:].to(dtype)),
            )
            if run.pages
        ],
        kv_heads=kv_heads,
        page=page,
        dtype=dtype,
        begin=-(1 << 62) if begin is None else begin,
        cos=None if half == 0 else angle.cos(),
        sin=None if half == 0 else angle.sin(),
        window=window,
        softcap=softcap,
        sinks=torch.randn(g * kv_heads, generator=r) if sinks else None,
        subset=subset and Subset(subset, torch.rand(kv_heads, -(-rows // subset), pages, generator=r) < 0.5),
    )


CASES = [
    {},
    {"rows": 1, "pages": 1, "offset": 0},
    {"rows": 3, "offset": 1},
    {"rows": 8, "offset": 15},
    {"rows": 9},
    {"rows": 37, "pages": 4},
    {"rows": 6, "pages": 1},
    {"rows": 40, "pages": 3, "offset": 7, "begin": -32},
    {"rows": 2, "begin": -25},
    {"rows": 30, "begin": -27, "window": 12, "pages": 5},
    {"rows": 1, "window": 1},
    {"rows": 1, "window": 20, "pages": 6},
    {"rows": 5, "window": 17, "pages": 6, "offset": 2},
    {"rows": 60, "window": 20, "pages": 6},
    {"rows": 60, "window": 500, "pages": 6},
    {"rows": 300, "window": 40, "pages": 24},
    {"rows": 4, "softcap": 3.0},
    {"rows": 300, "softcap": 3.0, "pages": 24},
    {"rows": 50, "softcap": 2.0, "window": 30, "pages": 8},
    {"rows": 1, "sinks": True},
    {"rows": 20, "sinks": True, "window": 9, "pages": 4},
    {"rows": 1, "rotated": 8},
    {"rows": 20, "rotated": 8},
    {"rows": 1, "rotated": 0},
    {"rows": 20, "rotated": 0},
    {"rows": 1, "split": 1, "pages": 5},
    {"rows": 40, "split": 2, "pages": 5},
    {"rows": 1, "split": 5, "pages": 7, "opened": True},
    {"rows": 8, "split": 5, "pages": 7, "opened": True, "window": 20, "offset": 2},
    {"rows": 3, "pages": 5, "opened": True, "begin": -13, "sinks": True, "softcap": 3.0},
    {"rows": 40, "split": 5, "pages": 7, "opened": True},
    {"rows": 40, "split": 5, "pages": 7, "opened": True, "window": 30},
    {"rows": 1, "pages": 7, "subset": 1},
    {"rows": 40, "pages": 9, "subset": 16},
    {"rows": 300, "pages": 24, "subset": 64, "window": 90, "sinks": True},
    {"rows": 50, "pages": 12, "subset": 7, "softcap": 3.0, "begin": -170, "opened": True, "split": 6},
    {"rows": 400, "pages": 9, "page": 64},
    *({"rows": rows, "g": g, "kv_heads": kv} for rows in (1, 12) for g, kv in ((1, 1), (1, 4), (3, 2), (8, 1), (4, 2))),
    *({"rows": rows, "dim": dim} for rows in (1, 12) for dim in (64, 80, 96, 128, 256)),
    *({"rows": rows, "page": page, "pages": 5} for rows in (1, 30) for page in (32, 64, 128)),
]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(name: str, case: dict):
    w = work(**case)
    expected, got = reference.attend(w), backend(name)(w)
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    assert torch.allclose(got, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("case", [{"rows": 1, "pages": 9}, {"rows": 64, "pages": 9}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_its_rounding(name: str, case: dict, dtype: torch.dtype):
    w = work(**case, dtype=dtype)
    got, expected = backend(name)(w), reference.attend(w)
    assert got.dtype == dtype
    bound = 12 * torch.finfo(dtype).eps * w.runs[0].values.float().abs().max()
    assert (got.float() - expected.float()).abs().max() <= bound


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 90), pages=st.integers(1, 9), offset=st.integers(0, 15), window=st.none() | st.integers(1, 100),
    sinks=st.booleans(), softcap=st.none() | st.just(4.0), seed=st.integers(0, 99),
    block=st.sampled_from([16, 32, 8192]), window_rows=st.sampled_from([8, 256]),
)  # fmt: skip
def test_any_shape_equals_the_reference(rows, pages, offset, window, sinks, softcap, seed, block, window_rows):
    """Also with blocks so small that every boundary case of merging occurs."""
    rows = min(rows, (pages - 1) * 16 + offset + 1)
    w = work(rows=rows, pages=pages, offset=offset, window=window, sinks=sinks, softcap=softcap, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paged, "BLOCK_SLOTS", block)
        patch.setattr(paged, "WINDOW_ROWS", window_rows)
        assert torch.allclose(paged.attend(w), reference.attend(w), atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [1, 30])
def test_exactly_the_window_is_visible(name: str, rows: int):
    """The query at p sees p − W + 1 … p: W keys. One slot further back changes nothing, the last one does."""
    w = work(rows=rows, pages=6, window=20)
    at = w.first + rows - 1
    plain = backend(name)(w)[-1]
    for slot, matters in ((at - 20, False), (at - 19, True), (at, True)):
        values = w.runs[0].values.clone()
        index = slot - w.base
        values[index // 16, :, index % 16] += 100.0
        changed = backend(name)(dataclasses.replace(w, runs=[WrittenRun(w.runs[0].keys, values)]))[-1]
        assert (not torch.equal(changed, plain)) == matters


@pytest.mark.parametrize("name", ALL)
def test_a_window_that_covers_all_is_full_attention(name: str):
    for rows in (1, 30):
        w = work(rows=rows, pages=4)
        wide = dataclasses.replace(w, window=64)
        assert torch.allclose(backend(name)(wide), backend(name)(w), atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_sinks_take_weight_and_the_causal_bound_holds_with_them(name: str):
    """A huge sink takes everything; the future stays invisible under sinks as well."""
    for rows in (1, 30):
        w = work(rows=rows, pages=4, sinks=True)
        assert w.sinks is not None
        drained = backend(name)(dataclasses.replace(w, sinks=torch.full_like(w.sinks, 60.0)))
        assert drained.abs().max() < 1e-6
    w = work(rows=10, pages=2, sinks=True)
    values = w.runs[0].values.clone()
    values[-1, :, 5] += 100.0  # the last token
    changed = backend(name)(dataclasses.replace(w, runs=[WrittenRun(w.runs[0].keys, values)]))
    assert torch.equal(changed[:-1], backend(name)(w)[:-1])


@pytest.mark.parametrize("name", ALL)
def test_a_subset_reads_what_it_names_and_its_own_pages(name: str):
    """Nothing chosen: what stands from the block's first query on. One page chosen: that page matters, no other."""
    w = work(rows=32, pages=6, offset=15)  # queries on the last two pages, a block each
    pages = torch.zeros(2, 2, 6, dtype=torch.bool)
    none = backend(name)(dataclasses.replace(w, subset=Subset(16, pages)))
    run = WrittenRun(w.runs[0].keys[-1:], w.runs[0].values[-1:])
    assert w.cos is not None and w.sin is not None  # noqa: PT018
    own = dataclasses.replace(w, queries=w.queries[16:], first=0, base=0, runs=[run], cos=w.cos[-1:], sin=w.sin[-1:])
    assert torch.allclose(none[16:], backend(name)(own), atol=2e-6)
    pages[0, 1, 2] = True
    one = backend(name)(dataclasses.replace(w, subset=Subset(16, pages)))
    assert torch.equal(one[:16], none[:16])
    assert torch.equal(one[:, 2:], none[:, 2:])
    assert (one[16:, :2] - none[16:, :2]).abs().amax(-1).min() > 1e-4
    w.runs[0].values[[0, 1, 3]] += 100.0
    assert torch.equal(backend(name)(dataclasses.replace(w, subset=Subset(16, pages)))[16:], one[16:])


def test_an_unknown_backend_is_refused_with_the_list():
    with pytest.raises(UsageError, match="known: torch, reference"):
        backend_named("cuda-graphs")
