"""Generation: the same text alone or in company, streamed or whole; stops, samples and their bounds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import LLM, DoesNotFit, NumericalError, Sampling, UsageError
from longspan.engine.text import Detokenizer


def ids_of(tokens: int, seed: int = 0) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_a_batch_gives_what_each_prompt_gives_alone(llama: LLM):
    """Five prompts, three places: a finished row's place is taken by the next (continuous admission)."""
    llm = LLM(llama.path, memory="64MB", rows=3, chunk=100)
    prompts = [ids_of(n, seed=n) for n in (5, 150, 64, 333, 20)]
    lengths = (7, 20, 3, 12, 30)
    alone = [llama.generate(p, max_new_tokens=n, ignore_eos=True) for p, n in zip(prompts, lengths, strict=True)]
    for mixed in (llm.generate(prompts, max_new_tokens=30, ignore_eos=True),):
        for one, n, output in zip(alone, lengths, mixed, strict=True):
            assert output.ids[:n] == one.ids
            assert len(output.ids) == 30
            assert output.finish_reason == "length"
    assert llm.pool.free == llm.pool.total


def test_greedy_equals_the_argmax_of_logits(llama: LLM):
    ids = ids_of(100)
    output = llama.generate(ids, max_new_tokens=5, ignore_eos=True, logprobs=3)
    logits = llama.logits([*ids, *output.ids])
    assert list(output.ids) == logits[99:-1].argmax(-1).tolist()
    expected = torch.log_softmax(logits[99:-1], -1)
    for place, entry in enumerate(output.logprobs):
        assert entry.id == output.ids[place]
        assert entry.logprob == pytest.approx(float(expected[place, entry.id]), abs=1e-4)
        assert [i for i, _ in entry.top] == expected[place].topk(3).indices.tolist()
        assert entry.top[0][1] >= entry.top[1][1] >= entry.top[2][1]


def test_the_end_token_ends_the_text(llama: LLM):
    ids = ids_of(30)
    free = llama.generate(ids, max_new_tokens=20, ignore_eos=True)
    end = free.ids[4]
    request = llama._open(ids, Sampling(max_new_tokens=20))
    request.eos = frozenset([end])
    for _ in llama.drive([request]):
        pass
    stop = free.ids.index(end)
    assert request.reason == "stop"
    assert tuple(request.generated) == free.ids[: stop + 1]


def test_max_new_tokens_zero_reads_and_says_nothing(llama: LLM):
    output = llama.generate(ids_of(70), max_new_tokens=0)
    assert (output.text, output.ids, output.finish_reason, output.tokens_in) == ("", (), "length", 70)
    assert output.prefill_seconds > 0
    assert output.decode_ms_per_token is None


def test_a_seed_repeats_and_seeds_differ(llama: LLM):
    ids = ids_of(40)

    def draw(seed: int) -> tuple[int, ...]:
        return llama.generate(ids, max_new_tokens=24, temperature=1.0, seed=seed, ignore_eos=True).ids

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    batch = llama.generate([ids, ids_of(90)], max_new_tokens=24, temperature=1.0, seed=7, ignore_eos=True)
    assert batch[0].ids == draw(7), "company does not change a seeded draw"


def test_narrow_sampling_is_greedy(llama: LLM):
    ids = ids_of(40)
    greedy = llama.generate(ids, max_new_tokens=12, ignore_eos=True).ids
    for option in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        assert llama.generate(ids, max_new_tokens=12, temperature=1.0, ignore_eos=True, **option).ids == greedy


def test_the_repetition_penalty_sees_prompt_and_answer(llama: LLM):
    ids = ids_of(40)
    plain = llama.generate(ids, max_new_tokens=30, ignore_eos=True).ids
    punished = llama.generate(ids, max_new_tokens=30, repetition_penalty=50.0, ignore_eos=True).ids
    assert len(set(punished)) > len(set(plain)) or len(set(plain)) == 30
    assert not set(punished[:10]) & set(ids)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": -1}, {"max_new_tokens": True}, {"max_new_tokens": 1.5},
        {"temperature": -1}, {"temperature": math.nan}, {"temperature": math.inf},
        {"top_p": 2}, {"top_p": 0}, {"top_k": -1}, {"min_p": 1.5}, {"repetition_penalty": 0},
        {"seed": 2**70}, {"seed": -1}, {"stop": ("",)}, {"logprobs": -1}, {"warmth": 1},
    ],
    ids=str,
)  # fmt: skip
def test_senseless_options_are_refused(options: dict, llama: LLM):
    with pytest.raises(UsageError) as caught:
        llama.generate(ids_of(5), **options)
    assert caught.value.exit_code == 2
    assert next(iter(options)) in str(caught.value)


