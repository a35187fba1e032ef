"""Small files of offloaded pages, and a system that refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from longspan.cache.offload import PageFile

KEY = b"model, rope, format, placement"


def record(size: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


def filled(folder: Path, size: int = 100, count: int = 10, name: str | None = None) -> PageFile:
    pages = PageFile.create(folder, size, count, KEY, name)
    for i in range(count):
        pages.write(i, record(size, i))
    return pages


def rows(size: int, indices: list[int]) -> torch.Tensor:
    return torch.stack([record(size, i) for i in indices]) if indices else torch.empty(0, size, dtype=torch.uint8)


def fails(number: int) -> Callable[..., int]:
    def call(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many buffers each coming call of preadv fills."""
    seen: list[int] = []
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        seen.append(len(buffers))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    return seen
