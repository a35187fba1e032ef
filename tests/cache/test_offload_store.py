"""Sealed pages in a file are owned, written and read as those in memory are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from page_files import fails

from longspan.cache.formats import FORMATS
from longspan.cache.offload import Offloaded, store
from longspan.cache.pages import Budget
from longspan.cache.pool import Slab
from longspan.errors import DamagedPage, LongspanError, StoreError, UsageError

P, D = 16, 32


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_comes_back_is_what_a_slab_gives(name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(store, "STEP", 5000)  # so that the file grows on the way
    form = FORMATS[name]()
    layout = form.layout(P, D, dtype)
    slab = Slab(layout, Budget(1 << 24), torch.device("cpu"))
    filed = Offloaded(layout, str(tmp_path), 3 * slab.page_bytes, torch.device("cpu"))
    assert filed.page_bytes == slab.page_bytes
    generator = torch.Generator().manual_seed(1)
    for n in (1, 4, 9):
        keys, values = (torch.randn(n, *size, generator=generator).to(dtype) for size in ((D, P), (P, D)))
        stored = form.seal(keys, values, None)
        ids = slab.claim(np.full(n, -1))
        assert (filed.claim(np.full(n, -1)) == ids).all()
        slab.put(ids, stored)
        filed.put(ids, stored)
    wanted = torch.tensor([13, 2, 2, 0, 7])
    one, other = slab.take(wanted), filed.take(wanted)
    assert {k: (v.dtype, v.shape) for k, v in one.items()} == {k: (v.dtype, v.shape) for k, v in other.items()}
    assert all(torch.equal(one[k].view(torch.uint8), other[k].view(torch.uint8)) for k in one)
    filed.release(np.arange(5))
    assert filed.owned == 9
    assert sorted(filed.claim(np.full(5, -1)).tolist()) == [0, 1, 2, 3, 4]  # what is free is used before the file grows
    assert filed.disk_bytes == filed.total * filed.page_bytes >= 14 * filed.page_bytes
    assert os.listdir(tmp_path) == []


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    layout = FORMATS["int8"]().layout(P, D, torch.float32)
    with pytest.raises(StoreError, match="does not exist"):
        Offloaded(layout, str(tmp_path / "gone"), 1 << 20, torch.device("cpu"))
    with pytest.raises(UsageError, match="10 bytes for resident pages"):
        Offloaded(layout, str(tmp_path), 10, torch.device("cpu"))
    pages = Offloaded(layout, str(tmp_path), 1 << 20, torch.device("cpu"))
    stored = FORMATS["int8"]().seal(torch.randn(2, D, P), torch.randn(2, P, D), None)
    ids = pages.claim(np.full(2, -1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails(errno.ENOSPC))
        with pytest.raises(LongspanError, match="the disk is full") as caught:
            pages.put(ids, stored)
        assert caught.value.exit_code == 1  # a run under way failed; nothing is wrong with a store that was given
    with pytest.raises(DamagedPage):
        pages.take(torch.from_numpy(ids))
    pages.put(ids, stored)
    assert torch.equal(pages.take(torch.from_numpy(ids))["keys"], stored["keys"])
    monkeypatch.setattr(os, "posix_fallocate", fails(errno.ENOSPC))
    total, owned = pages.total, pages.owned
    with pytest.raises(LongspanError, match="the disk is full") as caught:
        pages.claim(np.full(pages.total, -1))
    assert caught.value.exit_code == 1
    assert (pages.total, pages.owned) == (total, owned)
