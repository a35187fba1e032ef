"""Fixtures that several areas share: tiny checkpoints, made once per run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Triton decides when it is imported, which any test may cause, whether its kernels are interpreted. Only those of
# longspan run here, and nothing else heeds the variable, so it is set for all tests, before any is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import checkpoints

from longspan import LLM

# a change is judged by the same examples each time; `make test-long` draws new ones. No time limit for an example: on a
# busy machine any takes long now and then
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The models are tiny: a second thread waits more than it works, above all on a machine that others use too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """folder(family, rope=…, **overrides): a checkpoint with a byte tokenizer, made at the first call."""
    made: dict[str, Path] = {}

    def get(family: str, **keywords: object) -> Path:
        key = repr((family, sorted(keywords.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family)
            checkpoints.make(family, made[key], **keywords)  # type: ignore[arg-type]
            checkpoints.tokenizer(made[key])
        return made[key]

    return get


@pytest.fixture
def llama(folder: Callable[..., Path]) -> LLM:
    """A three-layer Llama with a small pool."""
    return LLM(folder("llama"), memory="64MB", dtype="float32")
