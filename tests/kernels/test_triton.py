"""The Triton kernels: on a GPU where there is one, else through Triton's interpreter (see conftest.py)."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import test_backends
import test_compiled
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from longer import longer
from test_compiled_scores import SHAPES, scored

from longspan import LLM
from longspan.cache.formats.fp8 import Fp8
from longspan.cache.formats.int4 import Int4
from longspan.cache.formats.int8 import Int8
from longspan.cache.runs import SealedRun
from longspan.engine.sample import Sampling
from longspan.errors import UsageError
from longspan.kernels import (
    ABSENT,
    BACKENDS,
    Raw,
    Run,
    Subset,
    Work,
    WrittenRun,
    backend,
    cpu,
    paged,
    reference,
    triton,
)

decode = pytest.importorskip("longspan.kernels.triton.decode", exc_type=ModuleNotFoundError)
pytestmark = pytest.mark.skipif("triton" in ABSENT, reason=ABSENT.get("triton", ""))
DEVICE = "cpu" if triton.interpreted() else "cuda"


@dataclasses.dataclass
class Moved:
    """The pages of another run, on DEVICE."""

    run: Run

    @property
    def pages(self) -> int:
        return self.run.pages

    def blocks(self, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((keys.to(DEVICE), values.to(DEVICE)) for keys, values in self.run.blocks(size))

    def raw(self) -> Iterator[Raw]:
        for raw in self.run.raw():
            ids = None if raw.ids is None else raw.ids.to(DEVICE)
            yield dataclasses.replace(raw, buffers={name: x.to(DEVICE) for name, x in raw.buffers.items()}, ids=ids)


def attend(work: Work) -> torch.Tensor:
    """By the kernels, whatever they leave to torch; back on the CPU."""
    fields = ("queries", "cos", "sin", "sinks")
    tensors = {name: x.to(DEVICE) for name in fields if (x := getattr(work, name)) is not None}
    w = dataclasses.replace(work, runs=[Moved(run) for run in work.runs], **tensors)
    assert triton.why_not(w) is None
    return triton.attend(w).cpu()


def narrowed(work: Work, dtype: torch.dtype) -> Work:
    """The same with keys and values in another dtype; queries stay as they are."""
    runs = [
        dataclasses.replace(run, dtype=dtype)
        if isinstance(run, SealedRun)
        else WrittenRun(run.keys.to(dtype), run.values.to(dtype))
        for run in work.runs
    ]
    return dataclasses.replace(work, runs=runs, dtype=dtype)


def mine(cases: list[dict]) -> list[dict]:
    """Those of few rows that read all pages; torch has the others."""
    return [case for case in cases if case.get("rows", 1) <= triton.FEW and not case.get("subset")]


@pytest.mark.parametrize("case", mine(test_backends.CASES), ids=str)
def test_equals_the_reference(case: dict):
    w = test_backends.work(**case)
    assert torch.allclose(attend(w), reference.attend(w), atol=2e-6, rtol=1e-5)


SINKS = torch.tensor([1.0, -2.0, 0.5, 3.0])
SEALED = [
    *(
        (format, case)
        for format in (Int8(), Int4())
        for case in mine(test_compiled.CASES)
        if case.get("pages", 0) < 300
    ),
    *((format, {"pages": 3, "rows": 2}) for format in test_compiled.FORMATS),
    (Int8(group=128), {"dim": 128}),
    (Int4(group=16), {"dim": 80, "g": 5}),
    (Int8(group=48), {"dim": 96, "softcap": 2.0}),
    (Int8(group=80), {"dim": 80, "sinks": SINKS}),
    (Fp8(), {"dim": 96, "in_file": True}),
    (Int4(), {"pages": 300, "kv_heads": 1, "g": 1}),
    (Int8(), {"pages": 40, "kv_heads": 1, "window": 300}),
]
HELD = [(f, c) for f, c in SEALED if c.get("dim", 64) % min(f.group, c.get("dim", 64)) == 0]
ALWAYS = HELD[::3] + [(f, c) for f, c in HELD if "softcap" in c or "sinks" in c or "window" in c]


@pytest.mark.parametrize(("format", "case"), longer(HELD, lambda *one: one in ALWAYS), ids=str)
def test_sealed_pages_are_read_as_they_open(format, case: dict):
    w = test_compiled.work(format, **case)
    assert torch.allclose(attend(w), test_compiled.expected(w), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    format=st.sampled_from(test_compiled.FORMATS), rows=st.integers(1, 8), pages=st.integers(0, 5),
    written=st.integers(1, 3), offset=st.integers(0, 15), g=st.integers(1, 8), window=st.none() | st.integers(1, 100),
    in_file=st.booleans(), dim=st.sampled_from([32, 64, 128]), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape_equals_the_reference(format, rows, pages, written, offset, **case):
    rows = min(rows, (written + pages - 1) * 16 + offset + 1)
    w = test_compiled.work(format, rows=rows, pages=pages, written=written, offset=offset, **case)
    assert torch.allclose(attend(w), test_compiled.expected(w), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("span", [1, 3, 100])
def test_however_pages_are_cut(monkeypatch: pytest.MonkeyPatch, span: int):
    """Also more spans than are joined at a time."""
    monkeypatch.setattr("longspan.kernels.triton.decode.PROGRAMS", 1)
    monkeypatch.setattr("longspan.kernels.triton.decode.LONGEST", span)
    w = test_compiled.work(Int4(), pages=37, written=3, kv_heads=1, begin=-500)
    assert torch.allclose(attend(w), test_compiled.expected(w), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_keys_do_not_round_queries_or_weights(dtype: torch.dtype):
    """An error far below the dtype's own rounding, 2⁻⁹ and 2⁻¹²."""
    w = narrowed(test_compiled.work(Int8(), pages=0, written=6, rows=2), dtype)
    got, expected = attend(w), test_compiled.expected(w)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() <= 3e-5


