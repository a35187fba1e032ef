"""The compiled kernels: every format and instruction set, and what they leave to torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import kernels
from longspan.cache.formats.format import Stored
from longspan.cache.formats.fp8 import Fp8
from longspan.cache.formats.int4 import Int4
from longspan.cache.formats.int8 import Int8
from longspan.cache.runs import SealedRun
from longspan.kernels import BACKENDS, Subset, Work, WrittenRun, cpu, paged, reference

needs_compiled = pytest.mark.skipif(cpu.NATIVE is None, reason=cpu.why_none())
FORMATS = [Int8(), Int4(), Int8(group=16), Int4(group=8), Int8(group=128), Int4(hadamard=True), Fp8()]


@dataclasses.dataclass
class Store:
    """Sealed pages among others that hold garbage; in a file: only `take` knows them."""

    stored: Stored
    in_file: bool = False

    @property
    def buffers(self) -> Stored | None:
        return None if self.in_file else self.stored

    def take(self, ids: torch.Tensor) -> Stored:
        return {name: buffer[ids] for name, buffer in self.stored.items()}


def work(
    format, *, rows=1, pages=5, written=1, g=2, kv_heads=2, dim=64, page=16, offset=5, in_file=False, seed=0,
    subset=None, **more,
) -> Work:  # fmt: skip
    """`pages` sealed ones, and `written` that are not, the last of them with slots that hold NaN. subset: rows of a
    block, each of which reads about half of the pages."""
    r = torch.Generator().manual_seed(seed)
    keys = torch.randn(pages + written, kv_heads, dim, page, generator=r) + 3 * torch.randn(dim, 1, generator=r)
    values = torch.randn(pages + written, kv_heads, page, dim, generator=r)
    count = pages * kv_heads
    ids = torch.randperm(2 * count + 1, generator=r)[:count].view(pages, kv_heads)
    sealed = format.seal(keys[:pages].flatten(0, 1), values[:pages].flatten(0, 1), None)
    among = {name: torch.empty((2 * count + 1, *x.shape[1:]), dtype=x.dtype) for name, x in sealed.items()}
    for name, x in among.items():
        x.view(torch.uint8).fill_(255)  # NaN wherever it is a float
        x[ids.flatten()] = sealed[name]
    keys[-1, :, :, offset + 1 :] = torch.nan
    values[-1, :, offset + 1 :] = torch.nan
    angle = torch.arange(pages + written - 1, -1, -1)[:, None] * page / 100.0 ** (torch.arange(dim // 2) * 2 / dim)
    runs = [SealedRun(format, Store(among, in_file), ids, torch.float32)] if pages else []
    return Work(
        queries=torch.randn(rows, g * kv_heads, dim, generator=r) / dim**0.5,
        first=offset + 1 - rows,
        base=-(pages + written - 1) * page,
        runs=[*runs, WrittenRun(keys[pages:], values[pages:])],
        kv_heads=kv_heads,
        page=page,
        dtype=torch.float32,
        cos=angle.cos(),
        sin=angle.sin(),
        subset=subset and Subset(subset, torch.rand(kv_heads, -(-rows // subset), pages + written, generator=r) < 0.5),
        **more,
    )


def expected(w: Work) -> torch.Tensor:
    """By the specification, which multiplies by 0 what the kernels must not look at."""
    *runs, last = w.runs
    assert isinstance(last, WrittenRun)
    return reference.attend(dataclasses.replace(w, runs=[*runs, WrittenRun(last.keys, last.values.nan_to_num(0))]))


CASES = [
    {},
    {"pages": 0},
    {"pages": 1, "offset": 0},
    {"rows": 8, "offset": 9, "g": 4},
    {"rows": 3, "window": 37},
    {"window": 20, "pages": 9, "in_file": True},
    {"rows": 2, "begin": -70, "softcap": 5.0, "sinks": torch.tensor([1.0, -2.0, 0.5, 3.0])},
    {"pages": 37, "in_file": True, "kv_heads": 3},
    {"pages": 300, "page": 64, "kv_heads": 1, "g": 1},
    *({"g": g, "kv_heads": 1} for g in range(1, 9)),
    *({"dim": dim, "page": page} for dim in (16, 80, 96, 128, 256) for page in (32, 64)),
    {"rows": 5, "dim": 80, "page": 128},
    {"rows": 9, "pages": 0, "written": 2},
    {"rows": 70, "g": 3, "offset": 9},
    {"rows": 200, "pages": 37, "in_file": True, "kv_heads": 3},
    {"rows": 90, "pages": 9, "window": 37, "in_file": True},
    {"rows": 33, "begin": -70, "softcap": 5.0, "sinks": torch.tensor([1.0, -2.0, 0.5, 3.0])},
    {"rows": 11, "pages": 300, "page": 64, "kv_heads": 1, "g": 1},
    *({"rows": 13 + g, "g": g, "kv_heads": 1, "subset": 4} for g in range(1, 9)),
    *({"rows": 9, "dim": dim, "page": page} for dim in (16, 80, 96, 128, 256) for page in (32, 64, 128)),
    {"rows": 120, "pages": 20, "window": 150, "subset": 16, "in_file": True},
]


HELD = [(f, c) for f in FORMATS for c in CASES if c.get("dim", 64) % min(f.group, c.get("dim", 64)) == 0]


@needs_compiled
@pytest.mark.parametrize("instructions", cpu.levels() or [None])
@pytest.mark.parametrize(("format", "case"), HELD, ids=str)
def test_sealed_pages_are_read_as_they_open(format, case: dict, instructions: str):
    w = work(format, **case)
    assert cpu.why_not(w) is None
    got = cpu.attend(w, instructions)
    assert torch.allclose(got, expected(w), atol=1e-5, rtol=1e-5)


@needs_compiled
@pytest.mark.parametrize(("instructions", "pairs"), [*((x, False) for x in cpu.levels() or [None]), (None, True)])
@pytest.mark.parametrize("format", [Int8(16), Int4(16), Fp8(16), None], ids=str)
def test_bfloat16_products_stay_within_their_rounding(pairs: bool, format, instructions: str, monkeypatch):
    """Keys, queries and weights are rounded to it; everything else is float32. pairs: how many rows are multiplied."""
    monkeypatch.setattr("longspan.kernels.cpu.prefill.PAIRS", pairs)
    few = [{"dim": dim, "g": g, "page": 64} for dim in (64, 80, 128, 256) for g in (1, 3, 8)]
    few += [{"rows": 8, "page": 128, "dim": 128}, {"rows": 3, "page": 64, "window": 150, "softcap": 4.0}, {"page": 32}]
    many = [{"rows": 150, "pages": 40, "g": 3}, {"rows": 70, "dim": 80, "softcap": 4.0, "window": 77}]
    for case in few + many:
        w = work(format or Int8(16), **{**case, "pages": case.get("pages", 9) if format else 0, "written": 12})
        last = w.runs[-1]
        assert isinstance(last, WrittenRun)
        written = WrittenRun(last.keys.bfloat16(), last.values.bfloat16())
        right = expected(dataclasses.replace(w, runs=[*w.runs[:-1], written]))
        runs = [dataclasses.replace(run, dtype=torch.bfloat16) for run in w.runs[:-1]]
        got = cpu.attend(dataclasses.replace(w, runs=[*runs, written], dtype=torch.bfloat16), instructions)
        assert (got - right).abs().max() < 0.03, case
        assert (got - right).square().mean().sqrt() < 0.003, case


@needs_compiled
@pytest.mark.parametrize("instructions", cpu.levels() or [None])
@pytest.mark.parametrize(
    "case",
    [
        *({"group": group, "dim": 128, "g": 3} for group in (32, 64, 128, 16)),
        *({"group": 32, "dim": 64, "g": g} for g in (1, 2, 3, 4, 5, 6, 8)),
        {"group": 64, "dim": 64, "g": 4, "rows": 2},
        *({"group": 32, "dim": 256, "g": g, "page": page} for g in (2, 4) for page in (64, 128)),
        {"group": 32, "dim": 192, "g": 3, "page": 128},
        {"group": 64, "dim": 64, "g": 3, "page": 256, "pages": 50},
        {"group": 32, "dim": 64, "g": 2, "softcap": 8.0},
    ],
    ids=str,
)
def test_codes_in_bfloat16_caches_are_multiplied_as_bytes_to_more_than_its_precision(case: dict, instructions: str):
    """What weighs little beside one page, but much together, keeps its weight; so does a channel far above others."""
    rest = {name: value for name, value in case.items() if name != "group"}
    for format in (Int8(case["group"]), Int4(case["group"])):
        w = work(format, **{"pages": 200, "page": 64, "kv_heads": 1, **rest})
        queries = w.queries.clone()
        queries[..., :2] *= 20.0  # some scores stand out
        w = dataclasses.replace(w, queries=queries)
        right = expected(w)
        last = w.runs[-1]
        assert isinstance(last, WrittenRun)
        written = WrittenRun(last.keys.bfloat16(), last.values.bfloat16())
        runs = [*(dataclasses.replace(run, dtype=torch.bfloat16) for run in w.runs[:-1]), written]
        got = cpu.attend(dataclasses.replace(w, runs=runs, dtype=torch.bfloat16), instructions)
        assert (got - right).abs().max() < 0.004


@needs_compiled
@pytest.mark.parametrize("instructions", cpu.levels() or [None])
def test_several_texts_at_once_get_what_each_gets_alone(instructions: str):
    """Of all lengths, few and many rows in turn, from files too; whatever the threads."""
    cases = [{"pages": 70}, {"pages": 0}, {"rows": 5}, {"rows": 40, "in_file": True}, {"pages": 9, "in_file": True}]
    works = [work(Int8(), seed=i, kv_heads=3, **case) for i, case in enumerate(cases)]
    alone = torch.cat([cpu.attend(w, instructions) for w in works])
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(cpu.attend_all(works, instructions), alone)
    finally:
        torch.set_num_threads(1)
    by_torch = torch.cat([paged.attend(w) for w in works])
    assert torch.allclose(kernels.attend_all(BACKENDS["torch"], works), by_torch, atol=0, rtol=0, equal_nan=True)


@needs_compiled
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_that_rise_and_fall_keep_their_weights(dtype: torch.dtype, pairs: bool, monkeypatch):
    """The running maximum is raised late, in the middle of what is laid out together, or never again."""
    monkeypatch.setattr("longspan.kernels.cpu.prefill.PAIRS", pairs)
    for order in (1, -1):
        w = work(Int8(), pages=0, written=9, rows=20, dim=16)
        last = w.runs[-1]
        assert isinstance(last, WrittenRun)
        keys = torch.where(last.keys.isnan(), last.keys, order * torch.linspace(-6, 6, 9)[:, None, None, None])
        for cap in (1.0, 40.0):
            q = torch.full_like(w.queries, cap / 16) * (1 + torch.arange(20)[:, None, None] / 20)
            x = dataclasses.replace(
                w, queries=q, cos=None, sin=None, dtype=dtype,
                runs=[WrittenRun(keys.to(dtype), last.values.to(dtype))],
            )  # fmt: skip
            got = cpu.attend(x)
            assert torch.allclose(got, expected(x), atol=1e-5 if dtype == torch.float32 else 0.04)


@needs_compiled
@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(FORMATS), rows=st.integers(1, 8) | st.integers(9, 120), pages=st.integers(0, 20),
    written=st.integers(1, 9), offset=st.integers(0, 15), g=st.integers(1, 8), window=st.none() | st.integers(1, 200),
    subset=st.none() | st.integers(1, 40), in_file=st.booleans(), dim=st.sampled_from([32, 64, 128]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape_equals_the_reference(format, rows, pages, written, offset, **case):
    rows = min(rows, (written + pages - 1) * 16 + offset + 1)
    w = work(format, rows=rows, pages=pages, written=written, offset=offset, **case)
    for instructions in cpu.levels():
        assert torch.allclose(cpu.attend(w, instructions), expected(w), atol=1e-5, rtol=1e-5)


@needs_compiled
def test_threads_change_nothing():
    for rows, dtype in ((1, torch.float32), (1, torch.bfloat16), (300, torch.float32)):
        w = work(Int8(), rows=rows, pages=70, kv_heads=3, page=64)
        runs = [
            dataclasses.replace(w.runs[0], dtype=dtype),
            WrittenRun(w.runs[1].keys.to(dtype), w.runs[1].values.to(dtype)),
        ]
        w = dataclasses.replace(w, runs=runs, dtype=dtype)
        alone = cpu.attend(w)
        try:
            torch.set_num_threads(3)
            assert all(torch.equal(cpu.attend(w), alone) for _ in range(20))
        finally:
            torch.set_num_threads(1)


@needs_compiled
def test_a_child_process_has_threads_of_its_own():
    script = (
        "import os, torch, warnings; warnings.simplefilter('ignore'); torch.set_num_threads(2);"
        "import sys; sys.path.insert(0, 'tests/kernels'); from test_compiled import Int8, cpu, work;"
        "w = work(Int8(), pages=70); a = cpu.attend(w); pid = os.fork();"
        "(torch.equal(cpu.attend(w), a) and os._exit(7)) if pid == 0 else None;"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "7\n", done.stderr


@needs_compiled
def test_a_number_that_is_none_reaches_the_result():
    """A broken layer must be noticed."""
    for rows in (1, 9):
        w = work(Int8(), rows=rows, pages=2, written=2)
        last = w.runs[-1]
        assert isinstance(last, WrittenRun)
        last.keys[0, 0, 3, 4] = torch.nan
        out = cpu.attend(w)
        assert out[:, :2].isnan().all()
        assert out[:, 2:].isfinite().all()


def test_what_is_left_to_torch_is_named():
    for rows in (3, 9):
        w = work(Int8(24), rows=rows, dim=24, offset=15)
        assert "no multiples of 16" in str(cpu.why_not(w))
        assert torch.equal(cpu.attend(w), paged.attend(w))
    w = work(Int8())
    assert "float64" in str(cpu.why_not(dataclasses.replace(w, queries=w.queries[:1].double())))
    assert "no multiples of 16" in str(cpu.why_not(dataclasses.replace(w, queries=w.queries[:1, :, :24])))
    assert "meta" in str(cpu.why_not(dataclasses.replace(w, queries=w.queries[:1].to("meta"))))
