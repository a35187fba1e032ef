"""Attention over what eviction left: the compiled kernel against torch on gathered slots, with all notes."""

from __future__ import annotations

import pytest
import torch

from longspan.cache.formats import FORMATS
from longspan.kernels import cpu, slots
from longspan.kernels.cpu import kept
from longspan.kernels.work import Raw
from longspan.rope.rotate import turn

pytestmark = pytest.mark.skipif(cpu.NATIVE is None, reason="no compiled kernels here")

TABLE = 300


def made(seed: int, dtype: torch.dtype, dim: int, page: int, lanes: int, format: str | None, options: dict[str, bool]):
    """Lanes of other lengths with holes in sealed pages, and NaN wherever nothing is held: (kept, gathered keys,
    values, positions [G, S], weights)."""
    draw = torch.Generator().manual_seed(seed)
    columns, half = 5, dim // 2 if options.get("partial") is None else dim // 4
    counts = torch.randint(1, columns * page + 1, (lanes,), generator=draw)
    counts[0] = columns * page - 3
    slots_, pages = int(counts.max()), columns * lanes
    keys = torch.randn(2 * pages, dim, page, generator=draw).to(dtype)
    values = torch.randn(2 * pages, page, dim, generator=draw).to(dtype)
    table = torch.randperm(2 * pages, generator=draw)[:pages].view(lanes, columns)
    sealed = torch.zeros(lanes, dtype=torch.int64)
    coded, opened_keys, opened_values = None, keys, values
    if format is not None:
        sealed = torch.tensor([min(2 + lane, int(counts[lane]) // page) for lane in range(lanes)])
        how = FORMATS[format]()
        stored = how.seal(keys, values, None)
        coded = Raw(format, stored, 0)
        opened_keys, opened_values = how.open(stored, torch.float32)
    gathered_keys, gathered_values = torch.zeros(2, lanes, columns * page, dim, dtype=torch.float32)
    positions = torch.full((lanes, columns * page), -1)
    for lane in range(lanes):
        for column in range(columns):
            at, page_id = slice(column * page, (column + 1) * page), table[lane, column]
            old = column < sealed[lane]
            gathered_keys[lane, at] = (opened_keys if old else keys)[page_id].T.float()
            gathered_values[lane, at] = (opened_values if old else values)[page_id].float()
        held = int(counts[lane])
        positions[lane, :held] = torch.arange(held) * 3 + int(torch.randint(0, 5, (1,), generator=draw))
        holes = torch.rand(held, generator=draw) < 0.2
        holes[int(sealed[lane]) * page :] = False
        positions[lane, :held][holes] = -1
    for lane in range(lanes):  # what holds nothing may hold anything
        for column in range(columns):
            if column < sealed[lane]:
                continue
            empty = positions[lane, column * page : (column + 1) * page] < 0
            keys[table[lane, column]][:, empty] = torch.nan
            values[table[lane, column]][empty] = torch.nan
    weights = None
    if options.get("weights"):
        weights = torch.randint(1, 6, positions.shape, generator=draw).float()
    turns = None
    if not options.get("unturned"):
        angle = torch.arange(TABLE)[:, None] / 100 ** (torch.arange(half) / half)
        by = torch.randint(-TABLE + 1, TABLE, (lanes, slots_), generator=draw)
        if options.get("alike"):
            by = by[:, :1].expand(-1, slots_)
        turns = kept.Turns(by, angle.cos().contiguous(), angle.sin().contiguous())
        cos, sin = turns.cos[by.abs()], turns.sin[by.abs()] * by.sign()[..., None]
        gathered_keys[:, :slots_] = turn(gathered_keys[:, :slots_], cos, sin)
    mine = kept.Kept(table.contiguous(), sealed, counts, keys, values, coded, positions, weights, turns)
    clipped = gathered_keys[:, :slots_], gathered_values[:, :slots_], positions[:, :slots_]
    return mine, *clipped, None if weights is None else weights[:, :slots_]


CASES = [
    (torch.float32, 64, 64, 3, None, {}),
    (torch.bfloat16, 64, 64, 3, None, {"weights": True}),
    (torch.float16, 80, 16, 2, None, {"partial": True}),
    (torch.bfloat16, 128, 32, 1, "int8", {"alike": True}),
    (torch.bfloat16, 96, 64, 2, "int4", {}),
    (torch.bfloat16, 64, 64, 2, "dense", {"alike": True}),
    (torch.float32, 256, 128, 2, None, {"unturned": True}),
]
LIMITS = [{}, {"window": 40, "sinks": 7}, {"softcap": 3.0}, {"learned": True}]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("group", [1, 2, 3, 8])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_attention_over_the_gathered_slots(case: tuple, group: int, rows: int, limits: dict):
    dtype, dim, page, lanes, format, options = case
    mine, keys, values, positions, weights = made(group, dtype, dim, page, lanes, format, options)
    draw = torch.Generator().manual_seed(7)
    queries = torch.randn(rows, lanes * group, dim, generator=draw) / dim**0.5
    at = int(positions.max()) - rows - 8 + torch.arange(rows)
    learned = torch.randn(lanes * group, generator=draw) if limits.get("learned") else None
    told = {name: x for name, x in limits.items() if name != "learned"}
    work = slots.Slots(queries, at, keys, values, positions, weights, learned=learned, **told)
    seen = [slots.Seen(since=int(at[-1]), page=page, wants_mass=True) for _ in range(2)]
    wanted = slots.attend(work, seen[0])
    for level in cpu.levels():
        seen[1] = slots.Seen(since=int(at[-1]), page=page, wants_mass=True)
        out = kept.attend(mine, queries, at, learned=learned, seen=seen[1], instructions=level, **told)
        torch.testing.assert_close(out, wanted, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(seen[1].mass, seen[0].mass, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(seen[1].recent, seen[0].recent, rtol=1e-3, atol=1e-5)
        assert torch.equal(seen[1].used, seen[0].used)


def test_a_row_that_sees_nothing_gives_nothing():
    mine, *_ = made(0, torch.float32, 64, 64, 2, None, {})
    out = kept.attend(mine, torch.randn(1, 4, 64), torch.tensor([-5]))
    assert torch.equal(out, torch.zeros(1, 4, 64))


def test_notes_add_up():
    mine, *_ = made(0, torch.float32, 64, 64, 2, None, {})
    queries, at = torch.randn(1, 4, 64), torch.tensor([400])
    once, twice = slots.Seen(wants_mass=True), slots.Seen(wants_mass=True)
    kept.attend(mine, queries, at, seen=once)
    for _ in range(2):
        kept.attend(mine, queries, at, seen=twice)
    assert once.mass is not None
    torch.testing.assert_close(twice.mass, 2 * once.mass)
    assert once.mass.sum() == pytest.approx(4.0, rel=1e-5)


def test_threads_do_not_change_it():
    mine, *_ = made(3, torch.bfloat16, 64, 64, 3, None, {})
    queries, at, before = torch.randn(2, 9, 64), torch.tensor([400, 401]), torch.get_num_threads()
    made_by = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made_by.append(kept.attend(mine, queries, at))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*made_by)


def test_lanes_say_when_the_kernel_serves():
    assert kept.serves(torch.bfloat16, 64, 64, 1, None)
    assert kept.serves(torch.bfloat16, 64, 64, 8, "int4")
    assert not kept.serves(torch.bfloat16, 64, 64, 1, "fp8")
    assert not kept.serves(torch.bfloat16, 40, 64, 1, None)
    assert not kept.serves(torch.float64, 64, 64, 1, None)
    assert not kept.serves(torch.bfloat16, 64, 64, 17, None)
