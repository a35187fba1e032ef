"""Format, eviction, selection and placement side by side: each of them with each, or refused with a sentence."""

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
from longspan.cache.summaries import SELECTIONS
from longspan.errors import UsageError
from longspan.rope import METHODS

PACKED = [name for name in FORMATS if name != "dense"]
PLACES = ["text", "slot", "far:near=32", "far:near=32,order=true"]
FEW = [name for name in SELECTIONS if name != "all"]
#: how far logits of the tiny models may move in the format
NEAR = {"dense": 1e-5, "int8": 0.02, "fp8": 0.2, "int4": 0.4}
LONG = 150


def ids_of(tokens: int, seed: int = 2) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def legal(evict: str, select: str, place: str) -> bool:
    if place != "text" and evict == "none" and select == "all":
        return False  # every page is read, so each stands where it does in the text
    return not (place == "slot" and evict == "none")  # pages that are chosen lie in no slots


def spelled(evict: str, select: str, budget: int = 80, pages: int = 2, near: int = 32, reading: str = "window"):
    few = f"{select}:pages={pages},near={near},reading={reading}"
    return ("none" if evict == "none" else f"{evict}:budget={budget},merge=false"), ("all" if select == "all" else few)


@pytest.fixture(scope="module")
def made(folder: Callable[..., Path]) -> Callable[..., LLM]:
    def get(format: str, evict: str, select: str, place: str, layers: int = 1, **options: object) -> LLM:
        path = folder("llama", num_hidden_layers=layers)
        options = {"memory": "8MB", "dtype": "float32", "page": 16, **options}
        return LLM(path, format=format, evict=evict, select=select, place=place, **options)  # type: ignore[arg-type]

    return get


@pytest.mark.parametrize("format", FORMATS)
def test_each_of_the_other_three_generates_in_one_format_and_all_else_is_refused(format: str, made: Callable[..., LLM]):
    """Every eviction × selection × placement in one of the formats, in turns."""
    first, names = list(FORMATS).index(format), list(itertools.product(["none", *POLICIES], SELECTIONS, PLACES))
    generates(format, names[first :: len(FORMATS)], made)


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
def test_all_that_is_legal_generates_and_all_else_is_refused(format: str, made: Callable[..., LLM]):
    generates(format, list(itertools.product(["none", *POLICIES], SELECTIONS, PLACES)), made)


def generates(format: str, names: list[tuple[str, str, str]], made: Callable[..., LLM]) -> None:
    ids, question = ids_of(100), ids_of(3, 3)
    for evict, select, place in names:
        options = spelled(evict, select)
        if not legal(evict, select, place):
            with pytest.raises(UsageError, match="place: "):
                made(format, *options, place)
            continue
        llm = made(format, *options, place)
        with llm.session() as session:
            session.feed(ids)
            assert len(session.ask(question, max_new_tokens=3, ignore_eos=True).ids) == 3
        assert llm.pool.peak_bytes <= llm.layout.bytes(106, chunk=1024)
        for slab in (llm.pool, llm.pool.sealed, llm.pool.summaries):
            assert slab is None or slab.owned == 0
        assert llm.pool.owned_bytes == 0


ROPES = {name: f"{name}:factor=4" for name in ("linear", "ntk", "ntk_by_parts", "dynamic", "yarn", "llama3")} | {
    "default": "default",
    "longrope": "longrope:"
    + ",".join((f"short_factor={'/'.join('1' * 8)}", f"long_factor={'/'.join('2' * 8)}", "factor=4")),
}


@pytest.mark.filterwarnings("ignore:150 tokens are more than the 64")
@pytest.mark.parametrize("rope", METHODS)
def test_every_rope_with_every_format_eviction_selection_and_placement(rope: str, folder: Callable[..., Path]):
    """In pairs, on a model that was trained at 64 tokens, so that its angles are scaled: each of the others once with
    this rope, and it is this rope that the text is read with."""
    path, ids = folder("llama", num_hidden_layers=1, max_position_embeddings=64), ids_of(150)
    plans = [{"format": format} for format in FORMATS]
    plans += [{"evict": f"{evict}:budget=80"} for evict in POLICIES]
    plans += [{"select": f"{select}:pages=2,near=32", "reading": "token"} for select in FEW]
    plans += [{"evict": "h2o:budget=80", "place": place} for place in PLACES]
    plans += [{"select": "sketch:pages=2,near=32", "place": place} for place in PLACES if place != "slot"]
    logits = {}
    for plan in plans:
        reading = plan.pop("reading", None)
        if reading:
            plan["select"] += f",reading={reading}"
        llm = LLM(path, memory="8MB", dtype="float32", page=16, rope=ROPES[rope], **plan)
        logits[str(plan)] = llm.logits(ids)
        assert bool(logits[str(plan)].isfinite().all())
        scaled = llm.reach(150) > 64  # far pages and slots may stand at distances that need none
        assert llm.ropes.used(llm.reach(150)).split(":")[0] == (rope if scaled else "default")
        assert len(llm.generate(ids, max_new_tokens=2, ignore_eos=True).ids) == 2
    plain = LLM(path, memory="8MB", dtype="float32", page=16, rope="default").logits(ids)
    same = (logits[str({"format": "dense"})] - plain).abs().max()
    assert same == 0 if rope == "default" else same > 1e-3


