"""Reading sparsely: what blocks of rows choose, and that it means what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch

from longspan import LLM, spec
from longspan.attention.prefill import PREFILLS
from longspan.attention.prefill.sparse import Sparse
from longspan.engine.plan import Plan
from longspan.errors import UsageError
from longspan.kernels import BACKENDS, Work, WrittenRun, cpu, page_shares, shares

PAGE, DIM, KV_HEADS, GROUPS = 16, 32, 2, 3


def work(rows: int = 128, pages: int = 20, sharp: float = 1.0, begin: int | None = None, seed: int = 0, **more) -> Work:
    """The last rows of a text that fills its pages, rotated. sharp: what scores are multiplied by."""
    r = torch.Generator().manual_seed(seed)
    keys = torch.randn(pages, KV_HEADS, DIM, PAGE, generator=r)
    values = torch.randn(pages, KV_HEADS, PAGE, DIM, generator=r)
    angle = torch.arange(pages - 1, -1, -1)[:, None] * PAGE / 100.0 ** (torch.arange(DIM // 2) * 2 / DIM)
    base = -(pages - 1) * PAGE
    return Work(
        queries=sharp * torch.randn(rows, GROUPS * KV_HEADS, DIM, generator=r) / DIM**0.5,
        first=PAGE - rows,
        base=base,
        begin=base if begin is None else begin,
        runs=[WrittenRun(keys, values)],
        kv_heads=KV_HEADS,
        page=PAGE,
        dtype=torch.float32,
        cos=angle.cos(),
        sin=angle.sin(),
        **more,
    )


def mass(w: Work) -> torch.Tensor:
    """[G, R]: on the pages that each row reads, by every slot's weight, the mean over heads."""
    reads = w.reads()
    assert reads is not None
    return (shares.page_shares(w, 1, 1) * reads).sum(-1)


