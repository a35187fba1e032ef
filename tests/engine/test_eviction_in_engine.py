"""Every eviction policy through whole models: the budget is kept in pages, and nothing else changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
import transformers
from longer import longer

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.errors import UsageError

BUDGET = 128
PLACES = ["text", "slot", "far:near=64", "far:near=64,order=true"]
ODD = [("streaming", "slot"), ("h2o", "slot"), ("snapkv", "far:near=64"), ("adakv", "far:near=64,order=true")]
"""Tried each time with other distances than those of the text."""


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def opened(folder: Callable[..., Path], evict: str, place: str = "text", family: str = "llama", **shape: object) -> LLM:
    return LLM(folder(family, **shape), memory="64MB", dtype="float32", evict=evict, place=place)


@pytest.mark.parametrize("name", POLICIES)
def test_a_budget_that_holds_all_changes_nothing(name: str, folder: Callable[..., Path]):
    ids = ids_of(400)
    # pyramidkv gives the uppermost layer a twentieth of what the others may spare
    budget = 400 if name != "pyramidkv" else 20 * 400
    exact = LLM(folder("llama"), memory="64MB", dtype="float32").logits(ids)
    for place in ("text", "slot"):
        moved = (opened(folder, f"{name}:budget={budget}", place).logits(ids) - exact).abs().max()
        assert moved <= 1e-5


@pytest.mark.parametrize(
    ("name", "place"),
    longer(
        itertools.product(POLICIES, PLACES),
        lambda name, place: place == "text" or (name, place) in ODD,
    ),
)
def test_any_chunks_and_any_company_give_the_same(name: str, place: str, folder: Callable[..., Path]):
    llm = opened(folder, f"{name}:budget={BUDGET}", place)
    ids = ids_of(500)
    whole = llm.logits(ids, chunk=4096)
    for chunk in (1, 7, 100):
        assert (llm.logits(ids, chunk=chunk) - whole).abs().max() <= 2e-5
    prompts = [ids, ids_of(200, 3), ids_of(64, 4)]
    together = llm.generate(prompts, max_new_tokens=80, ignore_eos=True)
    assert [one.ids for one in together] == [
        llm.generate(prompt, max_new_tokens=80, ignore_eos=True).ids for prompt in prompts
    ]
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("merge", ["", ",merge=true,similarity=0"])
@pytest.mark.parametrize("name", POLICIES)
def test_pages_are_freed_for_real(name: str, merge: str, folder: Callable[..., Path]):
    """At 16 times the budget the cache never had more than the budget asks for, and holds the budget at the end."""
    llm = opened(folder, f"{name}:budget={BUDGET}{merge}")
    page, note = llm.layout.page_bytes, 64 * llm.layout.note_bytes
    fullest = {"adakv": 2 * BUDGET, "pyramidkv": 2 * BUDGET}.get(name, BUDGET)  # what is noted has one width
    with llm.session() as session:
        session.feed(ids_of(16 * BUDGET + 21))
        lanes = session._text.cache.lanes
        assert lanes is not None
        held = (lanes.notes.position >= 0).sum(-1)
        assert torch.equal(held, torch.from_numpy(lanes.counts))
        if name == "lru":
            assert (held <= BUDGET).all()
            assert (held > BUDGET - 64).all()
        elif name == "adakv":
            assert (held.sum(1) == 2 * BUDGET).all()  # of both heads of a layer together
        elif name == "pyramidkv":
            assert held.sum() == 3 * 2 * BUDGET
            assert (held[0] > held[1]).all()
        else:
            assert (held == BUDGET).all()
        assert lanes.owned == int((-(-lanes.counts // 64)).sum())
        asked = session.ask(ids_of(30), max_new_tokens=200, ignore_eos=True)
        assert len(asked.ids) == 200
    # three layers of two lanes, the budget and what comes between two evictions, and a last page in part
    bound = 3 * 2 * (((BUDGET + 64) // 64 + 2) * page + ((fullest + 64) // 64 + 1) * note)
    assert llm.pool.peak_bytes <= llm.layout.bytes(16 * BUDGET) <= bound
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_what_is_left_is_attended_as_under_a_mask(name: str, heads: int, folder: Callable[..., Path]):
    """One layer, so that keys do not depend on what was evicted: the next logits are those of the whole text under a
    mask that hides, head by head, what went."""
    path = folder("llama", num_hidden_layers=1, num_key_value_heads=heads)
    llm = LLM(path, memory="64MB", dtype="float32", evict=f"{name}:budget={BUDGET},merge=false")
    ids = ids_of(330)
    with llm.session() as session:
        session.feed(ids[:-1])
        lanes = session._text.cache.lanes
        assert lanes is not None
        kept = [set(lane[lane >= 0].tolist()) for lane in lanes.notes.position[0]]
        got = session.ask(ids[-1:], max_new_tokens=1, logprobs=20).logprobs
    window = lanes.policy.window
    mask = torch.full((1, 4, 330, 330), torch.finfo(torch.float32).min).triu(1)
    for head in range(4):
        gone = set(range(329)) - kept[head * heads // 4]
        if window is not None:
            gone |= {at for at in range(329) if at <= 329 - window and at >= lanes.policy.sinks}
        mask[0, head, -1, sorted(gone)] = torch.finfo(torch.float32).min
    assert any(len(lane) < 329 for lane in kept)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        expected = model(torch.tensor([ids]), attention_mask=mask).logits[0, -1].log_softmax(-1)
    assert got is not None
    for one in (*got[0].top,):
        assert one[1] == pytest.approx(float(expected[one[0]]), abs=1e-4)


def test_the_window_is_exact_between_evictions(folder: Callable[..., Path]):
    """One layer: a token further back than the window changes nothing, the last one inside does; sinks always do."""
    ids = ids_of(300)
    for evict, last, always in (("sliding_window:budget=50", 50, None), ("streaming:budget=50,sinks=4", 46, 3)):
        llm = opened(folder, evict, num_hidden_layers=1)

        def moved(back: int, llm: LLM = llm) -> float:
            other = list(ids)
            other[-1 - back] = (other[-1 - back] + 101) % checkpoints.VOCAB
            return float((llm.logits(other)[-1] - llm.logits(ids)[-1]).abs().max())

        assert moved(last - 1) > 1e-4
        assert moved(last) == moved(last + 1) == moved(last + 60) == 0.0
        if always is not None:
            assert moved(299 - always) > 1e-4
            assert moved(299 - always - 1) == 0.0


def test_streaming_turns_by_less_than_the_cache_holds(folder: Callable[..., Path], monkeypatch):
    """However long the text: no angle is formed of a distance beyond the cache, and nothing grows."""
    llm = opened(folder, "streaming:budget=128", "slot")
    farthest = []
    from longspan.attention.rotation import Rotation

    def by(self, counts, unit, real=Rotation.by):
        farthest.append(int(counts.abs().max()) * unit)
        return real(self, counts, unit)

    monkeypatch.setattr(Rotation, "by", by)
    with llm.session() as session:
        session.feed(ids_of(2000))
        early = llm.pool.owned_bytes
        session.feed(ids_of(20_000))
        assert llm.pool.owned_bytes == early
        assert session.rope == "default"  # 22,000 tokens where 4,096 were trained
    # eviction itself, which sees keys in the text, is not attention
    assert max(farthest[:50]) < 128 + 64
    assert llm.reach(1_000_000) <= 2 * 128 + 64


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_oss", "gemma2"])
def test_window_layers_are_left_alone(family: str, folder: Callable[..., Path]):
    """Caps and learned sinks hold in the layers that evict; window layers keep what they kept."""
    exact = LLM(folder(family), memory="64MB", dtype="float32").logits(ids_of(300))
    llm = opened(folder, "h2o:budget=400", family=family)
    assert (llm.logits(ids_of(300)) - exact).abs().max() <= 2e-5
    few = opened(folder, "h2o:budget=80", family=family)
    with few.session() as session:
        session.feed(ids_of(900))
        assert {group.window for group in session._text.cache.groups} == {checkpoints.WINDOW}
        assert (session._text.cache.lanes.counts == 80).all()  # type: ignore[union-attr]


def test_a_fork_goes_its_own_way(folder: Callable[..., Path]):
    llm = opened(folder, f"h2o:budget={BUDGET}", "slot")
    with llm.session() as session:
        session.feed(ids_of(700))
        before = session._text.cache.lanes.notes.position.clone()  # type: ignore[union-attr]
        with session.fork() as twin:
            first = twin.ask(ids_of(100, 5), max_new_tokens=150, ignore_eos=True).ids
        assert torch.equal(session._text.cache.lanes.notes.position, before)  # type: ignore[union-attr]
        assert session.ask(ids_of(100, 5), max_new_tokens=150, ignore_eos=True).ids == first
    assert llm.pool.owned_bytes == 0


def test_what_has_no_meaning_is_refused(folder: Callable[..., Path]):
    for wrong, said in (
        ("h2o:budget=64,recent=100", "budget 64 < recent 100; raise budget or lower recent"),
        ("h2o:budget=0", "at least 1"),
        ("streaming:budget=4", "no room beside 4 sinks"),
        ("snapkv:budget=64", "no room beside the 64 newest"),
        ("adakv:safeguard=101", "from 0 to 100"),
        ("h3o", "known: none, sliding_window"),
        ("h2o:size=4", "its options: budget"),
    ):
        with pytest.raises(UsageError, match=said):
            opened(folder, wrong)
    with pytest.raises(UsageError, match="add --evict or --select"):
        opened(folder, "none", "slot")
    with pytest.raises(UsageError, match="near=0"):
        opened(folder, "h2o", "far:near=0")


@pytest.mark.parametrize("begin", [2**31 - 1500, 2**31 - 300, 2**33])
def test_positions_of_any_size_are_told_apart(begin: int, folder: Callable[..., Path]):
    """Four bytes hold a position up to 2^31; a text that grows beyond takes eight, and goes on as before."""
    llm = opened(folder, f"streaming:budget={BUDGET},sinks=4", "slot")
    with llm.session(start=begin) as session, llm.session(start=begin % llm.layout.page + 64) as near:
        for one in (session, near):
            one.feed(ids_of(1000))
        lanes = session._text.cache.lanes
        assert lanes is not None
        assert (lanes.notes.position.dtype == torch.int64) == (begin + 1000 > 2**31 - 1)
        assert int(lanes.notes.position.max()) == begin + 999
        with session.fork() as twin:
            said = [x.ask(ids_of(5, 3), max_new_tokens=20, ignore_eos=True).ids for x in (twin, session, near)]
    assert said == [said[0]] * 3


@pytest.mark.parametrize("merge", ["false", "true"])
def test_counts_are_bytes(merge: str, folder: Callable[..., Path]):
    """What is known of slots beside keys and values counts too."""
    llm = opened(folder, f"h2o:budget={BUDGET},merge={merge}")
    with llm.session() as session:
        session.feed(ids_of(1000))
        lanes = session._text.cache.lanes
        assert lanes is not None
        notes = sum(x.nbytes for x in (lanes.notes.position, lanes.notes.weight, lanes.notes.mass) if x is not None)
        assert llm.pool.owned_bytes == lanes.owned * llm.layout.page_bytes + notes
        assert np.prod(lanes.notes.position.shape) * llm.layout.note_bytes == notes
