"""What the planner says of a text's cache, beside what the cache took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import LLM
from longspan.engine.answers import answer
from longspan.engine.foresee import foresee, kv_bytes
from longspan.engine.foretell import shape_of
from longspan.engine.prompts import Split
from longspan.engine.sample import Sampling

NEW = 16
PLANS = {
    "none": {},
    "h2o": {"evict": "h2o:budget=256"},
    "landmark": {"select": "landmark:pages=4,near=128"},
}


def ids_of(tokens: int, seed: int = 0) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def narrow(folder: Callable[..., Path]) -> Path:
    return folder("llama", num_hidden_layers=2, hidden_size=32, intermediate_size=32)


def taken(path: Path, tokens: int, chunk: int = 512, **options: str) -> tuple[LLM, int]:
    """A model that read a text and answered, and the most bytes that its cache took."""
    llm = LLM(path, memory="64MB", dtype="float32", chunk=chunk, **options)
    llm.generate(ids_of(tokens - NEW), max_new_tokens=NEW, ignore_eos=True)
    return llm, llm.pool.peak_bytes


@pytest.mark.parametrize("format", ["dense", "int8", "int4"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("tokens", [512, 4096])
def test_predicted_is_what_the_cache_took(format: str, plan: str, tokens: int, folder: Callable[..., Path]):
    llm, peak = taken(narrow(folder), tokens, format=format, **PLANS[plan])
    predicted, exact = kv_bytes(llm, 0, [tokens - NEW], NEW)
    assert exact == (plan != "h2o" or format == "dense")
    if exact:
        assert predicted == peak
    assert peak <= predicted <= llm.layout.bytes(tokens, chunk=512)
    need = foresee(llm, tokens, NEW)
    assert need.cache == predicted


@settings(max_examples=25)
@given(
    tokens=st.integers(20, 1200),
    chunk=st.sampled_from([64, 100, 512]),
    format=st.sampled_from(["dense", "int8", "int4"]),
    plan=st.sampled_from([*PLANS]),
)
def test_predicted_to_the_byte_at_any_length(
    tokens: int, chunk: int, format: str, plan: str, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.getbasetemp() / "narrow"
    if not path.exists():
        checkpoints.make("llama", path, num_hidden_layers=2, hidden_size=32, intermediate_size=32)
    llm, peak = taken(path, tokens, chunk, format=format, **PLANS[plan])
    predicted, exact = kv_bytes(llm, 0, [tokens - NEW], NEW)
    assert peak == predicted if exact else peak <= predicted


@pytest.mark.parametrize("evict", ["h2o:budget=200", "streaming:budget=100", "tova:budget=300", "pyramidkv:budget=256"])
def test_any_policy_of_its_own_budget(evict: str, folder: Callable[..., Path]):
    llm, peak = taken(narrow(folder), 1500, evict=evict)
    assert kv_bytes(llm, 0, [1500 - NEW], NEW) == (peak, True)


@pytest.mark.parametrize("family", [*checkpoints.FAMILIES])
def test_every_family_that_runs_is_known_to_the_planner(family: str, folder: Callable[..., Path]):
    llm = LLM(folder(family), memory="64MB", dtype="float32")
    shape = shape_of(llm)
    assert shape.parameters == llm.shape.parameters
    assert [layer.window for layer in shape.layers] == [layer.window for layer in llm.shape.layers]
    assert shape.trained == llm.shape.trained
    llm.generate(ids_of(200), max_new_tokens=NEW, ignore_eos=True)
    need = foresee(llm, 200 + NEW, NEW)
    assert llm.pool.peak_bytes <= need.cache
    if all(layer.window is None for layer in shape.layers):
        assert llm.pool.peak_bytes == need.cache


@pytest.mark.parametrize("plan", PLANS)
def test_several_questions_take_no_more_than_is_said(plan: str, folder: Callable[..., Path]):
    llm = LLM(narrow(folder), memory="64MB", dtype="float32", format="int8", **PLANS[plan])
    split = Split(ids_of(700), [ids_of(40, 1), ids_of(90, 2), ids_of(10, 3)])
    answer(llm, split, Sampling(max_new_tokens=NEW, ignore_eos=True))
    predicted, exact = kv_bytes(llm, 700, [40, 90, 10], NEW)
    assert not exact
    assert llm.pool.peak_bytes <= predicted < 3 * llm.pool.peak_bytes


def test_context_alone_chooses_for_the_memory_there_is(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("longspan.engine.llm.available", lambda device: 300_000)
    llm = LLM(narrow(folder), context=1024, dtype="float32")
    assert llm.plan.why is not None
    assert llm.plan.texts["format"] == "int8"
    assert llm.layout.bytes(1024, chunk=2048) <= 300_000
