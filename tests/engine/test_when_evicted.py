"""When eviction decides: as a text comes, once at its end, or after a question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_eviction_in_engine import BUDGET, ids_of, opened

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.cache.lanes import Lanes
from longspan.errors import UsageError
from longspan.evals.needles import Needles

WAITING = [name for name in POLICIES if name not in ("sliding_window", "streaming")]


@pytest.mark.parametrize("format", ["dense", "int8"])
@pytest.mark.parametrize("name", WAITING)
def test_with_wait_a_question_is_read_before_anything_goes(name: str, format: str, folder: Callable[..., Path]):
    """Everything stays while a text is read, so the question's own answer begins as with the whole cache; then the
    budget holds, also when another text follows."""
    ids, question, merge = ids_of(600), ids_of(20, 5), ",merge=false" if format != "dense" else ""
    path = folder("llama")
    llm = LLM(path, memory="64MB", dtype="float32", format=format, evict=f"{name}:budget={BUDGET},wait=true{merge}")
    exact = LLM(path, memory="64MB", dtype="float32").generate(ids + question, max_new_tokens=1, logprobs=20)
    with llm.session() as session:
        session.feed(ids)
        lanes = session._text.cache.lanes
        assert lanes is not None
        assert (lanes.counts == 600).all()
        whole = llm.pool.owned_bytes
        said = session.ask(question, max_new_tokens=1, logprobs=20, ignore_eos=True)
        for mine, theirs in zip(said.logprobs[0].top, exact.logprobs[0].top, strict=True):
            assert mine[0] == theirs[0]
            assert mine[1] == pytest.approx(theirs[1], abs=1e-4)
        held = (lanes.notes.position >= 0).sum(-1)
        assert held.sum() <= 3 * 2 * BUDGET
        assert llm.pool.owned_bytes < whole / 2
        session.feed(ids_of(700, 6))
        assert (lanes.notes.position >= 0).sum() <= 3 * 2 * BUDGET
    assert llm.pool.peak_bytes <= llm.layout.bytes(1400)
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("name", ["snapkv", "adakv", "h2o", "tova"])
def test_with_wait_any_chunks_and_any_company_give_the_same(name: str, folder: Callable[..., Path]):
    prompts = [ids_of(500), ids_of(333, 3), ids_of(64, 4)]
    options = {"memory": "64MB", "dtype": "float32", "evict": f"{name}:budget={BUDGET},wait=true"}
    llm, other = (LLM(folder("llama"), **options, chunk=chunk) for chunk in (1024, 23))
    together = [one.ids for one in llm.generate(prompts, max_new_tokens=70, ignore_eos=True)]
    assert together == [other.generate(prompt, max_new_tokens=70, ignore_eos=True).ids for prompt in prompts]
    assert other.pool.owned_bytes == 0


def test_what_a_question_looks_at_stays_only_where_it_was_waited_for():
    """The embedded model, 20 facts in 1,000 tokens of which a lane keeps a quarter."""
    needles = Needles(length=1000, samples=20, depths=20, inside=0, seed=2)

    def right(wait: str) -> int:
        llm = LLM(memory="64MB", evict=f"snapkv:budget=256,wait={wait}")
        return sum(one.right for one in needles.long(llm, needles.text(llm))[0])

    assert right("true") >= 14
    assert right("false") <= 6


@pytest.mark.parametrize("format", ["dense", "int8"])
@pytest.mark.parametrize("name", WAITING)
def test_with_once_a_text_is_cut_at_its_end_and_what_follows_comes_on_top(
    name: str, format: str, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    merge = ",merge=false" if format != "dense" else ""
    evict = f"{name}:budget={BUDGET},once=true{merge}"
    llm = LLM(folder("llama"), memory="64MB", dtype="float32", format=format, evict=evict)
    cuts: list[int] = []
    decide = Lanes.evict

    def noted(lanes: Lanes, following: int) -> None:
        cuts.append(following)
        decide(lanes, following)

    monkeypatch.setattr(Lanes, "evict", noted)
    with llm.session() as session:
        session.feed(ids_of(700))
        assert cuts == [700]
        lanes = session._text.cache.lanes
        assert lanes is not None
        held = (lanes.notes.position >= 0).sum(2)
        assert int(held.sum()) <= lanes.counts.size * BUDGET
        columns = int(lanes.columns(lanes.counts).max())  # no room is left that the whole text had
        assert (lanes.table.shape[2], lanes.notes.position.shape[2]) == (columns, columns * llm.layout.page)
        session.ask(ids_of(300, 5), max_new_tokens=20, ignore_eos=True)
        assert cuts == [700]  # also where an interval ends
        lanes = session._text.cache.lanes
        assert torch.equal((lanes.notes.position >= 0).sum(2), held + 300 + 19)
        session.feed(ids_of(100, 6))
        assert cuts == [700, 700 + 300 + 20 + 100]
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("name", ["keydiff", "h2o", "snapkv"])
def test_once_keeps_what_a_text_that_was_read_whole_would(name: str, folder: Callable[..., Path]):
    """As waiting for a question does, when the text is one prompt."""
    kept = []
    for how in ("once", "wait"):
        llm = opened(folder, f"{name}:budget={BUDGET},{how}=true")
        with llm.session() as session:
            if how == "once":
                session.feed(ids_of(500))
            else:
                session.ask(ids_of(500), max_new_tokens=1, ignore_eos=True)
            lanes = session._text.cache.lanes
            assert lanes is not None
            kept.append([set(row[row >= 0].tolist()) for row in lanes.notes.position.flatten(0, 1)])
    assert kept[0] == kept[1]


def test_once_and_any_chunks_or_a_saved_text_give_the_same(folder: Callable[..., Path], tmp_path: Path):
    said = []
    for chunk in (2048, 100, 7):
        llm = LLM(folder("llama"), memory="64MB", dtype="float32", evict=f"h2o:budget={BUDGET},once=true", chunk=chunk)
        with llm.session() as session:
            session.feed(ids_of(500))
            session.save(tmp_path / "kept.kv")
            with session.fork() as twin:
                said.append(twin.ask(ids_of(290, 5), max_new_tokens=20, ignore_eos=True).ids)
            said.append(session.ask(ids_of(290, 5), max_new_tokens=20, ignore_eos=True).ids)
        with llm.resume(tmp_path / "kept.kv") as resumed:
            said.append(resumed.ask(ids_of(290, 5), max_new_tokens=20, ignore_eos=True).ids)
    assert said == [said[0]] * 9


def test_a_prompt_that_is_answered_at_once_is_cut_when_it_was_read(folder: Callable[..., Path]):
    once, wait = (opened(folder, f"keydiff:budget={BUDGET},{how}=true") for how in ("once", "wait"))
    wish = {"max_new_tokens": 20, "ignore_eos": True}
    assert once.generate(ids_of(600), **wish).ids == wait.generate(ids_of(600), **wish).ids


@pytest.mark.parametrize("how", ["once", "wait"])
def test_logits_while_a_text_is_read_are_not_told_for_what_comes_after(how: str, folder: Callable[..., Path]):
    llm = opened(folder, f"h2o:budget={BUDGET},{how}=true")
    with pytest.raises(UsageError, match=f"{how}=true evicts nothing before a text ends"):
        llm.logits(ids_of(20))
    with pytest.raises(UsageError, match=f"{how}=true evicts nothing before a text ends"):
        llm.losses(ids_of(20))


@pytest.mark.parametrize("evict", ["keydiff:once=true,wait=true", "streaming:once=true", "sliding_window:once=true"])
def test_once_and_what_contradicts_it_are_refused(evict: str, folder: Callable[..., Path]):
    with pytest.raises(UsageError, match="once=true cuts after a text"):
        opened(folder, evict)


@pytest.mark.parametrize("name", ["sliding_window", "streaming"])
def test_windows_wait_for_nothing(name: str, folder: Callable[..., Path]):
    with pytest.raises(UsageError, match="wait=true: the newest tokens stay whatever is asked"):
        opened(folder, f"{name}:wait=true")
