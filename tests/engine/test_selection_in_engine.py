"""Page selection through whole models: all pages are exact attention, few pages the same in any chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
from longer import longer

from longspan import LLM
from longspan.attention import held
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


@pytest.mark.parametrize(
    ("name", "place", "format"),
    longer(
        itertools.product(FEW, PLACES, ["dense", "int4"]),
        lambda name, place, format: (place == "text") == (format == "dense") and not place.endswith("order=true"),
    ),
)
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
    """In a session the question's tokens choose, and its answer reads what the last found; the text's do not."""
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
        assert set(chose) == set(range(600, 620))
        chose.clear()
        session.feed(ids_of(100, 6))
        assert set(chose) <= {624}  # the last id of the answer, which is read only now
        with session.fork() as twin:
            twin.ask(ids_of(10, 7), max_new_tokens=2, ignore_eos=True)
        assert max(chose) == 734
    chose.clear()
    llm.generate(ids_of(600), max_new_tokens=3, ignore_eos=True)
    assert set(chose) == set(range(600 - 128, 600))


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


def columns_read(monkeypatch) -> list[tuple[int, set[int]]]:
    """Of every read from now on: the position of its last query, and the columns of all its lanes."""
    read: list[tuple[int, set[int]]] = []
    many, each, few, told = Reader._read, Reader._read_each, Reader._work, held._columns

    def together(self, asked, columns):
        read.append((int(asked.rows[-1]), set(columns.flatten().tolist())))
        return many(self, asked, columns)

    def by_kernels(self, asked, columns):
        read.append((int(asked.rows[-1]), set(columns.tolist())))
        return few(self, asked, columns)

    def alone(self, part, chosen):
        read.append((int(part.asked.rows[-1]), set(chosen.flatten().tolist()) - {-1} | set(part.always.tolist())))
        return each(self, part, chosen)

    def for_all_layers(step, segment, rows, number):
        columns = told(step, segment, rows, number)
        if columns is not None:
            read.append((int(rows[-1]), set(columns.tolist())))
        return columns

    monkeypatch.setattr(held, "_columns", for_all_layers)
    monkeypatch.setattr(Reader, "_read", together)
    monkeypatch.setattr(Reader, "_read_each", alone)
    monkeypatch.setattr(Reader, "_work", by_kernels)
    return read


def test_an_answer_reads_what_its_question_found(folder: Callable[..., Path], monkeypatch):
    """In all layers and lanes the same pages, each with the one after it; a new look every 8 tokens of the answer."""
    llm = opened(folder, "sketch:pages=4,near=64,hold=8", "far:near=64")
    read = columns_read(monkeypatch)
    with llm.session() as session:
        session.feed(ids_of(1200))
        session.ask(ids_of(30, 5), max_new_tokens=20, ignore_eos=True)
        read.clear()
        session.ask(ids_of(9, 6), max_new_tokens=20, ignore_eos=True)
    end = 1200 + 30 + 20 + 9
    at = {row: [columns for place, columns in read if place == row] for row in range(end, end + 19)}
    looking = {end + 7, end + 15}
    summed = 1024 // 64 - 1  # what has no summary yet is read in any case

    def far(columns: set[int]) -> set[int]:
        return {column for column in columns if 0 < column < summed}

    for row, columns in at.items():
        if row not in looking:
            assert all(one == columns[0] for one in columns), row
            pages = far(columns[0])
            assert 1 <= len(pages) <= 4
            assert all({page - 1, page + 1} & columns[0] for page in pages)  # those found, and what follows them
    assert any(one != at[end + 7][0] for one in at[end + 7])  # the looking ones choose lane by lane
    assert [far(at[row][0]) for row in (end, end + 6)] == [far(at[end][0])] * 2
    assert far(at[end + 8][0]) == far(at[end + 14][0])


def test_an_answer_is_the_same_when_its_text_is_read_again(folder: Callable[..., Path]):
    """All in one go, or with the cache lost in the middle of the answer."""
    ids = ids_of(900)
    llm = opened(folder, "sketch:pages=2,near=64,hold=8", "far:near=64")
    with llm.session() as session:
        session.feed(ids)
        whole = session.ask(ids_of(9, 6), max_new_tokens=30, ignore_eos=True).ids
    with llm.session() as session:
        session.feed(ids)
        said: list[int] = []
        pieces = session.stream(ids_of(9, 6), max_new_tokens=30, ignore_eos=True)
        for number, _ in enumerate(pieces):
            if number == 12:
                session._text.cache.clear()
        said = session.ids[909:]
    assert tuple(said[:29]) == tuple(whole[:29])


@pytest.mark.parametrize("evict", ["none", "h2o:budget=512"])
@pytest.mark.parametrize("format", ["dense", "int4"])
def test_what_a_text_owns_counts_whole(format: str, evict: str, folder: Callable[..., Path]):
    """Summaries and notes too: whoever admits its twins takes the rest for room that they still need."""
    llm = opened(folder, "sketch:pages=1,near=64", format=format, evict=evict)
    with llm.session() as session:
        for tokens in (100, 700, 2000):
            session.feed(ids_of(tokens))
            assert session._text.cache.owned_bytes == llm.pool.owned_bytes > 0
        with session.fork() as twin:
            assert twin._text.cache.owned_bytes == session._text.cache.owned_bytes
