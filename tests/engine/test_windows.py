"""Sliding windows through a whole model: the reach is shown, the pages stay bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch

from longspan import LLM

WINDOW = 8


def ids_of(tokens: int) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(2)).tolist()


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_the_reach_of_a_stack(layers: int, chunk: int | None, folder: Callable[..., Path]):
    """L layers of window W reach back L·(W−1) tokens: a change there moves the last logits, one token further it
    does not; and the same in prefill and in decode (off by one in transformers#39408 and vllm#3385)."""
    llm = LLM(folder("mistral", sliding_window=WINDOW, num_hidden_layers=layers), memory="64MB", page=16)
    ids = ids_of(100)
    plain = llm.logits(ids, chunk=chunk)[-1]
    reach = layers * (WINDOW - 1)

    def moved(back: int) -> float:
        other = list(ids)
        other[-1 - back] = (other[-1 - back] + 101) % checkpoints.VOCAB
        return float((llm.logits(other, chunk=chunk)[-1] - plain).abs().max())

    assert moved(reach) > 1e-7
    assert moved(1) > 1e-3
    for back in (reach + 1, reach + 2, 99):
        assert moved(back) == 0.0


def test_pages_stay_bounded_at_64_windows(folder: Callable[..., Path]):
    llm = LLM(folder("mistral", sliding_window=32), memory="64MB", page=16, chunk=64)
    llm.generate(ids_of(64), max_new_tokens=1, ignore_eos=True)
    early = llm.pool.peak_bytes // llm.pool.page_bytes
    llm.generate(ids_of(64 * 32), max_new_tokens=20, ignore_eos=True)
    bound = llm.layout.bytes(64 * 32, chunk=64) // llm.layout.page_bytes
    assert early < llm.pool.peak_bytes // llm.pool.page_bytes <= bound == 3 * 2 * ((32 + 64 - 3) // 16 + 2)


def test_mixed_layers_hold_what_their_kind_needs(folder: Callable[..., Path]):
    """gemma3: full layers keep all, window layers their window."""
    llm = LLM(folder("gemma3_text"), memory="64MB", page=16, chunk=32)
    with llm.session() as session:
        session.feed(ids_of(64 * 32))
        window, full = session._text.cache.groups
        assert (window.window, full.window) == (32, None)
        assert full.count == 64 * 32 // 16
        assert window.count == 2