def test_a_huge_max_new_tokens_ends_at_the_memory_limit(llama: LLM):
    llm = LLM(llama.path, memory=llama.layout.bytes(256))
    output = llm.generate(ids_of(100), max_new_tokens=10**9, ignore_eos=True)
    assert output.finish_reason == "memory"
    assert output.tokens_in + output.tokens_out == 256 + 1  # the last id is drawn and never stored
    assert llm.pool.free == llm.pool.total


def test_a_prompt_beyond_the_limit_is_refused_with_both_numbers(llama: LLM):
    llm = LLM(llama.path, memory=llama.layout.bytes(256))
    with pytest.raises(DoesNotFit, match=r"300 tokens need .* holds 256 tokens") as caught:
        llm.generate(ids_of(300))
    assert caught.value.exit_code == 3
    with pytest.raises(DoesNotFit, match="256 tokens"):
        llm.session().feed(ids_of(300))
    assert llm.generate(ids_of(200), max_new_tokens=2, ignore_eos=True).tokens_out == 2


@pytest.mark.parametrize("prompt", ["", [], [256], [-1], [[]]], ids=str)
def test_empty_and_foreign_prompts_are_refused(prompt, llama: LLM):
    with pytest.raises(UsageError):
        llama.generate(prompt)


def test_a_checkpoint_without_tokenizer_serves_ids(tmp_path: Path):
    checkpoints.make("llama", tmp_path)
    llm = LLM(tmp_path, memory="64MB")
    output = llm.generate([5, 6, 7], max_new_tokens=4, ignore_eos=True)
    assert len(output.ids) == 4
    assert output.text == ""
    assert llm.logits([5, 6, 7]).shape == (3, checkpoints.VOCAB)
    for call in (lambda: llm.generate("text"), lambda: llm.generate([5], stop=("x",))):
        with pytest.raises(UsageError, match="no tokenizer"):
            call()


def test_nan_in_a_layer_is_an_error_that_names_it(folder: Callable[..., Path]):
    llm = LLM(folder("llama"), memory="64MB")
    good = llm.generate(ids_of(20), max_new_tokens=3, ignore_eos=True)
    weight = llm.scheduler.forward.model.model.layers[1].mlp.down_proj.weight.data
    kept = weight.clone()
    weight[2] = torch.nan
    for call in (lambda: llm.generate(ids_of(20), max_new_tokens=3), lambda: llm.logits(ids_of(20))):
        with pytest.raises(NumericalError, match="layer 1 gave NaN"):
            call()
    weight.copy_(kept)
    assert llm.pool.free == llm.pool.total
    assert llm.generate(ids_of(20), max_new_tokens=3, ignore_eos=True).ids == good.ids


@pytest.mark.parametrize("kth", [1, 2, 3, 0, *range(-1, -8, -1)])
def test_the_kth_refused_allocation_is_one_clear_error(kth: int, folder: Callable[..., Path], monkeypatch):
    """From the pool's slab to the buffers of a step: an error of our own, all pages free, and the engine goes on.

    kth: of those that opening the model makes, 0 the last of them; below 0 those after it."""
    calls, last = 0, -1
    real = torch.empty

    def refuse(*args, **kwargs):
        nonlocal calls
        calls += sys._getframe(1).f_globals["__name__"].startswith("longspan.")
        if calls == last:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return real(*args, **kwargs)

    path, ids = folder("llama"), ids_of(90)
    expected = LLM(path, memory="64MB").generate(ids, max_new_tokens=2, ignore_eos=True).ids
    llm = None
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", refuse)
        LLM(path, memory="64MB")
        last, calls = kth if kth > 0 else calls - kth, 0
        with pytest.raises(DoesNotFit, match="memory"):  # noqa: PT012 - either may be the one refused
            llm = LLM(path, memory="64MB")
            llm.generate(ids, max_new_tokens=2, ignore_eos=True)
    assert (llm is None) == (kth >= 0)
    if llm is not None:
        assert llm.pool.free == llm.pool.total
        assert llm.generate(ids, max_new_tokens=2, ignore_eos=True).ids == expected


# sessions