def all_leave(rows: int, block: int) -> torch.Tensor:
    return torch.ones(rows // block, dtype=torch.bool)


@pytest.mark.parametrize("case", [{}, {"begin": -201}, {"softcap": 3.0}, {"rows": 75, "pages": 9}], ids=str)
def test_shares_are_those_of_the_softmax(case: dict):
    """Against the specification: with values that say which page they are of, attention gives the shares."""
    w = work(**case)
    pages = w.pages
    values = torch.zeros(pages, KV_HEADS, PAGE, DIM)
    values[torch.arange(pages), :, :, torch.arange(pages)] = 1
    told = dataclasses.replace(w, runs=[WrittenRun(next(w.runs[0].blocks())[0], values)])
    each = BACKENDS["reference"](told)[:, :, :pages].unflatten(1, (KV_HEADS, GROUPS)).mean(2)  # [R, G, N]
    whole = w.queries.shape[0] // 32 * 32
    expected = each[3:whole:4].unflatten(0, (-1, 8)).mean(1).transpose(0, 1)
    assert (shares.page_shares(w, 4, 32) - expected).abs().max() <= 1e-5
    for instructions in cpu.levels():
        assert (cpu.page_shares(w, 4, 32, instructions) - expected).abs().max() <= 1e-5


@pytest.mark.skipif("x86-64-v4-bf16" not in cpu.levels(), reason="this processor multiplies no bfloat16 numbers")
def test_shares_of_bfloat16_keys_are_as_exact_as_these():
    w = work(rows=128, pages=40)
    keys, values = next(w.runs[0].blocks())
    narrow = dataclasses.replace(
        w, runs=[WrittenRun(keys.to(torch.bfloat16), values.to(torch.bfloat16))], dtype=torch.bfloat16
    )
    assert (cpu.page_shares(narrow, 4, 32) - shares.page_shares(w, 4, 32)).abs().max() <= 2e-3


@pytest.mark.parametrize("sharp", [1.0, 8.0])
@pytest.mark.parametrize("asked", [0.5, 0.9, 0.99])
def test_an_exact_estimate_keeps_the_mass_that_was_asked_for(sharp: float, asked: float):
    w = work(sharp=sharp)
    method = Sparse(mass=asked, block=32, stride=1, near=1)
    subset = method.choose(w, all_leave(128, 32))
    assert subset is not None
    kept = mass(dataclasses.replace(w, subset=subset)).unflatten(1, (-1, 32)).mean(2)
    assert (kept >= asked - 1e-5).all()
    if sharp == 8.0:
        assert subset.pages.float().mean() < 0.9
    sampled = dataclasses.replace(method, stride=4).choose(w, all_leave(128, 32))
    rough = mass(dataclasses.replace(w, subset=sampled)).mean()
    assert asked - 0.1 <= rough <= 1


@pytest.mark.parametrize("sharp", [2.0, 8.0])
@pytest.mark.parametrize("asked", [0.5, 0.8, 0.95])
def test_an_estimate_from_few_rows_keeps_that_mass_too(sharp: float, asked: float):
    """What the rows that chose say of their own choice is too much: here it would keep 0.34 to 0.95."""
    kept, method = [], Sparse(mass=asked, block=32, stride=4, near=1)
    for seed in range(8):
        w = work(sharp=sharp, pages=40, seed=seed)
        kept.append(mass(dataclasses.replace(w, subset=method.choose(w, all_leave(128, 32)))).mean())
    assert asked - 0.01 <= torch.stack(kept).mean() <= asked + 0.1


def test_no_smaller_choice_keeps_the_mass():
    w = work(sharp=8.0)
    exact = page_shares(w, 1, 32)
    method = Sparse(mass=0.9, block=32, stride=1, near=0)
    chosen = method.keep(exact.unsqueeze(2), w.first - w.base, PAGE)
    for lane in range(KV_HEADS):
        for block in range(4):
            own = (w.first - w.base + 32 * block) // PAGE
            must = [0, *range(own, own + 2)]
            rest = sorted((float(x) for n, x in enumerate(exact[lane, block]) if n not in must), reverse=True)
            least, kept = 0, float(exact[lane, block, must].sum())
            while kept < 0.9:
                kept, least = kept + rest[least], least + 1
            assert int(chosen[lane, block].sum()) == len(must) + least


def test_density_is_the_share_of_pages_that_a_block_sees():
    w = work(pages=40, rows=128)
    subset = Sparse(density=0.5, block=32, stride=4).choose(w, all_leave(128, 32))
    assert subset is not None
    ends = (w.first - w.base + 32 * torch.arange(1, 5)) // PAGE
    assert (subset.pages.sum(2) == torch.ceil(ends / 2)).all()


def test_first_newest_and_own_pages_are_always_read():
    subset = Sparse(mass=1e-9, block=32, stride=4, near=2).choose(work(), all_leave(128, 32))
    assert subset is not None
    for block in range(4):
        own = 12 + 2 * block
        assert subset.pages[0, block].nonzero().flatten().tolist() == [0, own - 2, own - 1, own, own + 1]


def test_blocks_that_leave_nothing_out_read_all():
    leaves = torch.tensor([False, True])
    subset = Sparse(density=0.3, block=32).choose(work(rows=75), leaves)
    assert subset is not None
    assert subset.pages.shape == (KV_HEADS, 3, 20)
    assert subset.pages[:, 0].all()
    assert subset.pages[:, 2].all()
    assert not subset.pages[:, 1].all()
    assert Sparse(block=32).choose(work(rows=75), torch.zeros(2, dtype=torch.bool)) is None


@pytest.mark.parametrize("text", ["dense", "sparse", "sparse:mass=0.9,block=64", "sparse:density=0.25,least=0"])
def test_methods_are_written_as_they_are_read(text: str):
    assert spec.render(spec.parse(text, PREFILLS, "prefill"), PREFILLS) == text
    assert Plan.parse(prefill=text).texts["prefill"] == text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prefill": "spars"}, "known: dense, sparse"),
        ({"prefill": "sparse:mass=0"}, "at most 1"),
        ({"prefill": "sparse:density=1.5"}, "at most 1"),
        ({"prefill": "sparse:block=100"}, "power of two"),
        ({"prefill": "sparse:stride=32,block=16"}, "lower stride"),
        ({"prefill": "sparse:near=-1"}, "not negative"),
        ({"prefill": "dense:mass=0.5"}, "its options: none"),
        ({"prefill": "sparse", "evict": "h2o:budget=1024"}, "--evict already"),
        ({"prefill": "sparse", "select": "sketch:pages=8"}, "--select already"),
    ],
)
def test_what_has_no_meaning_is_refused(given: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        Plan.parse(**given)


# through whole models

SPARSE = "sparse:density=0.4,block=64,stride=4,near=1,least=128"


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def opened(folder: Callable[..., Path], prefill: str, family: str = "llama", **options: object) -> LLM:
    settings = {"memory": "64MB", "dtype": "float32", "page": 16, "prefill": prefill, **options}
    return LLM(folder(family), **settings)  # type: ignore[arg-type]


def test_all_the_mass_is_exact_attention_and_less_is_not(folder: Callable[..., Path]):
    ids = ids_of(700)
    exact = opened(folder, "dense").logits(ids)
    assert (opened(folder, "sparse:mass=1,block=64,least=0").logits(ids) - exact).abs().max() <= 1e-5
    few = opened(folder, SPARSE)
    other = few.logits(ids)
    assert (other[:128] - exact[:128]).abs().max() <= 1e-5
    assert (other - exact).abs().max() > 1e-3
    assert 0.35 < (few.pages.share or 0) < 0.5


def test_short_texts_are_read_densely(folder: Callable[..., Path]):
    llm = opened(folder, "sparse:density=0.4,block=64,least=640")
    ids = ids_of(700)
    assert torch.equal(llm.logits(ids), opened(folder, "dense").logits(ids))  # of 60 rows beyond, none is a whole block
    assert llm.pages.share is None
    llm.logits(ids_of(704))
    assert llm.pages.share is not None


@pytest.mark.parametrize("format", ["dense", "int4"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_any_chunks_and_any_company_give_the_same(format: str, backend: str, folder: Callable[..., Path]):
    options = {"format": format, "backend": backend}
    llm = opened(folder, SPARSE, **options)
    ids = ids_of(700)
    whole = llm.logits(ids)
    for chunk in (64, 100, 300):
        assert (llm.logits(ids, chunk=chunk) - whole).abs().max() <= 1e-4
    prompts = [ids, ids_of(500, 3), ids_of(64, 4)]
    together = llm.generate(prompts, max_new_tokens=70, ignore_eos=True)
    for chunk in (90, 4096):
        other = opened(folder, SPARSE, chunk=chunk, **options)
        alone = [other.generate(prompt, max_new_tokens=70, ignore_eos=True).ids for prompt in prompts]
        assert [one.ids for one in together] == alone


def test_a_text_that_is_read_again_is_the_same(folder: Callable[..., Path]):
    """Turns end inside of blocks, and answers lie in them."""
    llm = opened(folder, SPARSE)
    session = llm.session()
    session.feed(ids_of(330))
    session.feed(ids_of(150, 3))
    first = session.ask(ids_of(90, 4), max_new_tokens=70, ignore_eos=True)
    cache = session._text.cache
    held = [llm.pool.keys[torch.from_numpy(group.live.copy())].clone() for group in cache.groups]
    cache.clear()
    session.ask(ids_of(5, 5), max_new_tokens=1)
    size = held[0].shape[2] - 1  # the last page was not full
    again = llm.pool.keys[torch.from_numpy(cache.groups[0].live.copy())][:, :, :size]
    assert (again - held[0][:, :, :size]).abs().max() <= 1e-4
    assert len(first.ids) == 70


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "phi3"])
@pytest.mark.parametrize("rope", ["auto", "checkpoint"])
def test_other_families_read_sparsely(family: str, rope: str, folder: Callable[..., Path]):
    ids = ids_of(400)
    exact = opened(folder, "dense", family, rope=rope).logits(ids)
    whole = opened(folder, "sparse:mass=1,block=64,least=0", family, rope=rope).logits(ids)
    assert (whole - exact).abs().max() <= 1e-4
    some = opened(folder, SPARSE, family, rope=rope)
    assert torch.isfinite(some.logits(ids)).all()
    assert some.pages.share is not None


def test_steps_that_are_too_short_for_a_block_are_refused(folder: Callable[..., Path]):
    with pytest.raises(UsageError, match="chunk: 64 ids in a step are too few"):
        opened(folder, SPARSE, chunk=64)
    with pytest.raises(UsageError, match="give 64 or more"):
        opened(folder, SPARSE).logits(ids_of(100), chunk=63)