@pytest.mark.parametrize("format", [Int8(), Int4()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_under_half_precision_stay_within_its_rounding(format, dtype: torch.dtype):
    w = narrowed(test_compiled.work(format), dtype)
    w = dataclasses.replace(w, queries=w.queries.to(dtype))
    got, expected = attend(w), test_compiled.expected(w)
    assert got.dtype == dtype
    assert (got.float() - expected.float()).abs().max() <= 12 * torch.finfo(dtype).eps * 4


def test_a_number_that_is_none_reaches_the_result():
    w = test_compiled.work(Int8(), pages=2, written=2)
    last = w.runs[-1]
    assert isinstance(last, WrittenRun)
    last.keys[0, 0, 3, 4] = torch.nan
    out = attend(w)
    assert out[:, :2].isnan().all()
    assert out[:, 2:].isfinite().all()


def test_what_is_left_to_torch_is_named():
    w = test_compiled.work(Int8(), rows=9)
    few = dataclasses.replace(w, queries=w.queries[:1])
    assert triton.why_not(w) == "9 rows; 8 are the most"
    assert torch.equal(triton.attend(w), paged.attend(w))
    subset = Subset(1, torch.ones((few.kv_heads, 1, few.pages), dtype=torch.bool))
    assert "a part of the pages" in str(triton.why_not(dataclasses.replace(few, subset=subset)))
    assert "float64" in str(triton.why_not(dataclasses.replace(few, queries=few.queries.double())))
    assert "head_dim 320" in str(triton.why_not(dataclasses.replace(few, queries=torch.empty(1, 4, 320))))
    assert "pages of 48 slots" in str(triton.why_not(dataclasses.replace(few, page=48)))
    assert "meta" in str(triton.why_not(dataclasses.replace(few, queries=few.queries.to("meta"))))


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # the interpreter's maximum of a page without slots
@pytest.mark.parametrize("shape", [(*s[:2], min(s[2], 20), *s[3:]) for s in SHAPES], ids=str)
def test_scores_are_those_of_torch(shape: tuple[int, int, int, int, int]):
    queries, plain, layouts = scored(shape)
    for held in layouts:
        got = triton.score_sketch(queries.to(DEVICE), *(held[name].to(DEVICE) for name in ("codes", "min", "step")))
        assert got is not None
        assert torch.equal(got.cpu().isinf(), plain.isinf())
        assert torch.allclose(got.cpu(), plain, rtol=1e-5, atol=2e-5)


def test_auto_takes_them_on_a_cuda_device_only():
    assert backend("auto", "cuda:1") is BACKENDS["triton"] is triton.attend
    assert backend("auto", "cpu") is (paged.attend if cpu.NATIVE is None else cpu.attend)


def test_a_model_answers_as_with_torch(folder, monkeypatch: pytest.MonkeyPatch):
    decoded = mock.Mock(wraps=decode.attend)
    monkeypatch.setattr(decode, "attend", decoded)
    prompts = ["the quick brown fox jumps over the lazy dog"]
    said = [
        LLM(folder("llama"), memory="64MB", dtype="float32", device=DEVICE, page=16, format="int8", backend=name)
        .generate(prompts, Sampling(max_new_tokens=4))[0]
        .text
        for name in ("torch", "triton")
    ]
    assert said[0] == said[1]
    assert decoded.call_count >= 3 * 3  # layers × tokens


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.mark.skipif(DEVICE == "cuda", reason="this machine has a GPU")
def test_without_a_gpu_they_are_refused_with_the_reason():
    code = "from longspan.kernels import BACKENDS, backend, paged; assert 'triton' not in BACKENDS;"
    code += "assert backend('auto', 'cuda') is paged.attend"
    assert run("-c", code, TRITON_INTERPRET="0").stderr == ""
    done = run("-m", "longspan", "run", "--prompt", "x", "--backend", "triton", TRITON_INTERPRET="0")
    assert done.returncode == 2
    assert "'triton' is not here (torch finds no CUDA device)" in done.stderr
    done = run("-m", "longspan", "doctor", TRITON_INTERPRET="0")
    assert "none: torch finds no CUDA device" in done.stdout
    done = run("benchmarks/triton_kernels.py", TRITON_INTERPRET="0")
    assert done.returncode == 1
    assert "there is none to measure: torch finds no CUDA device" in done.stderr


def test_without_triton_they_are_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton is not installed" in str(triton.why_none())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ABSENT, "triton", "for a reason")
        with pytest.raises(UsageError, match=r"'triton' is not here \(for a reason\); known: auto, torch"):
            backend("triton")


@pytest.mark.long
def test_they_compile_for_gpus(tmp_path: Path):
    """With types and shapes that the interpreter does not check."""
    script = Path(__file__).with_name("ahead.py")
    done = run(str(script), TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {name: names.count(name) for name in names} == {"read": 18, "join": 9, "best": 2}