@pytest.mark.parametrize("format", PACKED)
@pytest.mark.parametrize("evict", POLICIES)
def test_merging_is_for_dense_pages(format: str, evict: str, made: Callable[..., LLM]):
    with pytest.raises(UsageError, match="give merge=false or leave out --format"):
        made(format, f"{evict}:merge=true", "all", "text")


def test_eviction_stays_in_memory(made: Callable[..., LLM], tmp_path: Path):
    for format, select in itertools.product(FORMATS, ("all", "quest")):
        with pytest.raises(UsageError, match="offload: "):
            made(format, "h2o", select, "text", offload=str(tmp_path))


@pytest.mark.parametrize("format", longer(FORMATS, lambda format: format in ("dense", "int4")))
def test_with_room_for_all_it_is_dense_attention(format: str, made: Callable[..., LLM]):
    """Budgets of more than the text, all pages, and the distances of the text."""
    ids = ids_of(LONG)
    exact = made("dense", "none", "all", "text").logits(ids)
    for evict, select in itertools.product(["none", *POLICIES], SELECTIONS if format == "dense" else ["all", "sketch"]):
        # pyramidkv gives the uppermost layer a twentieth of what the others may spare
        budget = 20 * LONG if evict == "pyramidkv" else LONG
        llm = made(format, *spelled(evict, select, budget, pages=LONG, reading="token"), "text")
        assert (llm.logits(ids) - exact).abs().max() <= NEAR[format], (evict, select)


@pytest.mark.parametrize(
    ("select", "place"),
    longer(itertools.product(FEW, PLACES), lambda select, place: place == "slot" or select == "sketch"),
)
def test_all_pages_of_what_stayed_is_eviction_alone(select: str, place: str, made: Callable[..., LLM]):
    """Whatever the budget: reading every page that is left is the same as choosing none of them."""
    ids = ids_of(LONG)
    for evict in list(POLICIES)[PLACES.index(place) :: len(PLACES)]:  # each with every selection
        options = spelled(evict, select, 80, pages=100, reading="token")
        chosen = made("dense", *options, place).logits(ids)
        plain = made("dense", options[0], "all", place).logits(ids)
        assert (chosen - plain).abs().max() <= 2e-5, evict
    few = made("dense", *spelled(evict, select, 80, pages=1, near=16, reading="token"), place).logits(ids)
    assert (few - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("format", "place"), [("dense", "slot"), ("int8", "text"), ("int4", "far:near=32")])
@pytest.mark.parametrize("select", FEW)
def test_any_chunks_and_any_company_give_the_same(format: str, place: str, select: str, made: Callable[..., LLM]):
    prompts = [ids_of(170), ids_of(140, 3), ids_of(10, 4)]
    evict = ("h2o", "adakv", "lru", "keydiff")[FEW.index(select)]
    options = (format, *spelled(evict, select, 96), place)
    together = [one.ids for one in made(*options).generate(prompts, max_new_tokens=20, ignore_eos=True)]
    other = made(*options, chunk=23)
    assert together == [other.generate(prompt, max_new_tokens=20, ignore_eos=True).ids for prompt in prompts]


@pytest.mark.parametrize(("format", "place"), [("dense", "text"), ("int8", "slot"), ("int4", "far:near=32")])
def test_sessions_fork_and_are_saved(format: str, place: str, made: Callable[..., LLM], tmp_path: Path):
    llm = made(format, *spelled("snapkv", "sketch", 96), place, layers=3)
    question = ids_of(30, 5)
    with llm.session() as session:
        session.feed(ids_of(LONG))
        session.save(tmp_path / "text")
        with session.fork() as twin:
            first = twin.ask(question, max_new_tokens=40, ignore_eos=True).ids
        assert session.ask(question, max_new_tokens=40, ignore_eos=True).ids == first
    with llm.resume(tmp_path / "text") as session:
        assert session.ask(question, max_new_tokens=40, ignore_eos=True).ids == first
    assert llm.pool.owned_bytes == 0
