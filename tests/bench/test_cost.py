"""Bytes and operations that are counted, against the cache and the model themselves."""

from __future__ import annotations

import checkpoints
import pytest
import torch
from checkpoints import VOCAB

from longspan import LLM
from longspan.bench import cost
from longspan.bench.fill import fill

PROMPT = [i % VOCAB for i in range(1000)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    checkpoints.make("llama", path)
    return path


def filled(path, **options):
    llm = LLM(path, memory="64MB", **options)
    return llm, fill(llm, [PROMPT])[0][0]


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "int8"}, {"format": "int4"}, {"evict": "h2o:budget=128"}, {"evict": "streaming:budget=128"}],
)
def test_without_selection_all_that_is_held_is_read(model, options):
    llm, text = filled(model, **options)
    reads = cost.reads(llm, text)
    assert reads == cost.Reads(text.cache.bytes, 0, 0)
    assert reads.usual <= llm.layout.bytes(len(PROMPT))


def test_pages_in_a_file_are_read_too(model, tmp_path):
    plain, file = ({"format": "int8"}, {"format": "int8", "offload": str(tmp_path), "resident": "1MB"})
    assert cost.reads(*filled(model, **plain)) == cost.reads(*filled(model, **file))


@pytest.mark.parametrize("hold", [1, 64])
@pytest.mark.parametrize("format", ["dense", "int8"])
def test_a_selection_reads_a_few_pages_and_looks_at_the_summaries_of_the_others(model, hold, format):
    llm, text = filled(model, select=f"sketch:pages=2,near=128,sinks=4,hold={hold}", format=format)
    lanes, layout = 3 * 2, llm.layout
    reads = cost.reads(llm, text)
    held, always = -(-len(PROMPT) // 64), 128 // 64 + 1 + 1
    assert reads.scanned == lanes * (held - always) * layout.summary_bytes
    assert reads.looks_every == hold
    assert reads.usual == reads.pages + (reads.scanned if hold == 1 else 0)
    if format == "dense":
        assert reads.pages == lanes * (always + 2) * layout.page_bytes
    else:
        written = text.cache.groups[0].count - text.cache.groups[0].sealed
        sealed = max(always + 2 - written, 0)
        assert reads.pages == lanes * (min(written, always + 2) * layout.page_bytes + sealed * layout.sealed_bytes)


def test_a_short_text_is_read_whole(model):
    llm = LLM(model, memory="64MB", select="sketch:pages=8,near=512")
    [text], _ = fill(llm, [PROMPT[:200]])
    assert cost.reads(llm, text) == cost.Reads(text.cache.bytes, 0, 0)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_weights_are_read_once_and_an_embedding_not_at_all(family, tmp_path):
    checkpoints.make(family, tmp_path)
    llm = LLM(tmp_path, memory="1MB")
    model = llm.scheduler.forward.model
    linear = sum(m.weight.nbytes for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert linear <= cost.weights(llm) < 1.01 * linear


@pytest.mark.parametrize(("tokens", "most"), [(1, 1), (7, 3), (7, 7), (7, 9)])
def test_keys_that_queries_see(tokens, most):
    assert cost.triangle(tokens, most) == sum(min(i + 1, most) for i in range(tokens))


def test_operations_of_reading(model):
    llm = LLM(model, memory="1MB")
    whole = llm.scheduler.forward.model
    linear = sum(m.weight.numel() for name, m in whole.named_modules() if isinstance(m, torch.nn.Linear))
    head = whole.get_output_embeddings().weight.numel()
    attention = 4 * 3 * llm.shape.heads * llm.shape.head_dim * (100 * 101 // 2)  # 3 layers, two products
    wanted = 2 * (linear - head) * 100 + 2 * head + attention
    assert cost.flops(llm, 100) == pytest.approx(wanted, rel=0.01)
    few = LLM(model, memory="1MB", evict="streaming:budget=128")
    assert cost.flops(few, 10_000) < cost.flops(llm, 10_000)
