"""Sealed pages in every format through whole models: the same in any chunks, within the stated error, in its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch

from longspan import LLM
from longspan.cache.bytes import INTERVAL, Layout
from longspan.cache.formats import FORMATS
from longspan.cache.pool import Pool
from longspan.cache.sequence import Sequence
from longspan.errors import DoesNotFit, UsageError

PACKED = [name for name in FORMATS if name != "dense"]
#: how far logits of the tiny models (up to 1.5) may move; coarser codes move them more
NEAR = {"int8": 0.02, "fp8": 0.2, "int4": 0.4}


def ids_of(tokens: int) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(2)).tolist()


def opened(folder: Callable[..., Path], format: str, family: str = "llama", **options: object) -> LLM:
    return LLM(folder(family), memory="64MB", dtype="float32", format=format, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", PACKED)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_logits_are_near_those_of_dense_pages(format: str, family: str, folder: Callable[..., Path]):
    ids = ids_of(900)
    exact = opened(folder, "dense", family).logits(ids, chunk=INTERVAL)
    near = opened(folder, format, family).logits(ids)
    moved = (near - exact).abs().amax(1)
    assert moved[:INTERVAL].max() == 0.0  # nothing is sealed yet
    assert 0 < moved[INTERVAL:].max() <= NEAR[format]


@pytest.mark.parametrize("format", PACKED)
def test_any_chunks_give_the_same(format: str, folder: Callable[..., Path]):
    """What a query sees sealed follows from text positions, not from how the prompt was cut.

    Rounding in the layers before moves a few numbers to the next code; sealing at other times would move all.
    """
    llm = opened(folder, format)
    ids = ids_of(600)
    whole = llm.logits(ids, chunk=4096)
    for chunk in (1, 7, 64, 333):
        assert (llm.logits(ids, chunk=chunk) - whole).abs().max() < NEAR[format] / 20
    again = llm.logits(ids, start=10 * INTERVAL + 1)  # other pages, other times of sealing
    assert (again - whole).abs().max() <= 2 * NEAR[format]


@pytest.mark.parametrize("format", PACKED)
def test_texts_in_one_step_are_as_alone(format: str, folder: Callable[..., Path]):
    llm = opened(folder, format)
    prompts = [ids_of(n) for n in (700, 300, 257)]
    together = llm.generate(prompts, max_new_tokens=20, ignore_eos=True)
    alone = [llm.generate(prompt, max_new_tokens=20, ignore_eos=True) for prompt in prompts]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("format", PACKED)
def test_bytes_at_the_peak_are_those_of_the_formula(format: str, folder: Callable[..., Path]):
    llm = opened(folder, format)
    page = llm.layout.page_bytes
    sealed = llm.layout.sealed_bytes
    assert sealed is not None
    assert sealed < page
    with llm.session() as session:
        session.feed(ids_of(16 * INTERVAL))
        # 3 layers of 2 heads; 64 pages of text, of which the newest is not sealed
        assert llm.pool.owned_bytes == 3 * 2 * ((16 * INTERVAL // 64 - 1) * sealed + page)
    peak = llm.pool.peak_bytes
    assert peak == llm.layout.bytes(16 * INTERVAL, chunk=1024)
    assert peak < 3 * 2 * 16 * INTERVAL // 64 * page * 0.6


@pytest.mark.parametrize("select", ["all", "sketch:pages=2,near=64"])
@pytest.mark.parametrize("format", FORMATS)
def test_bytes_fall_by_the_heads_that_share(format: str, select: str, folder: Callable[..., Path]):
    """MHA, GQA in groups of 2 and 4, and MQA, with as many weights each: the bytes at the peak fall by exactly H/G."""
    peaks, weights = {}, set()
    for kv_heads in (8, 4, 2, 1):
        shape = {"num_attention_heads": 8, "num_key_value_heads": kv_heads, "head_dim": 24}
        path = folder("llama", intermediate_size=96 + 16 * (8 - kv_heads), **shape)
        llm = LLM(path, memory="64MB", dtype="float32", format=format, select=select)
        llm.generate(ids_of(1000), max_new_tokens=1, ignore_eos=True)
        peaks[kv_heads] = llm.pool.peak_bytes
        weights.add(sum(p.numel() for p in llm.scheduler.forward.model.parameters()))
    assert len(weights) == 1
    assert all(peak * 8 == peaks[8] * heads for heads, peak in peaks.items())


def test_the_limit_counts_both_kinds_of_pages(folder: Callable[..., Path]):
    dense = opened(folder, "dense")
    ids = ids_of(4096)
    limit = dense.layout.bytes(2048)
    with pytest.raises(DoesNotFit, match="holds 2,048 tokens"):
        LLM(folder("llama"), memory=limit, dtype="float32").generate(ids, max_new_tokens=1)
    packed = LLM(folder("llama"), memory=limit, dtype="float32", format="int4")
    assert packed.generate(ids, max_new_tokens=1).tokens_in == 4096
    assert packed.pool.peak_bytes <= limit


def test_a_fork_shares_sealed_pages(folder: Callable[..., Path]):
    llm = opened(folder, "int4")
    with llm.session() as session:
        session.feed(ids_of(1100))
        owned = llm.pool.owned_bytes
        answers = []
        for _ in range(2):
            twin = session.fork()
            assert llm.pool.owned_bytes <= owned + 3 * 2 * llm.layout.page_bytes
            answers.append(twin.ask(ids_of(40), max_new_tokens=300, ignore_eos=True).ids)
            twin.close()
            assert llm.pool.owned_bytes == owned
        assert answers[0] == answers[1]
        assert answers[0] == session.ask(ids_of(40), max_new_tokens=300, ignore_eos=True).ids
    assert llm.pool.free == llm.pool.total
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("format", PACKED)
def test_ten_thousand_appends_change_no_sealed_code(format: str):
    """Each page is quantized once; a cache that quantizes its past again loses a little of it every time."""
    plan = FORMATS[format]()
    layout = Layout((None, 100), 2, 16, 4, 64, plan.bytes(64, 16, torch.float32), INTERVAL)
    pool = Pool(layout, 1 << 26, torch.float32, format=plan)
    assert pool.sealed is not None
    text = Sequence(pool)
    r = torch.Generator().manual_seed(0)
    seen: dict[int, torch.Tensor] = {}
    for number in range(10_000):
        text.grow(1)
        pages = torch.from_numpy(np.stack([group.live[0, :, -1] for group in text.groups]))
        pool.keys[pages, :, number % 64] = torch.randn(2, 2, 16, generator=r)
        pool.values[pages, number % 64] = torch.randn(2, 2, 16, generator=r)
        text.tidy()
        if number % 500 == 0:
            for column in range(text.groups[0].sealed):
                page = int(text.groups[0].live[0, 1, column])
                code = torch.cat([buffer[page].float().ravel() for buffer in pool.sealed.buffers.values()])
                assert torch.equal(seen.setdefault(column, code), code)
    assert len(seen) > 140
    assert text.groups[1].count <= 100 // 64 + 2


def test_an_unknown_format_is_refused_with_the_list(folder: Callable[..., Path]):
    with pytest.raises(UsageError, match="known: dense, int8, int4, fp8"):
        LLM(folder("llama"), format="int3")
    with pytest.raises(UsageError, match="int4:group=8"):
        LLM(folder("llama"), format="int4:group=12")
