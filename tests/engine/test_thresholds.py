"""Angles that depend on the length: chosen from the tokens present, one kind in a cache, no trace left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import LLM
from longspan.attention.step import Segment
from longspan.engine.ropes import Ropes
from longspan.engine.schedule import Text
from longspan.rope import Angles, Geometry
from longspan.rope.default import Default

ORIGINAL = 64
DECLARED = {
    "dynamic": ({"rope_type": "dynamic", "factor": 2.0}, ORIGINAL),
    "longrope": (
        {
            "rope_type": "longrope",
            "short_factor": [1 + 0.1 * i for i in range(8)],
            "long_factor": [1.0 + i for i in range(8)],
            "original_max_position_embeddings": ORIGINAL,
        },
        ORIGINAL * 8,
    ),
}


def ids_of(tokens: int) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(5)).tolist()


@pytest.fixture(params=["dynamic", "longrope", "added yarn", "added yarn, fixed", "auto"])
def llm(request: pytest.FixtureRequest, folder: Callable[..., Path]) -> LLM:
    if request.param in DECLARED:
        rope, positions = DECLARED[request.param]
        return LLM(folder("llama", rope=rope, max_position_embeddings=positions), memory="64MB")
    choice = {"added yarn": "yarn", "added yarn, fixed": "yarn:factor=8", "auto": "auto"}[request.param]
    return LLM(folder("llama", max_position_embeddings=ORIGINAL), memory="64MB", rope=choice)


def one_shot(llm: LLM, ids: list[int], angles: dict[str, Angles]) -> torch.Tensor:
    """The last logits of a forward pass over all ids at once, with given angles."""
    text = Text(ids, llm.pool)
    text.cache.grow(len(ids))
    logits = llm.scheduler.forward([Segment(text.cache, len(ids), angles)], ids, [len(ids) - 1])[0]
    text.cache.clear()
    return logits


def test_decoding_across_each_threshold_equals_one_shot(llm: LLM):
    """Id by id from below the original length to three times it: at each length the logits are those of a one-shot
    forward with the angles in force (transformers#25104 kept keys of old angles)."""
    ids = ids_of(3 * ORIGINAL)
    text = Text(ids[: ORIGINAL - 8], llm.pool)
    llm.scheduler.submit(text)
    restarts = []
    for token in ids[ORIGINAL - 8 :]:
        ready = llm.scheduler.step()
        while not ready:
            ready = llm.scheduler.step()
        ((_, logits),) = ready
        expected = one_shot(llm, text.ids, dict(text.angles))
        assert (logits - expected).abs().max() <= 1e-4, len(text.ids)
        restarts.append(text.restarts)
        text.ids.append(token)
    llm.scheduler.drop(text)
    assert 1 <= text.restarts <= 10, "a threshold was crossed, and not at every token"
    assert restarts[8] == 0, "within the original length nothing changes"


def test_one_kind_of_angles_per_length_and_path(llm: LLM):
    """A text that arrives whole has the angles of its length, whatever was read before it: long → short → long."""
    long, short = ids_of(4 * ORIGINAL), ids_of(ORIGINAL // 2)
    first_long, first_short = llm.logits(long), llm.logits(short)
    assert torch.equal(llm.logits(long), first_long)
    assert torch.equal(llm.logits(short), first_short)
    before = llm.generate(short, max_new_tokens=8, ignore_eos=True)
    llm.generate(long, max_new_tokens=8, ignore_eos=True)
    assert llm.generate(short, max_new_tokens=8, ignore_eos=True).ids == before.ids
    # both at once: transformers takes the longest of the batch for all
    together = llm.generate([short, long, short], max_new_tokens=8, ignore_eos=True)
    assert together[0].ids == together[2].ids == before.ids


def test_a_short_prompt_with_a_large_max_new_tokens_keeps_the_short_angles(llm: LLM):
    """The budget to generate is not a token present (llama.cpp#24823)."""
    prompt = ids_of(10)
    request = llm._open(prompt, llm.sampling(None, {"max_new_tokens": 100_000, "ignore_eos": True}))
    stream = llm.drive([request])
    for _ in range(5):
        next(stream)
    assert request.text.angles == llm.ropes.angles(len(prompt))
    assert request.text.restarts == 0
    stream.close()
    assert llm.pool.free == llm.pool.total


def test_a_session_crosses_the_threshold_too(llm: LLM):
    ids = ids_of(4 * ORIGINAL)
    with llm.session() as session:
        session.feed(ids[:50])
        session.feed(ids[50:200])
        answer = session.ask(ids[200:], max_new_tokens=8, ignore_eos=True)
        reached = one_shot(llm, ids, dict(session._text.angles))
    assert answer.tokens_in == len(ids)
    assert answer.ids[0] == int(reached.argmax())


def test_a_question_that_is_given_along_does_not_make_the_text_be_read_again(llm: LLM):
    """Text and question cross a threshold together; each fork would start over if the text had settled alone."""
    ids = ids_of(ORIGINAL + 10)
    with llm.session() as session:
        session.feed(ids[: ORIGINAL - 5], ahead=15)
        for _ in range(2):
            with session.fork() as fork:
                answer = fork.ask(ids[ORIGINAL - 5 :], max_new_tokens=1, ignore_eos=True)
                assert answer.tokens_cached == ORIGINAL - 5
                assert fork._text.restarts == 0
                assert fork._text.cache.length == len(ids)
    assert answer.ids == llm.generate(ids, max_new_tokens=1, ignore_eos=True).ids


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=30).map(sorted))
def test_angles_always_cover_the_tokens_present(lengths: list[int]):
    for choice in ("auto", "yarn", "linear", "ntk", "ntk_by_parts", "dynamic:factor=2", "yarn:factor=4"):
        ropes = Ropes({"all": (Default(), Geometry(16, 1e4, ORIGINAL, ORIGINAL))}, ["all"], choice)
        for tokens in lengths:
            angles = ropes.angles(tokens)["all"]
            assert angles.until >= tokens
            assert (angles.inv_freq == Default().angles(Geometry(16, 1e4, 64, 64), 1).inv_freq) == (tokens <= ORIGINAL)
