"""Page selection through whole models: all pages are exact attention, few pages the same in any chunks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch

from longspan import LLM
from longspan.attention.select import Reader
from longspan.cache.summaries import SELECTIONS
from longspan.engine.sample import Sampling
from longspan.engine.session import together
from longspan.errors import UsageError

FEW = [name for name in SELECTIONS if name != "all"]
PLACES = ["text", "far:near=128", "far:near=128,order=true"]


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def opened(folder: Callable[..., Path], select: str, place: str = "text", **options: object) -> LLM:
    shape = options.pop("shape", {})
    return LLM(folder("llama", **shape), memory="64MB", dtype="float32", select=select, place=place, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("place", ["text", "far:near=128,order=true"])
def test_all_pages_are_exact_attention(name: str, place: str, folder: Callable[..., Path]):
    """With order, far pages that are all selected stand where they do in the text."""
    ids = ids_of(700)
    exact = opened(folder, "all").logits(ids)
    whole = opened(folder, f"{name}:pages=20,near=128,reading=token", place)
    assert (whole.logits(ids) - exact).abs().max() <= 1e-5
    few = opened(folder, f"{name}:pages=1,near=128,reading=token", place)
    assert (few.logits(ids) - exact).abs().max() > 0.1


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("format", ["dense", "int4"])
def test_any_chunks_and_any_company_give_the_same(name: str, place: str, format: str, folder: Callable[..., Path]):
    llm = opened(folder, f"{name}:pages=2,near=100", place, format=format)
    prompts = [ids_of(900), ids_of(300, 3), ids_of(64, 4)]
    together = llm.generate(prompts, max_new_tokens=30, ignore_eos=True)
    for chunk in (50, 4096):
        other = opened(folder, f"{name}:pages=2,near=100", place, format=format, chunk=chunk)
        alone = [other.generate(prompt, max_new_tokens=30, ignore_eos=True).ids for prompt in prompts]
        assert [one.ids for one in together] == alone
    assert llm.pool.peak_bytes <= sum(llm.layout.bytes(len(prompt) + 30, chunk=1024) for prompt in prompts)
    assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("name", FEW)
def test_text_that_is_read_sees_a_window_and_questions_choose(name: str, folder: Callable[..., Path], monkeypatch):
    """Asking in a session: the question's tokens choose, and so do those of the answer; the text's do not."""
    llm = opened(folder, f"{name}:pages=2,near=100", "far:near=128")
    chose: list[int] = []
    real = Reader.scores

    def scores(self, asked, old):
        chose.extend(asked.rows.tolist())
        return real(self, asked, old)

    monkeypatch.setattr(Reader, "scores", scores)
    with llm.session() as session:
        session.feed(ids_of(600))
        assert chose == []
        session.ask(ids_of(20, 5), max_new_tokens=5, ignore_eos=True)
        assert set(chose) == set(range(600, 624))
        chose.clear()
        session.feed(ids_of(100, 6))
        assert set(chose) <= {624}  # the last id of the answer, which is read only now
        with session.fork() as twin:
            twin.ask(ids_of(10, 7), max_new_tokens=2, ignore_eos=True)
        assert max(chose) == 735
    chose.clear()
    llm.generate(ids_of(600), max_new_tokens=3, ignore_eos=True)
    assert set(chose) == set(range(600 - 128, 602))


@pytest.mark.parametrize("place", ["text", "far:near=128"])
def test_forks_are_scored_together_and_answer_as_alone(place: str, folder: Callable[..., Path], monkeypatch):
    """Twelve questions of different lengths about one text and one about another, in one step and one after another."""
    llm = opened(folder, "sketch:pages=2,near=100", place)
    scored: list[int] = []
    real = Reader.scores
    monkeypatch.setattr(
        Reader, "scores", lambda self, asked, old: scored.append(len(asked.rows)) or real(self, asked, old)
    )
    with llm.session() as session, llm.session() as other:
        session.feed(ids_of(900))
        other.feed(ids_of(900, 11))
        asked = [ids_of(5 + 7 * n, n + 20) for n in range(12)]
        twins = [session.fork() for _ in asked] + [other.fork()]
        found = together(twins, [*asked, asked[0]], Sampling(max_new_tokens=4, ignore_eos=True))
        assert max(scored) > 12
        for one in twins:
            one.close()
        scored.clear()
        for source, text, output in zip([session] * 12 + [other], [*asked, asked[0]], found, strict=True):
            with source.fork() as twin:
                assert twin.ask(text, max_new_tokens=4, ignore_eos=True).ids == output.ids
    assert llm.pool.budget.owned == 0


def test_a_page_that_nobody_chose_changes_nothing(folder: Callable[..., Path], monkeypatch):
    """One layer: another token in a page that no query reads, and that stays unread, moves no logit."""
    llm = opened(folder, "sketch:pages=2,near=64,reading=token", shape={"num_hidden_layers": 1})
    ids = ids_of(1000)
    read: list[set[int]] = []
    real = Reader._positions

    def positions(self, columns):
        read.append(set(columns.flatten().tolist()))
        return real(self, columns)

    monkeypatch.setattr(Reader, "_positions", positions)
    with llm.session() as session:
        session.feed(ids[:-1])
        read.clear()
        before = session.fork().ask(ids[-1:], max_new_tokens=1, logprobs=20).logprobs
    chosen = set.union(*read)
    unread = sorted(set(range(13)) - chosen)
    assert unread
    page = unread[len(unread) // 2]
    other = list(ids)
    other[page * 64 + 5] = (other[page * 64 + 5] + 7) % checkpoints.VOCAB
    with llm.session() as session:
        session.feed(other[:-1])
        read.clear()
        after = session.fork().ask(ids[-1:], max_new_tokens=1, logprobs=20).logprobs
    assert set.union(*read) == chosen
    assert after == before


def test_far_pages_need_no_scaling_however_long_the_text(folder: Callable[..., Path]):
    llm = opened(folder, "sketch:pages=4,near=256", "far:near=256")
    with llm.session() as session:
        session.feed(ids_of(6000))  # trained at 4,096
        assert session.rope == "default"
    assert opened(folder, "sketch:pages=4,near=256").ropes.used(6000).startswith("yarn")
    assert llm.reach(10_000_000) < 1024


def test_what_has_no_meaning_is_refused(folder: Callable[..., Path]):
    for select, place, said in (
        ("sketch:pages=0", "text", "reads no page"),
        ("quest:near=0", "text", "near=0"),
        ("sketch:reading=never", "text", "give window or token"),
        ("quest", "slot", "far:order=true"),
        ("best", "text", "known: all, landmark"),
    ):
        with pytest.raises(UsageError, match=said):
            opened(folder, select, place)
