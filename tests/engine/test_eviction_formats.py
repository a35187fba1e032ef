"""Eviction from sealed pages through whole models: the format's own result within the budget, in any chunks, freed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from longer import longer

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.errors import UsageError

PACKED = [name for name in FORMATS if name != "dense"]
BUDGET, PAGE = 96, 16
#: how far logits of the tiny models may move when a few numbers are rounded to the next code
CODE = {"int8": 0.002, "fp8": 0.02, "int4": 0.02}


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def opened(folder: Callable[..., Path], evict: str, format: str, place: str = "text", **options: object) -> LLM:
    path = folder("llama")
    options = {"memory": "64MB", "dtype": "float32", "page": PAGE, **options}
    return LLM(path, evict=evict, format=format, place=place, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("format", PACKED)
def test_a_budget_that_holds_all_is_the_format_alone(name: str, format: str, folder: Callable[..., Path]):
    """The same pages are sealed at the same places in the text, whether something may be evicted or not."""
    ids = ids_of(700)
    alone = LLM(folder("llama"), memory="64MB", dtype="float32", format=format, page=PAGE).logits(ids)
    # pyramidkv gives the uppermost layer a twentieth of what the others may spare
    budget = 1024 if name != "pyramidkv" else 20 * 1024
    for place in ("text", "slot"):
        llm = opened(folder, f"{name}:budget={budget},merge=false", format, place)
        assert llm.layout.interval == 256
        assert (llm.logits(ids) - alone).abs().max() <= CODE[format]


@pytest.mark.parametrize(
    ("name", "format", "place"),
    longer(
        [
            (name, *how)
            for name in POLICIES
            for how in (("int8", "slot"), ("int4", "text"), ("fp8", "far:near=32,order=true"))
        ],
        lambda name, format, place: format == "int4" or name in ("h2o", "adakv"),
    ),
)
def test_any_chunks_and_any_company_keep_the_same(name: str, format: str, place: str, folder: Callable[..., Path]):
    llm = opened(folder, f"{name}:budget={BUDGET},merge=false", format, place)
    ids = ids_of(300)
    kept = []
    for chunk in (1000, 7, 64):
        other = opened(folder, f"{name}:budget={BUDGET},merge=false", format, place, chunk=chunk)
        with other.session() as session:
            session.feed(ids)
            lanes = session._text.cache.lanes
            assert lanes is not None
            kept.append([lane[lane >= 0].tolist() for lane in lanes.notes.position.flatten(0, 1)])
    assert kept[0] == kept[1] == kept[2]
    prompts = [ids, ids_of(200, 3), ids_of(40, 4)]
    together = llm.generate(prompts, max_new_tokens=40, ignore_eos=True)
    assert [one.ids for one in together] == [
        llm.generate(prompt, max_new_tokens=40, ignore_eos=True).ids for prompt in prompts
    ]
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize(
    ("name", "format"),
    longer(itertools.product(POLICIES, PACKED), lambda name, format: format == "int4" or name in ("h2o", "adakv")),
)
def test_pages_are_freed_for_real(name: str, format: str, folder: Callable[..., Path]):
    """At 16 times the budget: never more than the formula, which is far below the whole text in the format."""
    llm = opened(folder, f"{name}:budget={BUDGET},merge=false", format)
    whole = LLM(folder("llama"), memory="64MB", dtype="float32", format=format, page=PAGE).layout
    with llm.session() as session:
        session.feed(ids_of(16 * BUDGET + 5))
        cache = session._text.cache
        lanes = cache.lanes
        assert lanes is not None
        assert lanes.notes.rewrites is not None
        assert int(lanes.notes.rewrites.max()) <= 2
        held = (lanes.notes.position >= 0).sum(-1)
        total = sum(lanes.policy.budgets(3)) * 2  # three layers of two heads
        assert total * 0.9 - (6 * PAGE if name == "lru" else 0) <= int(held.sum()) <= total
        assert llm.pool.sealed is not None
        assert llm.pool.sealed.owned == int(lanes.sealed.sum()) > 0
        assert llm.pool.owned == lanes.owned - llm.pool.sealed.owned
        assert llm.pool.owned_bytes == cache.bytes + lanes.notes.bytes
        asked = session.ask(ids_of(30), max_new_tokens=100, ignore_eos=True)
        assert len(asked.ids) == 100
    assert llm.pool.peak_bytes <= llm.layout.bytes(16 * BUDGET) < whole.bytes(16 * BUDGET)
    for slab in (llm.pool, llm.pool.sealed):
        assert slab.owned == 0
        assert slab.free == slab.total or slab.free == llm.pool.budget.limit // slab.page_bytes


@pytest.mark.parametrize(
    ("name", "format"),
    longer(
        itertools.product(POLICIES, ["dense", *PACKED]),
        lambda name, format: format == "int8" or name in ("h2o", "snapkv"),
    ),
)
def test_what_lies_in_unused_slots_never_shows(name: str, format: str, folder: Callable[..., Path]):
    answers = []
    for poison in (0.0, float("nan")):
        llm = opened(folder, f"{name}:budget={BUDGET},merge=false", format)
        for slab in (llm.pool, llm.pool.sealed):
            for buffer in () if slab is None else slab.buffers.values():  # type: ignore[union-attr]
                if buffer.is_floating_point():
                    buffer.copy_(torch.full((), poison))
        answers.append(llm.generate(ids_of(300), max_new_tokens=40, ignore_eos=True).ids)
    assert answers[0] == answers[1]


def test_a_fork_goes_its_own_way(folder: Callable[..., Path]):
    llm = opened(folder, f"h2o:budget={BUDGET}", "int4", "slot")
    with llm.session() as session:
        session.feed(ids_of(500))
        lanes = session._text.cache.lanes
        assert lanes is not None
        before = lanes.notes.position.clone()
        with session.fork() as twin:
            first = twin.ask(ids_of(60, 5), max_new_tokens=90, ignore_eos=True).ids
        assert torch.equal(lanes.notes.position, before)
        assert session.ask(ids_of(60, 5), max_new_tokens=90, ignore_eos=True).ids == first
    assert llm.pool.owned_bytes == 0


def test_a_saved_session_goes_on(folder: Callable[..., Path], tmp_path: Path):
    llm = opened(folder, f"snapkv:budget={BUDGET}", "int8")
    with llm.session() as session:
        session.feed(ids_of(500))
        session.save(tmp_path / "text")
        expected = session.ask(ids_of(60, 5), max_new_tokens=60, ignore_eos=True).ids
    with llm.resume(tmp_path / "text") as session:
        assert session.ask(ids_of(60, 5), max_new_tokens=60, ignore_eos=True).ids == expected
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("evict", ["h2o:merge=true", "cluster"])
def test_merging_stays_dense(evict: str, folder: Callable[..., Path]):
    with pytest.raises(UsageError, match="give merge=false or leave out --format"):
        opened(folder, evict, "int8")
