"""Pages that queries choose for themselves: read where they lie as when they are gathered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch

from longspan import LLM
from longspan.attention.own_pages import OwnPages
from longspan.kernels import cpu, slots

pytestmark = pytest.mark.skipif(cpu.NATIVE is None, reason="no compiled kernels")
IDS = torch.randint(3, checkpoints.VOCAB, (1000,), generator=torch.Generator().manual_seed(5)).tolist()


@pytest.mark.parametrize("format", ["dense", "int8", "int4"])
@pytest.mark.parametrize("place", ["text", "far:near=128", "far:near=128,order=true"])
@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
@pytest.mark.parametrize("from_file", [False, True])
def test_both_ways_give_the_same(
    format: str,
    place: str,
    family: str,
    from_file: bool,
    folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Attention, and what the last query gave to each page, also where lanes have different numbers of pages."""
    llm = LLM(
        folder(family),
        memory="64MB",
        dtype="float32",
        select="sketch:pages=3,near=100,hold=4",
        place=place,
        format=format,
        **({"offload": tmp_path, "resident": 100_000} if from_file else {}),
    )
    compared: list[int] = []
    in_place = OwnPages.where_they_lie

    def both(self, asked, seen):
        if compared:  # one lane reads a page less
            columns, positions, page = self.columns.clone(), self.positions.clone(), self.pool.layout.page
            columns[0], positions[0] = columns[0].roll(-1), positions[0].roll(-page)
            columns[0, -1], positions[0, -page:] = -1, -1
            keys = self.placed.keys.clone()
            keys[0] = keys[0].roll(-page)
            placed = dataclasses.replace(self.placed, keys=keys)
            self = dataclasses.replace(self, columns=columns, positions=positions, placed=placed)
        other = slots.Seen(wants_mass=seen.wants_mass)
        expected = self.gathered(asked, other)
        found = in_place(self, asked, seen)
        assert (found - expected).abs().max() <= 1e-5 * (1 + expected.abs().max())
        if seen.wants_mass:
            assert (seen.mass - other.mass).abs().max() <= 1e-5
        compared.append(seen.wants_mass)
        return found

    monkeypatch.setattr(OwnPages, "where_they_lie", both)
    llm.generate(IDS, max_new_tokens=6, ignore_eos=True)
    assert len(compared) > 4
    assert any(compared)


def test_the_other_backend_gathers(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    """And generates the same."""
    options = {"memory": "64MB", "dtype": "float32", "select": "landmark:pages=3,near=100"}
    compiled = LLM(folder("llama"), **options).generate(IDS, max_new_tokens=8, ignore_eos=True)
    monkeypatch.setattr(OwnPages, "where_they_lie", lambda *_: pytest.fail("read in place"))
    torch_alone = LLM(folder("llama"), backend="torch", **options).generate(IDS, max_new_tokens=8, ignore_eos=True)
    assert torch_alone.ids == compiled.ids