def test_a_session_keeps_its_cache_between_turns(llama: LLM):
    ids = ids_of(400)
    with llama.session() as session:
        fed = session.feed(ids[:300])
        assert (fed.tokens_in, fed.tokens_cached) == (300, 0)
        first = session.ask(ids[300:350], max_new_tokens=5, ignore_eos=True)
        assert (first.tokens_in, first.tokens_cached) == (350, 300)
        second = session.ask(ids[350:], max_new_tokens=5, ignore_eos=True)
        assert second.tokens_cached == 354  # all but the newest id
    whole = llama.generate([*ids[:350], *first.ids, *ids[350:]], max_new_tokens=5, ignore_eos=True)
    assert second.ids == whole.ids
    assert llama.pool.free == llama.pool.total
    with pytest.raises(UsageError, match="closed"):
        session.feed(ids)


def test_forks_share_the_text_and_do_not_see_each_other(llama: LLM):
    ids = ids_of(330)
    with llama.session() as session:
        session.feed(ids[:300])
        owned = llama.pool.owned
        forks = [session.fork() for _ in range(3)]
        assert llama.pool.owned == owned + 3 * 3 * 2  # a last page per lane each, not the text again
        answers = [
            f.ask(ids[300 + 10 * i : 310 + 10 * i], max_new_tokens=6, ignore_eos=True) for i, f in enumerate(forks)
        ]
        for f in forks:
            f.close()
    for i, answer in enumerate(answers):
        alone = llama.generate(ids[:300] + ids[300 + 10 * i : 310 + 10 * i], max_new_tokens=6, ignore_eos=True)
        assert answer.ids == alone.ids
        assert answer.tokens_cached == 300
    assert llama.pool.free == llama.pool.total


def test_a_session_gives_way_and_reads_again(llama: LLM):
    """Its cache is given up to other work at the memory limit; the next answer is the same."""
    llm = LLM(llama.path, memory=llama.layout.bytes(512))
    ids = ids_of(300)
    with llm.session() as session:
        session.feed(ids)
        llm.generate(ids_of(400, seed=1), max_new_tokens=4, ignore_eos=True)
        answer = session.ask([9, 10], max_new_tokens=4, ignore_eos=True)
        assert answer.tokens_cached == 0
        assert llm.logits(ids_of(500)).shape[0] == 500, "it gives way to logits, too"
    assert answer.ids == llama.generate([*ids, 9, 10], max_new_tokens=4, ignore_eos=True).ids


def test_an_abandoned_stream_frees_its_pages(llama: LLM):
    stream = llama.stream(ids_of(100), max_new_tokens=1000, ignore_eos=True)
    next(stream)
    stream.close()
    assert llama.pool.free == llama.pool.total


def test_progress_reaches_the_end(llama: LLM):
    llm = LLM(llama.path, memory="64MB", chunk=64)
    seen: list[tuple[int, int]] = []
    llm.generate(ids_of(200), max_new_tokens=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 200), (128, 200), (192, 200), (200, 200)]


# text


class Bytes:
    """A fake tokenizer: ids are bytes."""

    def decode(self, ids: list[int], **_: object) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_streamed_text_is_whole_characters_and_adds_up(text: str):
    words = Detokenizer(Bytes())  # type: ignore[arg-type]
    pieces = [words.push(b) for b in text.encode()]
    pieces.append(words.finish())
    assert "".join(pieces) == text.encode().decode("utf-8", errors="replace") == words.text
    if "\ufffd" not in text:
        assert not any("\ufffd" in p for p in pieces)


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc", max_size=30), stop=st.text("abc", min_size=1, max_size=4))
def test_nothing_of_a_stop_string_ever_leaves(text: str, stop: str):
    words = Detokenizer(Bytes(), (stop,))  # type: ignore[arg-type]
    out = ""
    for b in text.encode():
        out += words.push(b)
        assert text.startswith(out)
        if words.stopped:
            break
    out += words.finish()
    assert out == (text[: text.find(stop)] if stop in text else text)


def test_stop_strings_end_the_text_before_them(llama: LLM):
    free = llama.generate(ids_of(64, seed=3), max_new_tokens=40, ignore_eos=True)
    ascii_part = "".join(c for c in free.text if c.isascii() and c.isprintable())
    if not ascii_part:
        pytest.fail("the tiny model gave no printable character to stop at; choose another seed")
    stop = ascii_part[len(ascii_part) // 2]
    output = llama.generate(ids_of(64, seed=3), max_new_tokens=40, ignore_eos=True, stop=(stop,))
    assert output.finish_reason == "stop"
    assert output.text == free.text[: free.text.find(stop)]
    assert "".join(llama.stream(ids_of(64, seed=3), max_new_tokens=40, ignore_eos=True, stop=stop)) == output.text
