"""What other engines allocate, against figures that their own users reported."""

from __future__ import annotations

import pytest

from longspan import spec
from longspan.cache.formats import FORMATS
from longspan.plan import caches
from longspan.plan.engines import Allocation, engines
from longspan.plan.shapes import KNOWN, find
from longspan.plan.work import Work

GIB = 1 << 30


def of(name: str, context: int, **more: object) -> dict[str, Allocation]:
    return {one.engine: one for one in engines(find(name), Work(context, **more))}  # type: ignore[arg-type]


def test_scout_as_vllm_asks_for_it():
    """An issue of vLLM's: 240.00 GiB on each of eight devices for 10,485,760 tokens."""
    found = of("llama-4-scout", 10_485_760, ranks=8)
    assert found["vllm"].bytes / GIB == 240
    assert "kept in full" in found["vllm"].differs
    assert found["llama.cpp"].bytes / GIB == pytest.approx(60.15, abs=0.01)


def test_windows():
    gemma = of("gemma-3-27b", 131_072)
    full = sum(layer.token_numbers for layer in find("gemma-3-27b").layers) * 2 * 131_072
    assert gemma["sglang"].bytes == full
    assert caches.minimum(find("gemma-3-27b"), 131_072) < gemma["llama.cpp"].bytes < gemma["vllm"].bytes < full / 5
    assert "60 sliding layers (8 of them padding)" in gemma["vllm"].formula
    assert of("gemma-2-9b", 8192)["vllm"].formula.startswith("21 sliding layers ×")
    mistral = of("mistral-7b-v0.1", 32_768)
    assert mistral["llama.cpp"].bytes == 32_768 * 128 * 1024
    assert "not heeded" in mistral["llama.cpp"].differs


def test_dense_models_are_alike_everywhere():
    for one in of("llama-3.1-8b", 65_536, batch=3).values():
        assert one.bytes == 3 * 65_536 * 128 * 1024
        assert one.differs == ""


def test_formats_by_their_names():
    names = {
        format: {
            e: one.dtype for e, one in of("llama-3.1-8b", 4096, format=spec.parse(format, FORMATS, "format")).items()
        }
        for format in ("int8", "int4", "fp8")
    }
    assert names["int8"] == {"vllm": "int8_per_token_head", "sglang": "fp8_e4m3", "llama.cpp": "q8_0"}
    assert names["int4"] == {"vllm": "int4_per_token_head", "sglang": "fp4_mx_block16", "llama.cpp": "q4_0"}
    assert names["fp8"] == {"vllm": "fp8", "sglang": "fp8_e4m3", "llama.cpp": "q8_0"}
    four = of("llama-3.1-8b", 4096, format=spec.parse("int4", FORMATS, "format"))
    assert four["llama.cpp"].bytes == 4096 * 64 * 1024 * 18 // 32  # 18 bytes for 32 numbers


@pytest.mark.parametrize("name", KNOWN)
def test_no_engine_takes_less_than_the_architecture(name: str):
    shape = find(name)
    for one in engines(shape, Work(100_000)):
        assert one.bytes >= caches.minimum(shape, 100_000)
        assert one.source
        assert one.formula
