"""Summaries: bounds bound, a planted key is found, holes never count, blocks and counts of pages change nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from longspan.cache.summaries import SELECTIONS, scan
from longspan.cache.summaries.choose import choose
from longspan.cache.summaries.landmark import Landmark
from longspan.cache.summaries.quest import Quest
from longspan.cache.summaries.representative import Representative
from longspan.cache.summaries.selection import Selection, Stored
from longspan.cache.summaries.sketch import Sketch
from longspan.errors import UsageError
from longspan.spec import parse, render

SCORING = [name for name in SELECTIONS if name != "all"]
P, D = 64, 64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lanes(stored: Stored, count: int = 1) -> Stored:
    """The summaries of count·N pages as those of `count` lanes."""
    return {name: x.unflatten(0, (count, -1)) for name, x in stored.items()}


def score(selection: Selection, queries: torch.Tensor, keys: torch.Tensor, **given_: torch.Tensor) -> torch.Tensor:
    """[R, n]: queries [R, D] against pages of keys [n, D, P]."""
    return selection.score(queries[None], lanes(selection.summarise(keys, **given_)))[0]


def dequantized(stored: Stored) -> torch.Tensor:
    """Keys [n, D, P] of sketches, channel by channel as the docstring says, in float64."""
    codes, low, step = stored["codes"], stored["min"].double(), stored["step"].double()
    group = codes.shape[1]
    channels = [low[:, d, None] + step[:, d, None] * (codes[:, d % group] >> 2 * (d // group) & 3) for d in range(D)]
    return torch.stack(channels, 1)


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SELECTIONS)
def test_bytes_are_those_of_the_buffers(name: str):
    selection = parse(name, SELECTIONS, "select")
    for page, dim in ((64, 64), (16, 128), (128, 80)):
        stored = selection.summarise(random(3, dim, page))
        assert {k: (tuple(v.shape[1:]), v.dtype) for k, v in stored.items()} == selection.layout(page, dim)
        assert sum(v.numel() * v.itemsize for v in stored.values()) == 3 * selection.bytes(page, dim)
    known = {"all": 0, "landmark": 128, "quest": 256, "representative": 2048, "sketch": 64 * 64 // 4 + 2 * 128}
    assert selection.bytes(64, 64) == known[name]


def test_text_and_back():
    made = parse("sketch:pages=16,near=1024,sinks=0,coarse=2.5", SELECTIONS, "select")
    assert made == Sketch(pages=16, near=1024, sinks=0, coarse=2.5)
    assert render(made, SELECTIONS) == "sketch:pages=16,near=1024,sinks=0,coarse=2.5"
    assert [(s.pages, s.near, s.sinks) for s in (parse(n, SELECTIONS, "select") for n in SCORING)] == [(8, 512, 4)] * 4
    assert parse("all", SELECTIONS, "select").pages is None
    with pytest.raises(UsageError, match="its options: none"):
        parse("all:pages=8", SELECTIONS, "select")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quest:pages=0", "quest: pages=0 reads no page; give 1 or more"),
        ("sketch:near=0", "sketch: near=0 would hide"),
        ("landmark:sinks=-1", "landmark: sinks=-1; .* give 0 or more"),
        ("representative:keys=0", "representative: keys=0 .* give 1 or more"),
        ("sketch:coarse=0", "coarse=0; .* above 0 and at most 100"),
        ("sketch:coarse=101", "coarse=101"),
        ("sketch:coarse=nan", "coarse=nan"),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, says: str):
    with pytest.raises(UsageError, match=says):
        parse(text, SELECTIONS, "select")


def test_pages_that_cannot_be_summarised_are_refused():
    with pytest.raises(UsageError, match="keys=16 of a page of 8 tokens; give 8 or fewer"):
        Representative().layout(8, 64)
    with pytest.raises(UsageError, match="head_dim 30 is no multiple of 4"):
        Sketch().layout(64, 30)


# --- what scores mean -----------------------------------------------------------------------------------------------


def test_quest_is_never_below_the_best_key():
    """10⁴ random pages, with channels of all sizes."""
    keys = random(10_000, 32, 16) * random(10_000, 32, 1, seed=1).mul(1.5).exp()
    queries = random(4, 32, seed=2)
    best = torch.einsum("rd,ndp->rnp", queries.double(), keys.double()).amax(-1)
    room = torch.einsum("rd,nd->rn", queries.abs(), keys.abs().amax(-1)) * 1e-5  # float32 sums
    bound = score(Quest(), queries, keys)
    assert (bound >= best - room).all()
    assert (bound > best + room).any()


def test_quest_is_tight_for_pages_of_one_key():
    keys, queries = random(500, 32, 1).half().float(), random(4, 32, seed=2)
    assert torch.allclose(score(Quest(), queries, keys), queries @ keys[..., 0].T, atol=1e-4)
    between = random(500, 32, 1, seed=6)  # numbers that float16 has not, so they are rounded outwards
    exact = (queries.double() @ between[..., 0].double().T).float()
    assert (score(Quest(), queries, between) >= exact - 1e-5).all()
    assert (score(Quest(), queries, random(500, 32, 16)) > 1 + (queries @ random(500, 32, 16)).amax(-1).T).all()


@pytest.mark.parametrize("name", SCORING)
def test_keys_beyond_float16_still_score(name: str):
    keys = random(20, D, P) * 1e6
    selection = parse(name, SELECTIONS, "select")
    assert torch.isfinite(score(selection, random(3, D, seed=1), keys)).all()
    assert torch.isfinite(score(selection, random(3, D, seed=1), keys.abs() + 1e6)).all()


def test_landmark_scores_the_mean():
    keys, queries = random(50, D, P), random(3, D, seed=1)
    assert torch.allclose(score(Landmark(), queries, keys), queries @ keys.mean(-1).T, atol=5e-3)


def test_sketch_scores_equal_those_of_dequantized_keys():
    keys, queries = random(200, D, P) * random(1, D, 1, seed=3).exp(), random(3, D, seed=1)
    stored = Sketch().summarise(keys)
    plain = torch.einsum("rd,ndp->rnp", queries.double(), dequantized(stored)).amax(-1)
    assert torch.allclose(Sketch().score(queries[None], lanes(stored))[0].double(), plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (100.0, 1000.0), (1e-6, 0.0), (0.0, 3.3), (0.0, 1e-9), (1e5, 0)]
)
def test_sketch_errs_by_half_a_step(scale: float, shift: float):
    keys = (random(100, D, P) * scale + shift).clamp(-65504, 65504)
    stored = Sketch().summarise(keys)
    step = stored["step"].double()
    assert torch.isfinite(step).all()
    assert ((keys - dequantized(stored)).abs() <= step[..., None] * 0.50001).all()
    top = keys.double().amax(-1) - keys.double().amin(-1)
    assert (step <= top / 3 * 1.01 + keys.abs().amax() * 2**-10 + 2**-23).all()  # four levels, not fewer
    queries = random(3, D, seed=1)
    best = torch.einsum("rd,ndp->rnp", queries.double(), keys.double()).amax(-1)
    bound = torch.einsum("rd,nd->rn", queries.double().abs(), step) / 2
    slack = torch.einsum("rd,nd->rn", queries.abs(), keys.abs().amax(-1)) * 1e-5
    assert ((Sketch().score(queries[None], lanes(stored))[0] - best).abs() <= bound + slack).all()


def test_representative_keeps_what_stands_out():
    """One key far from the others is kept by 4 of 64; with attention mass, the most attended are."""
    keys = random(20, D, P)
    outlier = random(20, D, seed=1) * 5
    keys[:, :, 17] = outlier
    chosen = Representative(keys=4)
    assert (chosen.summarise(keys)["keys"] == outlier.half()[:, None]).all(-1).any(1).all()
    mass = random(20, P, seed=2)
    best = mass.topk(4).indices
    wanted = keys.transpose(1, 2).gather(1, best[..., None].expand(-1, -1, D)).half()
    assert torch.equal(chosen.summarise(keys, mass=mass)["keys"], wanted)
    queries = random(3, D, seed=4)
    best_of = torch.einsum("rd,nkd->rnk", queries, wanted.float()).amax(-1)
    assert torch.allclose(score(chosen, queries, keys, mass=mass), best_of, atol=1e-4)


# --- needles --------------------------------------------------------------------------------------------------------


def recall(
    selection: Selection, strength: float, pages: int = 1500, needles: int = 40, **given_: torch.Tensor
) -> float:
    """How often the page of a planted key (strength · the query) is among the 8 best of random pages."""
    keys, queries = random(pages, D, P), random(needles, D, seed=5)
    at = torch.arange(needles) * (pages // needles) + 3
    keys[at, :, torch.arange(needles) % P] = strength * queries
    found = choose(score(selection, queries, keys, **given_)[None], 8)[0]
    return (found == at[:, None]).any(-1).double().mean().item()


@pytest.mark.parametrize("selection", [Sketch(), Sketch(coarse=5), Quest()], ids=str)
def test_a_planted_key_is_always_found(selection: Selection):
    assert recall(selection, strength=4.0) == 1


def test_a_sketch_finds_what_a_landmark_loses():
    """A key as long as the others: the mean of 64 drowns it, the bounds of 64 too; four levels are enough."""
    assert recall(Sketch(), strength=1.0) == 1
    assert recall(Sketch(), strength=1.0) >= recall(Landmark(), strength=1.0)
    assert recall(Sketch(), strength=1.0) >= recall(Quest(), strength=1.0)


# --- holes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", [Landmark(), Quest(), Representative(keys=4), Sketch()], ids=str)
@pytest.mark.parametrize("poison", [math.nan, 1e30, -math.inf])
def test_holes_never_count(selection: Selection, poison: float):
    """A page with holes scores as one that holds its valid keys alone."""
    keys, queries = random(30, D, P), random(3, D, seed=1)
    rand = torch.Generator().manual_seed(9)
    for left in (1, 3, 40):
        valid = torch.rand(30, P, generator=rand).argsort(-1) < left
        alone = keys.transpose(1, 2)[valid].view(30, left, D).transpose(1, 2).contiguous()
        made = dataclasses.replace(selection, keys=min(4, left)) if isinstance(selection, Representative) else selection
        holed = score(selection, queries, keys.masked_fill(~valid[:, None], poison), valid=valid)
        assert torch.allclose(holed, score(made, queries, alone), atol=2e-3 if isinstance(made, Landmark) else 1e-4)


def test_attention_mass_of_a_hole_never_counts():
    keys, valid = random(2, D, P), torch.zeros(2, P, dtype=torch.bool)
    valid[:, 5:7] = True
    kept = Representative(keys=4).summarise(keys.masked_fill(~valid[:, None], math.nan), valid, torch.ones(2, P))
    assert (kept["keys"][:, :, None] == keys[:, None, :, 5:7].transpose(2, 3).half()).all(-1).any(-1).all()


@pytest.mark.parametrize("name", SCORING)
def test_an_empty_page_is_never_read(name: str):
    keys, valid = random(40, D, P), torch.ones(40, P, dtype=torch.bool)
    valid[::3] = False
    keys[3] = math.nan
    scores = score(parse(name, SELECTIONS, "select"), random(3, D, seed=1), keys, valid=valid)
    assert (scores[:, ::3] == -math.inf).all()
    assert torch.isfinite(scores[:, 1::3]).all()
    assert torch.isfinite(scores[:, 2::3]).all()
    assert set(choose(scores[None], 40)[0, 0].tolist()) == {-1, *(n for n in range(40) if n % 3)}
    if name == "sketch":
        cut = score(Sketch(pages=1, near=1, coarse=10), random(3, D, seed=1), keys, valid=valid)
        assert (torch.isfinite(cut).sum(-1) == 4 + 1 + 0 + 2).all()
        assert (cut[:, ::3] == -math.inf).all()


# --- how the work is cut --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", [Landmark(), Quest(), Representative(), Sketch(), Sketch(coarse=3)], ids=str)
@pytest.mark.parametrize("block", [1, 100_000, 1_000_000])
def test_blocks_and_strides_change_nothing(selection: Selection, block: int, monkeypatch: pytest.MonkeyPatch):
    keys, queries = random(3 * 101, 16, 16), random(3, 5, 16, seed=1)
    whole = selection.score(queries, lanes(selection.summarise(keys), 3))
    interleaved = {name: x.unflatten(0, (3, 101)).transpose(0, 1).contiguous() for name, x in
                   selection.summarise(keys).items()}  # fmt: skip
    monkeypatch.setattr(scan, "BLOCK", block)
    cut = selection.score(queries, {name: x.transpose(0, 1) for name, x in interleaved.items()})
    assert torch.allclose(cut, whole, atol=1e-4)
    one_by_one = [[selection.score(queries[b : b + 1, r : r + 1], {k: x[None, :, b] for k, x in interleaved.items()})
                   for r in range(5)] for b in range(3)]  # fmt: skip
    rows = torch.cat([torch.cat(row, 1) for row in one_by_one])
    assert torch.allclose(rows, whole, atol=1e-4)


class Largest(TorchDispatchMode):
    """Bytes of the largest memory that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {a.untyped_storage().data_ptr() for a in torch.utils._pytree.tree_leaves((args, kwargs or {}))
                 if isinstance(a, torch.Tensor)}  # fmt: skip
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("selection", [Landmark(), Quest(), Representative(), Sketch(), Sketch(coarse=3)], ids=str)
def test_buffers_do_not_grow_with_the_pages(selection: Selection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scan, "BLOCK", 1 << 16)
    pages = 20_000
    stored = lanes({k: x.expand(pages, *x.shape[1:]).contiguous() for k, x in
                    selection.summarise(random(1, 16, 16)).items()})  # fmt: skip
    with Largest() as seen:
        choose(selection.score(random(1, 2, 16, seed=1), stored), 8)
    assert 4 * 2 * pages <= seen.bytes <= 16 * pages  # the scores themselves; the keys in float32 are 1,024 a page


# --- coarse to fine -------------------------------------------------------------------------------------------------


def test_coarse_to_fine_reads_the_pages_of_the_best_bounds_only():
    keys, queries = random(400, D, P) * (1 + random(400, 1, 1, seed=3).abs()), random(6, D, seed=1)
    full = score(Sketch(), queries, keys)
    assert torch.equal(score(Sketch(coarse=100), queries, keys), full)
    assert torch.equal(score(Sketch(coarse=99.9), queries, keys), full)  # with the margin, every page is read
    cut = score(Sketch(coarse=5, pages=3, near=128), queries, keys)
    kept = cut > -math.inf
    assert (kept.sum(-1) == 400 * 5 // 100 + 3 + 128 // P + 2).all()
    assert torch.allclose(cut[kept], full[kept], atol=1e-4)
    stored = Sketch().summarise(keys)
    low, high = stored["min"].double(), stored["min"].double() + 3 * stored["step"].double()
    bound = torch.maximum(queries[:, None] * low, queries[:, None] * high).sum(-1)
    assert (bound >= full - 1e-3).all()
    for row in range(6):
        assert bound[row][kept[row]].min() >= bound[row][~kept[row]].max() - 1e-3
