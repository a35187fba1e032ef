"""Bugs that other engines shipped, one test each (positions and masks)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from test_parity import ids_of, reference, theirs

from longspan import LLM
from longspan.attention.rotation import Rotation
from longspan.kernels import BACKENDS, Work, WrittenRun, backend
from longspan.rope import Geometry
from longspan.rope.default import Default
from longspan.rope.yarn import Yarn

GEOMETRY = Geometry(dim=16, theta=1e4, original=64, positions=64)


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("rows", [1, 20])
def test_yarn_logits_scale_by_the_square_of_the_factor(name: str, rows: int):
    """The attention factor multiplies queries and keys alike, so logits by its square; rotated channels only."""
    angles = Yarn(factor=16).angles(GEOMETRY, 10_000)
    bare = dataclasses.replace(angles, attention_factor=1.0)
    random = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(rows, 2, 24, generator=random), torch.randn(2, 1, 24, 16, generator=random)
    values = torch.randn(2, 1, 16, 24, generator=random)

    def attend(rotation: Rotation, q: torch.Tensor) -> torch.Tensor:
        cos, sin = rotation.queries(np.arange(rows) - rows + 16)
        turned = torch.cat(
            [q[..., :8] * cos - q[..., 8:16] * sin, q[..., 8:16] * cos + q[..., :8] * sin, q[..., 16:]], -1
        )
        far = rotation.distances(0, 2)
        return backend(name)(
            Work(
                turned,
                16 - rows,
                -16,
                [WrittenRun(keys, values)],
                keys.shape[1],
                16,
                keys.dtype,
                cos=far[0],
                sin=far[1],
            )
        )

    scaled = queries.clone()
    scaled[..., :16] *= angles.attention_factor**2
    page, cpu = 16, torch.device("cpu")
    assert torch.allclose(
        attend(Rotation(angles, page, cpu), queries), attend(Rotation(bare, page, cpu), scaled), atol=1e-5
    )
    assert not torch.allclose(attend(Rotation(angles, page, cpu), queries), attend(Rotation(bare, page, cpu), queries))


def test_the_newest_key_is_rotated_like_the_others(folder: Callable[..., Path]):
    """transformers#33691 (SinkCache) left it out: decoding id by id equals one pass, at every single place."""
    llm, ids = LLM(folder("llama"), memory="64MB"), ids_of(140)
    assert (llm.logits(ids, chunk=1) - llm.logits(ids)).abs().max() <= 1e-5


def test_rotations_come_from_the_live_frequencies(folder: Callable[..., Path]):
    """OpenVINO GenAI rotates with θ = 10,000 always: another base must match transformers across pages."""
    path, ids = folder("llama", rope={"rope_type": "default", "rope_theta": 500.0}), ids_of(300)
    llm, expected = LLM(path, memory="64MB"), reference(theirs(path), ids)
    for chunk in (None, 1, 100):
        assert (llm.logits(ids, chunk=chunk) - expected).abs().max() <= 1e-4
    plain = LLM(folder("llama"), memory="64MB").logits(ids)
    assert (plain - expected).abs().max() > 1e-2, "the base matters, so the comparison means something"


def test_position_is_not_the_physical_length(folder: Callable[..., Path]):
    """kvpress#16 took positions from the shortened cache. Our placement is `text`: after pages of a window layer are
    freed, later tokens keep their place in the text, and the same text elsewhere gives the same."""
    llm = LLM(folder("gemma2"), memory="64MB", page=16, chunk=16)
    ids = ids_of(300)
    with llm.session() as session:
        for i in range(0, 300, 60):
            session.feed(ids[i : i + 60])
        window = next(g for g in session._text.cache.groups if g.window)
        assert window.count * 16 < 300
        assert (window.first + window.count) * 16 >= 300
        answer = session.ask([7], max_new_tokens=10, ignore_eos=True)
    assert answer.ids == llm.generate([*ids, 7], max_new_tokens=10, ignore_eos=True).ids


def test_freed_pages_leave_no_stale_mask(folder: Callable[..., Path]):
    """Evict, then reuse a mask built for the old length: silent corruption of prefill. Only tokens outside every
    window are freed here, so the logits must not move at all from those of one pass, at any chunk size."""
    path, ids = folder("mistral"), ids_of(500)
    expected = reference(theirs(path), ids)
    for chunk in (None, 16, 50, 200):
        llm = LLM(path, memory="64MB", page=16)
        assert (llm.logits(ids, chunk=chunk) - expected).abs().max() <= 1e-4


def test_no_id_sees_the_future(llama: LLM):
    """The causal bound, in prefill and in packed rows: another last id changes no earlier logits."""
    ids = ids_of(200)
    other = [*ids[:-1], (ids[-1] + 1) % checkpoints.VOCAB]
    for chunk in (None, 64):
        assert torch.equal(llama.logits(ids, chunk=chunk)[:-1], llama.logits(other, chunk=chunk)[:-1])


def test_sinks_do_not_lift_the_causal_bound(folder: Callable[..., Path]):
    llm, ids = LLM(folder("gpt_oss"), memory="64MB"), ids_of(120)
    other = [*ids[:-1], (ids[-1] + 1) % checkpoints.VOCAB]
    assert torch.equal(llm.logits(ids)[:-1], llm.logits(other)[:-1])


def test_window_prefill_equals_window_decode(folder: Callable[..., Path]):
    """Off by one in transformers#39408 and vllm#3385."""
    llm, ids = LLM(folder("mistral"), memory="64MB"), ids_of(150)
    assert (llm.logits(ids, chunk=1) - llm.logits(ids)).abs().max() <= 1e-5


def test_a_text_is_independent_of_its_company(folder: Callable[..., Path]):
    """transformers' dynamic NTK takes the longest text of a batch for all; kvpress ignored padding."""
    path = folder("llama", rope={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=64)
    llm = LLM(path, memory="64MB")
    short, long = ids_of(40), ids_of(300, seed=4)
    alone = llm.generate(short, max_new_tokens=16, ignore_eos=True).ids
    assert llm.generate([long, short], max_new_tokens=16, ignore_eos=True)[1].ids == alone


def test_positions_are_angles_of_default_rope_at_offsets(llama: LLM):
    """A stored key is rotated by its offset in the page alone."""
    with llama.session() as session:
        session.feed(ids_of(130))
        group = session._text.cache.groups[0]
        stored = llama.pool.keys[torch.from_numpy(group.live[0, 0])]  # first layer: [3, D, 64]
    rotation = Rotation(Default().angles(GEOMETRY, 1), 64, torch.device("cpu"))
    cos, sin = rotation.keys(torch.arange(64))
    back = torch.cat([stored[0].T[:, :8] * cos[:, 0] + stored[0].T[:, 8:] * sin[:, 0],
                      stored[0].T[:, 8:] * cos[:, 0] - stored[0].T[:, :8] * sin[:, 0]], -1)  # fmt: skip
    ids = ids_of(130)
    model = llama.scheduler.forward.model.model
    layer = model.layers[0]
    with torch.inference_mode():
        hidden = layer.input_layernorm(model.embed_tokens(torch.tensor(ids[:64])))
        unrotated = layer.self_attn.k_proj(hidden)[:, :16]
    assert torch.allclose(back, unrotated, atol=1e-5)
